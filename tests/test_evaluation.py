"""evaluate_robustness: the worst case, resuming, plans, callback, command."""

import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import linear_model
from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn import cli
from keras_qsn import evaluation as ev
from keras_qsn.attacks import norms
from keras_qsn.attacks.result import AttackResult
from keras_qsn.callbacks import AttackAccuracy
from keras_qsn.cli import evaluate as command
from keras_qsn.evaluation import plans
from keras_qsn.evaluation.checks import registry
from keras_qsn.training import QuSecNet

EPS = 0.3
STEPS = [
    attacks.FastGradientMethod(EPS),
    attacks.CubeAttack(EPS, nb_iter=5, nb_restarts=1),
    attacks.CarliniWagnerL2(max_iterations=5, binary_search_steps=1),
]


ALWAYS_WRONG = registry.Entry(
    1, "wrong", "always wrong", lambda probe: ("fail", "0.5", "Do better.")
)


@pytest.fixture
def images(digits):
    return digits.x_test[::25], digits.y_test[::25]


@pytest.fixture(autouse=True)
def few_checks(monkeypatch):
    """Their own tests are elsewhere; here they only have to take part."""
    chosen = {"silent-success": registry.ENTRIES["silent-success"]}
    monkeypatch.setattr(registry, "ENTRIES", chosen)


def evaluate(model, x, y, **kwargs):
    kwargs = {"eps": EPS, "plan": STEPS, "verbose": 0, **kwargs}
    return ev.evaluate_robustness(model, x, y, **kwargs)


def same(one, two):
    assert [o.step.name for o in one.outcomes] == [
        o.step.name for o in two.outcomes
    ]
    for a, b in zip(one.outcomes, two.outcomes):
        np.testing.assert_array_equal(a.tried, b.tried)
        np.testing.assert_array_equal(a.broken, b.broken)
        np.testing.assert_array_equal(a.x_adv, b.x_adv)
    assert one.checks == two.checks
    assert one.curve == two.curve and one.trace == two.trace


class TestWorstCase:
    def test_is_per_image_over_all_attacks(self, trained, images):
        x, y = images
        model = trained["hard"]
        found = evaluate(model, x, y)
        wrong = np.asarray(model(x)).argmax(-1) != y
        np.testing.assert_array_equal(found.correct, ~wrong)
        broken = wrong.copy()
        for step, outcome in zip(STEPS, found.outcomes):
            # Only what is left is tried.
            np.testing.assert_array_equal(
                outcome.tried, np.flatnonzero(~broken)
            )
            result = step.run(model, x[outcome.tried], y[outcome.tried])
            delta = tf.constant(result.x_adv - x[outcome.tried])
            inside = norms.size(delta, np.inf).numpy() <= EPS * (1 + 1e-6)
            np.testing.assert_array_equal(
                outcome.broken, outcome.tried[result.success & inside]
            )
            broken[outcome.broken] = True
        np.testing.assert_array_equal(found.robust, ~broken)
        assert found.accuracy_after()[-1] == found.robust_accuracy
        assert 0 < found.robust_accuracy < found.clean_accuracy
        # Each broken image with what broke it.
        x_adv = found.x_adv
        again = np.asarray(model(x_adv)).argmax(-1) != y
        np.testing.assert_array_equal(again, broken)
        assert np.abs(x_adv - x).max() <= EPS * (1 + 1e-6)

    def test_distances_count_in_the_norm_of_the_evaluation(
        self, trained, images
    ):
        plan = [attacks.DeepFool()]
        near, far = (
            evaluate(trained["none"], *images, norm=2, eps=eps, plan=plan)
            for eps in (0.7, 4.0)
        )
        assert far.robust_accuracy < near.robust_accuracy
        assert near.robust_accuracy < near.clean_accuracy
        size = np.sqrt(((near.x_adv - near.x) ** 2).sum((1, 2, 3)))
        assert 0.1 < size.max() <= 0.7 * (1 + 1e-6)

    def test_the_ball_is_that_of_certificates(self, monkeypatch):
        """To the last bit: what lies beyond it breaks nothing."""
        model = linear_model([1.0], -0.7)
        x, y = np.full((4, 1), 0.5, "float32"), np.zeros(4, int)
        _, top = norms.ball(x, 0.3)
        ends = {
            1: top.numpy(),
            0: np.nextafter(top.numpy(), np.float32(2)),
        }
        for broken, x_adv in ends.items():
            result = AttackResult(x_adv, y + 1, y == 0, y == 1)
            monkeypatch.setattr(
                "keras_qsn.evaluation.run.run_attack",
                lambda *args, result=result, **_: result,
            )
            found = evaluate(model, x, y, plan=STEPS[:1], checks=None)
            assert found.robust_accuracy == 1 - broken

    def test_datasets_and_one_hot_labels(self, trained, images):
        x, y = images
        data = tf.data.Dataset.from_tensor_slices((x, np.eye(10)[y])).batch(9)
        same(
            evaluate(trained["hard"], data, None),
            evaluate(trained["hard"], x, y),
        )

    def test_at_most_so_many_images(self, trained, images):
        step = ev.Step("few", "white-box", STEPS[0], max_images=5)
        found = evaluate(trained["none"], *images, plan=[step])
        assert len(found.outcomes[0].tried) == 5

    def test_intervals_are_wilsons(self):
        low, high = ev.wilson_interval(0.9, 1000)
        assert (low, high) == pytest.approx((0.87989, 0.91709), abs=1e-4)
        assert (
            ev.wilson_interval(1.0, 50)[0] < 0.95
            and ev.wilson_interval(1.0, 50)[1] == 1
        )


