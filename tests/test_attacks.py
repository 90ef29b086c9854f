"""The contract of the attacks: ball, range, closed forms, peers, errors."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from cleverhans.tf2.attacks.basic_iterative_method import basic_iterative_method
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.attacks.momentum_iterative_method import (
    momentum_iterative_method,
)
from cleverhans.tf2.attacks.projected_gradient_descent import (
    projected_gradient_descent,
)

from conftest import linear_model
from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn.attacks import norms
from keras_qsn.models import KerasModelWrapper

ULP = 1e-6
EPS = {np.inf: 0.2, 2: 2.0, 1: 10.0, 0: 10}
CASES = [
    pytest.param(attack, norm, id=f"{attack.__name__}-{norm}")
    for attack in (
        attacks.FastGradientMethod,
        attacks.BasicIterativeMethod,
        attacks.MomentumIterativeMethod,
        attacks.ProjectedGradientDescent,
    )
    for norm in attack.norms
]
MODELS = ["none", "soft", "hard"]


def make(attack, norm, eps=None, **kwargs):
    if issubclass(attack, attacks.ProjectedGradientDescent):
        kwargs.setdefault("nb_iter", 8)
    return attack(EPS[norm] if eps is None else eps, norm=norm, **kwargs)


def sizes(delta, norm):
    flat = np.abs(delta.reshape(len(delta), -1).astype("float64"))
    if norm == np.inf:
        return flat.max(1)
    if norm == 0:
        return (flat > 0).sum(1)
    return flat.sum(1) if norm == 1 else np.sqrt((flat**2).sum(1))


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


@pytest.mark.parametrize(("attack", "norm"), CASES)
@pytest.mark.parametrize("name", MODELS)
def test_stays_in_the_ball_and_lowers_accuracy(
    attack, norm, name, trained, images
):
    model, (x, y) = trained[name], images
    result = make(attack, norm).run(model, x, y)
    assert result.x_adv.dtype == np.float32 and result.x_adv.shape == x.shape
    assert sizes(result.x_adv - x, norm).max() <= EPS[norm] * (1 + ULP)
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    # What is reported is what the model says of the images returned.
    np.testing.assert_array_equal(
        result.prediction, predicted(model, result.x_adv)
    )
    np.testing.assert_array_equal(result.success, result.prediction != y)
    clean, left = (predicted(model, x) == y).mean(), 1 - result.success.mean()
    # A few steps in L2, or one pixel in L1, need not fool a binarized input.
    assert left < clean or (norm != np.inf and left == clean)


@pytest.mark.parametrize(("attack", "norm"), CASES)
def test_eps_zero_is_the_identity(attack, norm, trained, images):
    x, y = images
    x_adv = make(attack, norm, eps=0.0).generate(trained["none"], x, y)
    np.testing.assert_array_equal(x_adv, x)


@pytest.mark.parametrize(("attack", "norm"), CASES)
def test_targeted_raises_the_rate_of_the_target(attack, norm, trained, images):
    x, y = images
    model = trained["none"]
    target = (y + 1) % 10
    before = (predicted(model, x) == target).mean()
    result = make(attack, norm).run(model, x, y, y_target=target)
    np.testing.assert_array_equal(result.success, result.prediction == target)
    after = result.success.mean()
    assert after > before or (norm == 1 and after == before)


def test_same_seed_same_examples_whatever_the_batch_size(trained, images):
    x, y = images
    attack = make(attacks.ProjectedGradientDescent, np.inf, seed=3)
    model = trained["none"]
    whole = attack.generate(model, x, y)
    np.testing.assert_array_equal(whole, attack.generate(model, x, y))
    parts = attack.generate(model, x, y, batch_size=7)
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    other = make(attacks.ProjectedGradientDescent, np.inf, seed=4)
    assert (other.generate(model, x, y) != whole).mean() > 0.1


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_is_cleverhans(norm, targeted, images):
    x, y = images
    model = small_cnn()
    labels = (y + 1) % 10 if targeted else y
    attack = attacks.FastGradientMethod(EPS[norm], norm)
    kwargs = {"y_target": labels} if targeted else {"y": labels}
    theirs = fast_gradient_method(
        KerasModelWrapper(model),
        x,
        EPS[norm],
        norm,
        clip_min=0.0,
        clip_max=1.0,
        y=labels,
        targeted=targeted,
    )
    ours = attack.generate(model, x, **kwargs)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_fgsm_without_labels_attacks_the_prediction(images):
    x, _ = images
    model = small_cnn()
    theirs = fast_gradient_method(
        KerasModelWrapper(model), x, 0.2, np.inf, clip_min=0.0, clip_max=1.0
    )
    ours = attacks.FastGradientMethod(0.2).generate(model, x)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_bim_is_cleverhans(norm, images):
    x, y = images
    model = small_cnn()
    theirs = basic_iterative_method(
        KerasModelWrapper(model),
        tf.constant(x),
        EPS[norm],
        EPS[norm] / 4,
        6,
        norm,
        clip_min=0.0,
        clip_max=1.0,
        y=tf.constant(y),
        sanity_checks=False,
    )
    attack = attacks.BasicIterativeMethod(
        EPS[norm], eps_iter=EPS[norm] / 4, nb_iter=6, norm=norm
    )
    ours = attack.generate(model, x, y)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_mim_is_cleverhans(norm, images):
    x, y = images
    # Away from 0 and 1: Cleverhans' MIM projects before it clips, its PGD
    # and ours the other way round.
    x = 0.4 + 0.2 * x
    model = small_cnn()
    theirs = momentum_iterative_method(
        KerasModelWrapper(model),
        tf.constant(x),
        EPS[norm],
        EPS[norm] / 4,
        3,
        norm,
        clip_min=0.0,
        clip_max=1.0,
        y=tf.constant(y),
        decay_factor=0.8,
        sanity_checks=False,
    )
    attack = attacks.MomentumIterativeMethod(
        EPS[norm], EPS[norm] / 4, 3, norm, decay_factor=0.8
    )
    ours = attack.generate(model, x, y)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_restarts_keep_what_an_earlier_one_found(trained, images):
    x, y = images
    model = trained["hard"]
    found = [
        attacks.ProjectedGradientDescent(
            0.3, nb_iter=5, nb_restarts=count, seed=1
        ).run(model, x, y)
        for count in (1, 4)
    ]
    once, often = (result.success for result in found)
    assert (often >= once).all() and often.sum() > once.sum()
    # An image fooled by the first start keeps that example.
    np.testing.assert_array_equal(found[0].x_adv[once], found[1].x_adv[once])


def test_early_stop_finds_as_many_in_fewer_steps(images, trained):
    steps = []

    class Counting(attacks.ProjectedGradientDescent):
        def _project(self, x, x_adv, eps):
            tf.py_function(lambda: steps.append(1), [], [])
            return super()._project(x, x_adv, eps)

    x, y = images
    model = trained["none"]
    results = {}
    for early_stop in (False, True):
        steps.clear()
        attack = Counting(0.3, nb_iter=40, early_stop=early_stop)
        results[early_stop] = attack.run(model, x, y).success, len(steps)
    assert (results[True][0] >= results[False][0]).all()
    assert results[False][0].all(), "all images must fall for this test"
    assert results[True][1] < results[False][1] / 2


def test_pgd_is_cleverhans_from_the_same_start(images, monkeypatch):
    x, y = images
    model = small_cnn()
    seeds = np.stack([np.full(len(x), 5), np.arange(len(x))], 1)
    start = 0.2 * norms.sample(x.shape[1:], tf.constant(seeds), np.inf)
    monkeypatch.setattr(
        "cleverhans.tf2.attacks.projected_gradient_descent.random_lp_vector",
        lambda *args, **kwargs: start,
    )
    theirs = projected_gradient_descent(
        KerasModelWrapper(model),
        tf.constant(x),
        0.2,
        0.05,
        6,
        np.inf,
        clip_min=0.0,
        clip_max=1.0,
        y=tf.constant(y),
        rand_init=True,
    )
    attack = attacks.ProjectedGradientDescent(
        0.2, eps_iter=0.05, nb_iter=6, seed=5
    )
    ours = attack.generate(model, x, y)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


class TestLinearModel:
    """score_1 - score_0 = w.x + b: every best step is known."""

    w = np.array([3.0, -1.0, 0.5, -2.0], "float32")
    x = np.full((1, 4), 0.5, "float32")

    def attacked(self, norm, eps, attack=attacks.FastGradientMethod):
        model = linear_model(self.w, bias=-float(self.w @ self.x[0]) + 0.1)
        return make(attack, norm, eps).generate(model, self.x, [1])[0]

    def test_linf_moves_each_pixel_against_its_weight(self):
        wanted = self.x[0] - 0.1 * np.sign(self.w)
        for attack in (
            attacks.FastGradientMethod,
            attacks.ProjectedGradientDescent,
        ):
            found = self.attacked(np.inf, 0.1, attack)
            np.testing.assert_allclose(found, wanted, atol=1e-6)

    def test_l2_moves_along_the_weights(self):
        wanted = self.x[0] - 0.1 * self.w / np.linalg.norm(self.w)
        for attack in (
            attacks.FastGradientMethod,
            attacks.BasicIterativeMethod,
        ):
            found = self.attacked(2, 0.1, attack)
            np.testing.assert_allclose(found, wanted, atol=1e-6)

    def test_l1_moves_the_steepest_pixel(self):
        np.testing.assert_allclose(
            self.attacked(1, 0.1), self.x[0] - [0.1, 0, 0, 0], atol=1e-6
        )


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_projection_finds_the_nearest_point(norm):
    """No point of the ball found by random search is nearer."""
    rng = np.random.default_rng(0)
    delta = rng.normal(size=(5, 6)).astype("float32")
    projected = norms.project(tf.constant(delta), 1.0, norm).numpy()
    assert sizes(projected, norm).max() <= 1 + ULP
    distance = np.linalg.norm(projected - delta, axis=1)
    others = rng.normal(size=(20000, 1, 6)) * rng.random((20000, 1, 1))
    others /= np.maximum(sizes(others, norm), 1)[:, None, None]
    nearest = np.linalg.norm(others - delta, axis=2).min(0)
    assert (distance <= nearest + ULP).all()
    inside = 0.01 * delta
    np.testing.assert_allclose(
        norms.project(tf.constant(inside), 1.0, norm), inside, atol=1e-7
    )


def test_a_tiny_gradient_still_makes_a_full_step():
    gradient = tf.constant([[3e-30, -4e-30], [0.0, 0.0]])
    np.testing.assert_allclose(
        norms.steepest(gradient, 2), [[0.6, -0.8], [0, 0]], rtol=1e-6
    )


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_random_starts_fill_the_ball(norm):
    seeds = np.stack([np.zeros(2000), np.arange(2000)], 1).astype("int32")
    points = norms.sample((3,), tf.constant(seeds), norm).numpy()
    radius = sizes(points, norm)
    assert radius.max() <= 1
    # Uniform in a ball of 3 dimensions: P(radius < r) = r^3.
    for r in (0.5, 0.8):
        assert abs((radius < r).mean() - r**3) < 0.04
    assert np.abs(points.mean(0)).max() < 0.06


def test_pixel_range_of_0_to_255(trained, images):
    x, y = images
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)]
    )
    model.add(trained["none"])
    attack = attacks.FastGradientMethod(0.2 * 255, clip_max=255)
    unit = attacks.FastGradientMethod(0.2).generate(trained["none"], x, y)
    scaled = attack.generate(model, 255 * x, y)
    np.testing.assert_allclose(scaled / 255, unit, atol=1e-4)


def test_one_compiled_function_per_kind_model_and_shape(trained, images):
    calls = []

    class Counting(attacks.FastGradientMethod):
        def _perturb(self, *args):
            calls.append(args)
            return super()._perturb(*args)

    x, y = images
    for eps, count in ((0.1, 50), (0.2, 33), (0.3, 7)):
        Counting(eps).generate(trained["none"], x[:count], y[:count])
        Counting(eps, seed=1).generate(trained["none"], x, y, batch_size=16)
    assert len(calls) == 1
    Counting(0.1).generate(trained["hard"], x, y)
    assert len(calls) == 2


@pytest.mark.parametrize("wrapped", [False, True])
def test_counts_share_one_compiled_function(wrapped, trained, images):
    calls = []

    class Counting(attacks.ProjectedGradientDescent):
        def _descend(self, *args):
            calls.append(args)
            return super()._descend(*args)

    x, y = images
    for nb_iter, nb_restarts in ((2, 1), (5, 1), (3, 4)):
        kwargs = {"nb_iter": nb_iter, "nb_restarts": nb_restarts}
        attack = Counting(0.1, **kwargs)
        plain = attacks.ProjectedGradientDescent(0.1, **kwargs)
        if wrapped:
            attack, plain = (attacks.BPDA(a) for a in (attack, plain))
        model = trained["soft"]
        np.testing.assert_array_equal(
            attack.generate(model, x, y), plain.generate(model, x, y)
        )
    assert len(calls) == 1


def test_another_search_need_not_take_tensors_for_counts(trained, images):
    class Unrolled(attacks.ProjectedGradientDescent):
        def _perturb(self, logits_fn, x, *args):
            for _ in range(self.nb_iter):
                x = x + 0.1
            return x

    x, y = images
    steps = [
        Unrolled(0.3, nb_iter=n).generate(trained["none"], x, y) for n in (1, 2)
    ]
    assert (steps[1] > steps[0]).any()


def test_the_network_is_traced_once_for_all_attacks(images, monkeypatch):
    calls = []
    get_logits = KerasModelWrapper.get_logits

    def counting(self, x):
        calls.append(x)
        return get_logits(self, x)

    monkeypatch.setattr(KerasModelWrapper, "get_logits", counting)
    model, (x, y) = small_cnn(), images
    attacks.FastGradientMethod(0.1).run(model, x, y)
    # For the attack, and for the verdict.
    assert len(calls) == 2
    attacks.ProjectedGradientDescent(0.1, nb_iter=2).run(model, x)
    attacks.SquareAttack(0.1, nb_queries=2).run(model, x, y)
    assert len(calls) == 2


def test_what_the_attacker_knows():
    class Mine(attacks.Attack):
        pass

    class Following(attacks.Attack):
        follows = "margin"

    pgd = attacks.ProjectedGradientDescent()
    for attack, threat in (
        (pgd, "white-box"),
        (attacks.AutoAttack(), "white-box"),
        (attacks.CarliniWagnerL2(), "white-box"),
        (attacks.SquareAttack(), "queries"),
        (attacks.HopSkipJumpAttack(), "queries"),
        (attacks.BPDA(pgd), "adaptive"),
        (attacks.AnnealedBPDA(), "adaptive"),
        (attacks.CubeAttack(), "adaptive"),
        (attacks.LevelFlipAttack(), "adaptive"),
        (attacks.TransferAttack(pgd, small_cnn()), "transfer"),
        (Mine(), "queries"),
        (Following(), "white-box"),
    ):
        assert attack.threat == threat


def test_an_attacked_model_can_be_freed(images):
    model = small_cnn()
    attacks.FastGradientMethod().generate(model, *images)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_eps_is_followed_by_a_shared_function(trained, images):
    x, y = images
    for eps in (0.05, 0.1):
        x_adv = attacks.FastGradientMethod(eps).generate(trained["none"], x, y)
        assert np.abs(x_adv - x).max() == pytest.approx(eps, abs=1e-6)


def test_callback_and_one_hot_labels(trained, images):
    x, y = images
    seen = []

    def progress(*told):
        seen.append(told)

    attack = attacks.FastGradientMethod()
    x_adv = attack.generate(
        trained["none"],
        x,
        np.eye(10)[y],
        batch_size=20,
        progress=progress,
    )
    assert seen == [("FastGradientMethod", n, 50) for n in (20, 40, 50)]
    np.testing.assert_allclose(
        x_adv, attack.generate(trained["none"], x, y), atol=1e-6
    )


def test_config_rebuilds_the_attack():
    attack = attacks.ProjectedGradientDescent(
        2.0, 0.5, 7, norm=2, rand_init=False, seed=9
    )
    again = type(attack).from_config(attack.get_config())
    assert repr(again) == repr(attack)
    assert "nb_iter=7" in repr(attack)
    for attack in (
        attacks.BasicIterativeMethod(0.2, early_stop=True),
        attacks.MomentumIterativeMethod(0.2, decay_factor=0.5),
        attacks.FastGradientMethod(0.2, 1),
    ):
        again = type(attack).from_config(attack.get_config())
        assert repr(again) == repr(attack)


def test_decay_factor():
    with pytest.raises(ValueError, match="`decay_factor` must be a finite"):
        attacks.MomentumIterativeMethod(decay_factor=0)


class TestContract:
    def test_final_methods(self):
        with pytest.raises(TypeError, match="may not override `craft`"):
            type("Cheat", (attacks.Attack,), {"craft": lambda self: None})

    def test_a_subclass_cannot_leave_the_ball(self, trained, images):
        class Wild(attacks.Attack):
            def _perturb(self, logits_fn, x, *args):
                return x + 100.0

        x, y = images
        x_adv = Wild(0.1).generate(trained["none"], x, y)
        assert np.abs(x_adv - x).max() <= 0.1 * (1 + ULP) and x_adv.max() <= 1

    def test_a_failed_attack_is_reported_as_failed(self, trained, images):
        class Idle(attacks.Attack):
            def _perturb(self, logits_fn, x, *args):
                return x

        x, y = images
        y = predicted(trained["none"], x)
        assert not Idle().run(trained["none"], x, y).success.any()

    def test_base_class_does_nothing(self, trained, images):
        with pytest.raises(TypeError, match="does not implement `_perturb`"):
            attacks.Attack().generate(trained["none"], *images)


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"eps": None}, "`eps` must be a number: ProjectedGradientDesc"),
            ({"eps": -0.1}, "`eps` must be a finite number >= 0"),
            ({"eps": np.nan}, "`eps` must be a finite number >= 0"),
            ({"eps": 8}, r"at most 1 for pixels in \[0.0, 1.0\].*clip_max=255"),
            ({"norm": 3}, "`norm` must be one of np.inf, 2. Received: norm=3"),
            ({"clip_min": 1.0}, "`clip_min` must be below `clip_max`"),
            ({"nb_iter": 0}, "`nb_iter` must be a whole number"),
            ({"nb_iter": 2.5}, "`nb_iter` must be a whole number"),
            ({"nb_restarts": 0}, "`nb_restarts` must be a whole number"),
            ({"nb_restarts": 2, "rand_init": False}, "needs `rand_init=True`"),
            ({"eps_iter": 0}, "`eps_iter` must be a finite number above 0"),
        ],
    )
    def test_parameters(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            attacks.ProjectedGradientDescent(**arguments)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda x: 255 * x, ValueError, r"must lie in \[0.0, 1.0\].*255"),
            (lambda x: x - 0.5, ValueError, "pixels from -0.5 to 0.4"),
            (lambda x: x * np.nan, ValueError, "784 NaN or infinite"),
            (lambda x: x / 0, ValueError, "NaN or infinite"),
            (lambda x: (255 * x).astype("uint8"), TypeError, "dtype=uint8"),
            (lambda x: x[:0], ValueError, "at least one image"),
            (lambda x: x[:, :20], ValueError, r"expects images of shape \(28"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:(divide|invalid)")
    def test_images(self, change, error, message, trained, digits):
        x = change(digits.x_test[:1])
        with pytest.raises(error, match=message):
            attacks.FastGradientMethod().generate(trained["none"], x, [0])

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            ([1], "one label for each of the 2 images. Received: 1"),
            ([1, 10], "whole numbers from 0 to 9. Received: values from 1 to"),
            ([-1, 1], "whole numbers from 0 to 9"),
            ([0.5, 1], "whole numbers from 0 to 9"),
            (np.zeros((2, 4)), r"one-hot rows of shape \(images, 10\)"),
        ],
    )
    def test_labels(self, y, message, trained, digits):
        attack = attacks.FastGradientMethod()
        with pytest.raises(ValueError, match=message):
            attack.generate(trained["none"], digits.x_test[:2], y)
        with pytest.raises(ValueError, match=message):
            attack.generate(trained["none"], digits.x_test[:2], y_target=y)

    def test_target_equal_to_the_label(self, trained, digits):
        with pytest.raises(ValueError, match="`y_target` must differ"):
            attacks.FastGradientMethod().generate(
                trained["none"], digits.x_test[:2], [1, 2], y_target=[3, 2]
            )

    def test_no_model(self, digits):
        with pytest.raises(TypeError, match="`model` must be a Keras model"):
            attacks.FastGradientMethod().generate("model", digits.x_test[:2])
