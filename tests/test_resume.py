"""A kept folder answers for the work it was kept of, and for no other."""

import json

import keras
import numpy as np
import pytest

import masks
from keras_qsn import attacks
from keras_qsn._core import kept
from keras_qsn.certification import certify
from keras_qsn.certification.escalation import Escalation
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import minimal_distances
from keras_qsn.evaluation import reaching
from keras_qsn.evaluation import store
from keras_qsn.evaluation.checks import registry
from keras_qsn.evaluation.outcomes import Step
from keras_qsn.layers import ConstantQuantization

EPS = 0.3
FGSM = attacks.FastGradientMethod(EPS)


@pytest.fixture(autouse=True)
def few_checks(monkeypatch):
    chosen = {"silent-success": registry.ENTRIES["silent-success"]}
    monkeypatch.setattr(registry, "ENTRIES", chosen)


def network(
    seed=0, slope=0.0, quantizer=None, name=None, kind=keras.layers.Conv2D
):
    """Small, with the weights of its seed, whatever the rest."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            *([] if quantizer is None else [quantizer]),
            kind(3, 3),
            layers.LeakyReLU(negative_slope=slope),
            layers.Flatten(),
            layers.Dense(3),
        ],
        name=name,
    )
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


X = np.random.default_rng(1).random((12, 6, 6, 1), "float32")
Y = np.asarray(network()(X)).argmax(-1)


def evaluated(model, folder, plan=(FGSM,), **kwargs):
    kwargs = {"eps": EPS, "plan": [*plan], "verbose": 0, **kwargs}
    return evaluate_robustness(model, X, Y, folder=folder, **kwargs)


def certified(model, folder):
    return certify(model, X, Y, 0.02, folder=folder, verbose=0)


def reached(model, folder, **kwargs):
    kwargs = {"plan": [FGSM, attacks.FastGradientMethod(1, 2)], **kwargs}
    return minimal_distances(model, X, Y, folder=folder, verbose=0, **kwargs)


WORK = pytest.mark.parametrize("work", [evaluated, certified, reached])


@WORK
class TestTheModel:
    @pytest.mark.parametrize(
        "other",
        [
            {"slope": 0.3},
            {"seed": 1},
            {"quantizer": ConstantQuantization(2, hard=True)},
        ],
    )
    def test_another_is_refused(self, work, other, tmp_path):
        work(network(), tmp_path)
        with pytest.raises(
            ValueError, match="differs in fingerprint.*tells the model"
        ):
            work(network(**other), tmp_path)

    def test_another_quantizer_is_refused(self, work, tmp_path):
        """With the same weights: they do not tell."""
        work(network(quantizer=ConstantQuantization(2, hard=True)), tmp_path)
        for other in (
            ConstantQuantization(2),
            ConstantQuantization(2, steepness=20, hard=True),
        ):
            with pytest.raises(
                ValueError, match="differs in fingerprint.*tells the model"
            ):
                work(network(quantizer=other), tmp_path)

    def test_another_name_is_none(self, work, tmp_path):
        quantizers = [ConstantQuantization(2, name=name) for name in "ab"]
        for quantizer, name in zip(quantizers, ("first", "second")):
            work(network(quantizer=quantizer, name=name), tmp_path)

    def test_another_version_is_refused(self, work, tmp_path, monkeypatch):
        work(network(), tmp_path)
        monkeypatch.setattr(kept, "__version__", "0.0.9")
        with pytest.raises(ValueError, match="differs in versions.keras_qsn"):
            work(network(), tmp_path)

    def test_a_folder_of_the_version_before_is_refused(self, work, tmp_path):
        old = {"weights": "1d2c3b4a59687766", "data": "0123456789abcdef"}
        (tmp_path / "settings.json").write_text(json.dumps(old))
        (tmp_path / "attack-0.npz").write_bytes(b"PK")
        with pytest.raises(
            ValueError, match="kept by an earlier version.*Name another folder"
        ):
            work(network(), tmp_path)

    def test_two_at_once_are_refused(self, work, tmp_path):
        work(network(), tmp_path)
        with kept.locked(tmp_path):
            with pytest.raises(ValueError, match="Another run is at work"):
                work(network(), tmp_path)
        work(network(), tmp_path)


class TestSources:
    def test_of_the_users_own_plan_count_by_what_they_are(self, tmp_path):
        model = network()

        def plan(**source):
            source = network(name="twin", **source)
            return [attacks.TransferAttack(FGSM, source)]

        found = evaluated(model, tmp_path, plan(seed=3))
        again = evaluated(model, tmp_path, plan(seed=3))
        np.testing.assert_array_equal(found.robust, again.robust)
        fresh = evaluated(model, None, plan(seed=4))
        assert (fresh.robust != found.robust).any()
        for other in ({"seed": 4}, {"seed": 3, "slope": 0.3}):
            with pytest.raises(ValueError, match="other work.*plan"):
                evaluated(model, tmp_path, plan(**other))

    def test_functions_without_a_name_of_their_own_are_refused(self, tmp_path):
        """Another lambda would find what the first one's attack did."""
        attack = attacks.FastGradientMethod(EPS, loss=lambda y, z: z[:, 0])
        for given in (attack, attacks.EOT(attack)):
            with pytest.raises(ValueError, match="top of a module.*<lambda>"):
                evaluated(network(), tmp_path / "kept", [given])
        assert not (tmp_path / "kept").exists()

    def test_inside_an_attack_of_an_attack(self, tmp_path):
        class Twice(attacks.Attack):
            """Holds an attack that holds a model."""

            def __init__(self, inside):
                super().__init__(EPS)
                self.inside = inside

            def get_config(self):
                return {}

            def _perturb(self, logits_fn, x, *args):
                return x

        plans = [
            [Twice(attacks.TransferAttack(FGSM, network(seed, name="twin")))]
            for seed in (3, 4)
        ]
        evaluated(network(), tmp_path, plans[0])
        with pytest.raises(ValueError, match="other work.*plan"):
            evaluated(network(), tmp_path, plans[1])

    def test_that_are_given_too(self, tmp_path):
        kwargs = {"plan": "quick", "eps": 0.1}

        def work(**source):
            def stop(name, done, total):
                raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                evaluate_robustness(
                    network(),
                    X,
                    Y,
                    sources={"mine": network(**source)},
                    folder=tmp_path,
                    progress=stop,
                    **kwargs,
                )

        work(seed=3)
        work(seed=3, name="another")
        with pytest.raises(ValueError, match="differs in sources.mine"):
            work(seed=3, slope=0.3)

    def test_kept_weights_are_the_source_again(self, tmp_path):
        model = network(quantizer=ConstantQuantization(2, hard=True))
        trainings = []

        def work():
            def stop(name, done, total):
                if not name.startswith("training"):
                    raise KeyboardInterrupt
                trainings.append(done)

            with pytest.raises(KeyboardInterrupt):
                evaluate_robustness(
                    model,
                    X,
                    Y,
                    EPS,
                    plan="quick",
                    train_data=(X, Y),
                    folder=tmp_path,
                    progress=stop,
                )

        work()
        work()
        assert trainings == [1, 2, 3]
        path = tmp_path / "twin.npz"
        whole = path.read_bytes()
        path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
        with pytest.raises(ValueError, match="twin.npz is damaged.*Delete it"):
            work()
        path.unlink()
        work()
        assert trainings == 2 * [1, 2, 3] and path.read_bytes() == whole