class TestResuming:
    def test_an_interrupted_run_goes_on(self, trained, images, tmp_path):
        model = trained["hard"]
        whole = evaluate(model, *images)

        def interrupt(name, done, total):
            if name == type(STEPS[1]).__name__:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evaluate(model, *images, folder=tmp_path, progress=interrupt)
        assert (tmp_path / "attack-0.npz").exists()
        ran = []
        rest = evaluate(
            model,
            *images,
            folder=tmp_path,
            progress=lambda name, done, total: ran.append(name),
        )
        same(rest, whole)
        first, second, _ = (type(attack).__name__ for attack in STEPS)
        assert first not in ran and second in ran
        ran.clear()
        same(
            evaluate(
                model,
                *images,
                folder=tmp_path,
                progress=lambda name, done, total: ran.append(name),
            ),
            whole,
        )
        assert ran == []

    def test_a_killed_run_goes_on(self, trained, images, tmp_path):
        """SIGKILL in the middle of the second attack, in a process."""
        model = trained["hard"]
        trained["hard"].save(tmp_path / "model.keras")
        np.savez(tmp_path / "data.npz", x=images[0], y=images[1])
        script = (
            "import os, signal, sys\n"
            "import keras, numpy as np\n"
            "from keras_qsn import attacks, evaluation\n"
            "folder = sys.argv[1]\n"
            "data = np.load(folder + '/data.npz')\n"
            "def progress(name, done, total):\n"
            "    if name.startswith('Cube'):\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "evaluation.evaluate_robustness(\n"
            "    keras.models.load_model(folder + '/model.keras'),\n"
            "    data['x'], data['y'], eps=0.3,\n"
            "    plan=[attacks.FastGradientMethod(0.3),\n"
            "          attacks.CubeAttack(0.3, nb_iter=5, nb_restarts=1)],\n"
            "    folder=folder + '/kept', progress=progress)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        kept = tmp_path / "kept"
        found = sorted(os.listdir(kept))
        assert found == [".lock", "attack-0.npz", "settings.json"]
        plan = STEPS[:2]
        again = keras.models.load_model(tmp_path / "model.keras")
        same(
            evaluate(again, *images, plan=plan, folder=kept),
            evaluate(model, *images, plan=plan),
        )

    def test_another_evaluation_is_refused(self, trained, images, tmp_path):
        x, y = images
        evaluate(trained["hard"], x, y, folder=tmp_path / "a")
        with pytest.raises(ValueError, match="other work.*eps"):
            evaluate(trained["hard"], x, y, folder=tmp_path / "a", eps=0.4)
        with pytest.raises(ValueError, match="other work.*data, images"):
            evaluate(trained["hard"], x[1:], y[1:], folder=tmp_path / "a")
        with pytest.raises(ValueError, match="other work.*fingerprint"):
            evaluate(trained["soft"], x, y, folder=tmp_path / "a")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "thesis.tex").write_text("important")
        with pytest.raises(ValueError, match="holds other files"):
            evaluate(trained["hard"], x, y, folder=tmp_path / "b")

    def test_damaged_files_are_named(self, trained, images, tmp_path):
        evaluate(trained["hard"], *images, folder=tmp_path)
        (tmp_path / "attack-1.npz").write_bytes(b"PK")
        with pytest.raises(ValueError, match="attack-1.npz is damaged.*Delete"):
            evaluate(trained["hard"], *images, folder=tmp_path)
        (tmp_path / "settings.json").write_text("{")
        with pytest.raises(ValueError, match="settings.json was .*or is dam"):
            evaluate(trained["hard"], *images, folder=tmp_path)


class TestSources:
    @pytest.mark.parametrize("nested", [False, True])
    def test_sources_are_trained_once(
        self, trained, images, tmp_path, digits, nested
    ):
        model = trained["hard"]
        if nested:
            model = keras.Sequential([keras.Input((28, 28, 1)), model])
        train = digits.x_train[:300], digits.y_train[:300]
        kwargs = {
            "plan": "quick",
            "train_data": train,
            "folder": tmp_path,
        }
        trainings = []

        def progress(name, done, total):
            if name.startswith("training"):
                trainings.append((name, done, total))
            elif name == "PGD from twin":
                raise KeyboardInterrupt

        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                evaluate(model, *images, progress=progress, **kwargs)
        assert trainings == [("training twin", n, 3) for n in (1, 2, 3)]
        assert (tmp_path / "twin.npz").exists()


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"plan": "best"}, ValueError, "`plan` must be one of quick, sta"),
            ({"plan": []}, ValueError, "at least one step"),
            ({"plan": ["FGSM"]}, TypeError, "must hold attacks or `Step`s"),
            (
                {"plan": [STEPS[0], STEPS[0]]},
                ValueError,
                "each of another name",
            ),
            (
                {"plan": [attacks.FastGradientMethod(9, clip_max=255)]},
                ValueError,
                "must have the range of the images",
            ),
            (
                {"plan": [attacks.ProjectedGradientDescent(0.9)]},
                ValueError,
                "larger radius than the evaluation",
            ),
            ({"plan": STEPS[0]}, TypeError, "a name or a list"),
            ({"eps": 0}, ValueError, "`eps` must be a finite number above 0"),
            ({"eps": "0.3"}, TypeError, "`eps` must be a number"),
            ({"batch_size": []}, TypeError, "`batch_size` must be a number"),
            ({"seed": 1.5}, ValueError, "`seed` must be a whole number"),
            ({"sources": [1]}, TypeError, "`sources` must be a dictionary"),
            ({"eps": np.nan}, ValueError, "`eps` must be a finite number"),
            ({"norm": 3}, ValueError, "`norm` must be one of np.inf, 2"),
            ({"y": None}, ValueError, "`y` must hold the true classes"),
        ],
    )
    def test_arguments(self, change, error, message, trained, images):
        x, y = images
        kwargs = {"y": y, **change}
        with pytest.raises(error, match=message):
            evaluate(trained["none"], x, **kwargs)

    def test_threats(self):
        with pytest.raises(ValueError, match="`threat` must be one of white"):
            ev.Step("a", "magic", STEPS[0])