class TestMinimalDistances:
    def test_go_on_where_they_were(self, tmp_path, monkeypatch):
        """Killed in the middle of an attack, once in each batch of it."""
        model, given = network(), {"batch_size": 5}
        whole = reached(model, None, **given)
        run_attack, runs = reaching.run_attack, []

        def one(*args, **kwargs):
            if len(runs) % 2:
                runs.append(None)
                raise KeyboardInterrupt
            runs.append(kwargs["first"])
            return run_attack(*args, **kwargs)

        monkeypatch.setattr(reaching, "run_attack", one)
        for _ in range(6):
            try:
                found = reached(model, tmp_path, **given)
            except KeyboardInterrupt:
                continue
        assert [first for first in runs if first is not None] == 2 * [0, 5, 10]
        np.testing.assert_array_equal(found.x_adv, whole.x_adv)
        assert plain_distances(found) == plain_distances(whole)
        # Nothing is left to do.
        again = reached(model, tmp_path, **given)
        assert plain_distances(again) == plain_distances(whole)
        assert len(runs) == 11

    def test_of_other_work_are_refused(self, tmp_path):
        reached(network(), tmp_path / "kept")
        with pytest.raises(ValueError, match="differs in norm"):
            reached(network(), tmp_path / "kept", norm=1)
        with pytest.raises(ValueError, match="holds other work"):
            evaluated(network(), tmp_path / "kept")
        attack = attacks.FastGradientMethod(EPS, loss=lambda y, z: z[:, 0])
        with pytest.raises(ValueError, match="top of a module.*<lambda>"):
            reached(network(), tmp_path / "none", plan=[attack])
        assert not (tmp_path / "none").exists()

    def test_a_fitted_surrogate_is_kept_too(self, tmp_path):
        layers = keras.layers
        masked = keras.Sequential(
            [keras.Input((6, 6, 1)), masks.Thermometer(2, name="steps")]
            + [layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(3)]
        )
        given = {"plan": "quick", "norm": 1}
        first = reached(masked, tmp_path, **given)
        assert "imitates" in first.settings["masks"][0]["surrogate"]
        assert len([*tmp_path.glob("surrogate*")]) == 1
        again = reached(masked, tmp_path, **given)
        assert plain_distances(again) == plain_distances(first)


class TestDamage:
    """2,000 single flipped bits in every kind of file that is read again."""

    @staticmethod
    def flip(path, read, wanted):
        content = path.read_bytes()
        refused = 0
        for bit in np.random.default_rng(0).integers(
            8 * len(content), size=2000
        ):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                assert repr(read()) == wanted
            except ValueError as error:
                assert path.name in str(error) and "damaged" in str(error)
                refused += 1
        path.write_bytes(content)
        assert repr(read()) == wanted
        return refused

    def test_of_an_evaluation(self, tmp_path):
        evaluated(network(), tmp_path)
        folder = kept.Folder(tmp_path)
        step = Step("FGSM", "white-box", FGSM)
        reads = {
            "attack-0.npz": lambda: vars(store.kept_outcome(folder, 0, step)),
            "checks.json": lambda: plain_checks(folder),
        }
        for path in tmp_path.glob("attack-[!0-9]*.npz"):
            reads[path.name] = reads["checks.json"]
        for name, read in reads.items():
            wanted = repr(read())
            assert self.flip(tmp_path / name, read, wanted) > 1700

    def test_of_the_settings(self, tmp_path):
        settings = {"eps": 0.1, "fingerprint": "0123456789abcdef"}

        def read():
            with kept.work_folder(tmp_path, settings) as folder:
                return folder

        wanted = repr(read())
        assert self.flip(tmp_path / "settings.json", read, wanted) > 1700

    def test_of_a_certificate(self, tmp_path):
        model = network(quantizer=ConstantQuantization(2, hard=True))
        found = certified(model, tmp_path)
        path = tmp_path / "part-0.npz"

        def read():
            work = Escalation(X, Y, 0.02, kept.Folder(tmp_path), None)
            work.restore()
            return work.certificate()

        wanted = read()
        # A slow machine has kept the first of several parts.
        np.testing.assert_array_equal(
            wanted.margin, found.margin[: len(wanted)]
        )
        assert self.flip(path, read, repr(wanted)) == 2000

    def test_checks_of_before_they_said_what_they_are_of(self, tmp_path):
        """What was measured is kept; the rest stands in the register."""
        whole = evaluated(network(), tmp_path)
        folder = kept.Folder(tmp_path)
        checks = folder.get("checks.json")
        for check in checks["checks"]:
            del check["own_gradient"]
            check["name"] = "its name of before"
        folder.put("checks.json", checks)
        assert evaluated(network(), tmp_path).checks == whole.checks

    def test_what_is_deleted_is_made_again(self, tmp_path):
        whole = evaluated(network(), tmp_path)
        broken = [path.name for path in tmp_path.glob("attack-[!0-9]*.npz")]
        for name in ("attack-0.npz", "checks.json", *broken):
            (tmp_path / name).unlink()
            again = evaluated(network(), tmp_path)
            np.testing.assert_array_equal(again.x_adv, whole.x_adv)
            assert again.checks == whole.checks
            assert (tmp_path / name).exists()


def plain_distances(found):
    """All but the time it took."""
    plain = found.to_json()
    for attack in plain["attacks"]:
        del attack["seconds"]
    return plain


def plain_checks(folder):
    """What a folder keeps of the checks, as values that can be compared."""
    checks, outcomes, curve, trace = store.kept_checks(folder)
    return checks, [vars(outcome) for outcome in outcomes], curve, trace