class TestCallback:
    def test_history_has_the_accuracy(self, digits):
        x, y = digits.x_train[:200], digits.y_train[:200]
        attack = attacks.ProjectedGradientDescent(0.1, nb_iter=2)
        for wrap in (lambda model: model, QuSecNet):
            model = small_cnn()
            net = wrap(model)
            net.compile(
                "adam", keras.losses.SparseCategoricalCrossentropy(True)
            )
            pgd = AttackAccuracy(attack, x, y, "pgd", every=2)
            history = net.fit(x, y, epochs=3, verbose=0, callbacks=[pgd])
            found = history.history["pgd"]
            assert len(found) == 3 and found[0] == found[1]
            last = 1 - attack.run(model, x, y).success.mean()
            assert found[2] == pytest.approx(last)

    def test_bad_input(self, images):
        with pytest.raises(TypeError, match="`attack` must be an attack"):
            AttackAccuracy("PGD", *images)
        with pytest.raises(ValueError, match="`y` must hold"):
            AttackAccuracy(STEPS[0], images[0])
        with pytest.raises(ValueError, match="`every` must be a whole"):
            AttackAccuracy(STEPS[0], *images, every=0)


class TestCommand:
    @pytest.fixture
    def files(self, trained, images, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        trained["hard"].save("model.keras")
        np.savez("data.npz", x_test=images[0], y_test=images[1])
        monkeypatch.setattr(
            plans, "named", lambda *args: plans.given(STEPS[:2], args[1])
        )
        return ["evaluate", "model.keras", "--data", "data.npz"]

    def test_table_report_and_exit_status(self, files, capsys, tmp_path):
        assert cli.main(files) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "Robust accuracy" in text and "all 40 test images" in text
        folder = tmp_path / "results" / "evaluate-model"
        page = (folder / "report.html").read_text()
        assert "CubeAttack" in page
        data = json.loads((folder / "robustness.json").read_text())
        left = data["robust_accuracy"]["share"]
        assert cli.main([*files, "--at-least", str(left)]) == 0
        assert cli.main([*files, "--at-least", str(left + 0.01)]) == 1

    def test_failed_checks(self, files, monkeypatch):
        bad = {"wrong": ALWAYS_WRONG}
        monkeypatch.setattr(registry, "ENTRIES", bad)
        assert cli.main([*files, "--out", "a"]) == 0
        assert cli.main([*files, "--out", "a", "--strict"]) == 3

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (["evaluate", "no.keras", "--data", "data.npz"], "no model file"),
            (["evaluate", "model.keras", "--data", "no.npz"], "no no.npz"),
            (["evaluate", "model.keras", "--data", "svhn"], "`name` must be"),
        ],
    )
    def test_wrong_input(self, change, message, files, capsys):
        assert cli.main(change) == 2
        assert message in capsys.readouterr().err

    def test_interrupt(self, files, monkeypatch):
        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(command, "evaluate_robustness", interrupted)
        assert cli.main(files) == 130


def test_strict_evaluations_raise(trained, images, monkeypatch):
    monkeypatch.setattr(registry, "ENTRIES", {"wrong": ALWAYS_WRONG})
    with pytest.raises(ev.UntrustedEvaluation, match="1. always wrong: 0.5"):
        evaluate(trained["hard"], *images, strict=True)
