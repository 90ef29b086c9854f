"""APGD: ball, schedule, losses, peers, closed form, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import linear_model
from conftest import small_cnn
from keras_qsn.attacks import losses
from keras_qsn.attacks.white_box import auto_pgd
from keras_qsn.attacks.white_box import hyperplane
from keras_qsn.attacks.white_box.auto_pgd import AutoProjectedGradientDescent
from keras_qsn.attacks.white_box.fast_minimum_norm import FastMinimumNorm
from keras_qsn.attacks.white_box.gradient import ProjectedGradientDescent

EPS = {np.inf: 0.1, 2: 1.0, 1: 8.0}
KINDS = pytest.mark.parametrize(
    ("norm", "loss"),
    [(n, loss) for n in EPS for loss in ("ce", "dlr")]
    + [(np.inf, "targeted-dlr")],
)


def make(norm=np.inf, loss="ce", eps=None, nb_iter=20, **kwargs):
    eps = EPS[norm] if eps is None else eps
    return AutoProjectedGradientDescent(eps, norm, loss, nb_iter, **kwargs)


def sizes(delta, norm):
    flat = delta.reshape(len(delta), -1).astype("float64")
    return np.linalg.norm(flat, norm, axis=1)


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


@KINDS
def test_stays_in_the_ball_and_eps_zero_is_the_identity(
    norm, loss, trained, images
):
    x, y = images
    for name in ("none", "hard"):
        result = make(norm, loss).run(trained[name], x, y)
        assert sizes(result.x_adv - x, norm).max() <= EPS[norm] * (1 + 1e-6)
        assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
        clean = (predicted(trained[name], x) != y).mean()
        assert result.success.mean() > clean
    still = make(norm, loss, eps=0.0).generate(trained["none"], x, y)
    np.testing.assert_array_equal(still, x)


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_fools_as_many_as_pgd_in_the_same_steps(norm, trained, digits):
    x, y = digits.x_test[::5], digits.y_test[::5]
    pgd = ProjectedGradientDescent(EPS[norm], nb_iter=40, norm=norm)
    theirs = pgd.run(trained["none"], x, y).success.mean()
    ours = make(norm, nb_iter=40).run(trained["none"], x, y).success.mean()
    assert ours >= theirs > 0.4


def test_more_starts_fool_no_fewer(trained, digits):
    x, y = digits.x_test[::5], digits.y_test[::5]
    one, three = (
        make(loss="dlr", nb_restarts=n).run(trained["none"], x, y).success
        for n in (1, 3)
    )
    # What the first start fools, later ones leave alone.
    assert not (one & ~three).any() and three.sum() > one.sum()


def test_more_targets_fool_no_fewer(trained, digits):
    x, y = digits.x_test[::5], digits.y_test[::5]
    model = trained["none"]
    one, three = (
        make(loss="targeted-dlr", nb_targets=n).run(model, x, y).success
        for n in (1, 3)
    )
    # What the first target fools, later ones leave alone.
    assert not (one & ~three).any() and three.sum() > one.sum()
    wrong = predicted(model, x) != y
    assert wrong.any() and one[wrong].all()


def test_a_target_is_pursued_where_the_strongest_class_leads_nowhere():
    """Class 1 is next to the label and stays there; class 2 can win."""
    x = tf.zeros((20, 1))

    def logits_fn(x):
        z = x[:, 0]
        return tf.stack([0 * z + 1, 0 * z + 0.9, 0.5 + 5.2 * z, 0 * z - 1], 1)

    def fooled(**kwargs):
        x_adv = make(eps=0.1, clip_min=-1.0, **kwargs).craft(
            logits_fn,
            x,
            tf.zeros(20, tf.int32),
            tf.constant(0.1),
            tf.constant([[0, i] for i in range(20)]),
        )
        return (predicted(logits_fn, x_adv) == 2).mean()

    assert fooled(loss="dlr") < 0.5
    assert fooled(loss="targeted-dlr", nb_targets=1) < 0.5
    assert fooled(loss="targeted-dlr", nb_targets=2) == 1.0


@KINDS
def test_targeted_raises_the_rate_of_the_target(norm, loss, trained, images):
    x, y = images
    target = (y + 1) % 10
    model = trained["none"]
    result = make(norm, loss).run(model, x, y, y_target=target)
    np.testing.assert_array_equal(result.success, result.prediction == target)
    before = (predicted(model, x) == target).mean()
    assert result.success.mean() > before


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_reaches_the_best_point_of_a_linear_model(norm):
    w = np.array([3.0, -1.0, 0.5, -2.0], "float32")
    x = np.full((1, 4), 0.5, "float32")
    model = linear_model(w, bias=-float(w @ x[0]) + 2.0)
    found = make(norm, eps=0.1, nb_iter=60).generate(model, x, [1])[0]
    wanted = np.sign(w) if norm == np.inf else w / np.linalg.norm(w)
    np.testing.assert_allclose(found, x[0] - 0.1 * wanted, atol=2e-3)
    assert w @ (found - x[0]) == pytest.approx(-0.1 * w @ wanted, rel=1e-4)


def scaled(model, scale):
    x = keras.Input((28, 28, 1))
    return keras.Model(x, keras.layers.Rescaling(scale)(model(x)))


def test_dlr_does_not_depend_on_the_scale_of_the_logits(trained, images):
    x, y = images
    right = predicted(trained["none"], x) == y
    x, y = x[right], y[right]
    steep = scaled(trained["none"], 1e4)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    gradient, _ = losses.gain_gradient(
        steep, tf.constant(x), tf.constant(y), losses.gain_of(entropy), False
    )
    silent = np.abs(gradient.numpy()).max((1, 2, 3)) == 0
    assert silent.mean() > 0.8
    # As a user's own loss: what is called by that name here is not silent.
    pgd = ProjectedGradientDescent(
        0.1, nb_iter=20, rand_init=False, loss=entropy
    )
    assert not pgd.run(steep, x, y).success[silent].any()
    plain = make(loss="dlr").run(trained["none"], x, y).success
    found = make(loss="dlr").run(steep, x, y).success
    assert found[silent].mean() > 0.5
    assert (found == plain).mean() > 0.9


def test_the_unit_of_the_pixels_does_not_matter_in_l2(trained, images):
    """However small it makes the gradient."""
    x, y = images
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Rescaling(1e-8)]
    )
    model.add(trained["none"])
    plain = make(2).run(trained["none"], x, y).success
    found = make(2, eps=1e8, clip_max=1e8).run(model, 1e8 * x, y).success
    assert (found == plain).mean() > 0.95 and plain.mean() > 0.3


@pytest.mark.parametrize("targeted", [False, True])
def test_dlr_is_the_formula(targeted):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 6)).astype("float32")
    labels = rng.integers(6, size=50)
    found = losses.dlr(
        tf.constant(logits), tf.constant(labels, tf.int32), targeted
    )
    for z, label, value in zip(logits, labels, found.numpy()):
        top = np.sort(z)[::-1]
        gap = np.delete(z, label).max() - z[label]
        if targeted:
            wanted = -gap / (top[0] - (top[2] + top[3]) / 2)
        else:
            wanted = gap / (top[0] - top[2])
        assert value == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("targeted", [False, True])
def test_targeted_dlr_is_the_formula(targeted):
    """-(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), `t` the likeliest at first."""
    rng = np.random.default_rng(0)
    clean, logits = rng.normal(size=(2, 50, 6)).astype("float32")
    labels = rng.integers(6, size=50)
    attack = make(loss="targeted-dlr", nb_targets=2)
    label = tf.constant(labels, tf.int32)
    others = attack._others(lambda x: x, tf.constant(clean), label, targeted)
    assert others.shape[1] == (1 if targeted else 2)
    for i in range(others.shape[1]):
        found = attack._loss(tf.constant(logits), label, targeted, others[:, i])
        for before, z, y, value in zip(clean, logits, labels, found.numpy()):
            t = [k for k in before.argsort()[::-1] if k != y][i]
            y, t = (t, y) if targeted else (y, t)
            top = np.sort(z)[::-1]
            wanted = -(z[y] - z[t]) / (top[0] - (top[2] + top[3]) / 2)
            assert value == pytest.approx(wanted, rel=1e-4)


def windows_of(nb_iter):
    return [int(auto_pgd._window(i, nb_iter)) for i in range(nb_iter + 1)]


def test_checkpoints_are_those_of_the_paper():
    windows = windows_of(100)
    points = [i for i, window in enumerate(windows) if window]
    assert points == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [w for w in windows if w] == np.diff([0, *points]).tolist()
    for nb_iter in range(1, 30):
        windows = windows_of(nb_iter)
        assert sum(windows) == np.flatnonzero(windows)[-1]


def test_keeps_the_best_point_and_halves_where_it_overshoots():
    """Loss -|u - 0.0123|: a step that is never halved jumps across."""
    x = tf.zeros((1, 1))
    top = 0.0123

    def logits_fn(x):
        distance = tf.abs(x[:, 0] - top)
        return tf.stack([5 + distance, 0 * distance], 1)

    attack = make(eps=0.1, nb_iter=100, clip_min=-1.0)
    arguments = (logits_fn, x, tf.constant([0]), tf.constant(0.1))
    found = attack.craft(*arguments, tf.constant([[0, 0]]))
    # Eight halvings of a step of 0.2, and the best point of the last.
    assert abs(float(found[0, 0]) - top) < 0.002


def test_one_pass_per_step_and_none_once_all_are_fooled(trained, images):
    x, _ = images
    passes = []

    def counting(x):
        passes.append(1)
        return trained["none"](x)

    def count(eps, labels, **kwargs):
        passes.clear()
        seeds = tf.constant([[0, i] for i in range(len(x))])
        labels, eps = tf.constant(labels, tf.int32), tf.constant(eps)
        make(nb_restarts=2, **kwargs).craft(counting, x, labels, eps, seeds)
        return len(passes)

    right = predicted(trained["none"], x)
    assert count(0.001, right) == 2 * (20 + 1)
    assert count(0.001, (right + 1) % 10) == 1
    assert 1 < count(0.4, right) < 2 * (20 + 1)
    # APGD-T looks at the clean image first, for its targets.
    targets = dict(loss="targeted-dlr", nb_targets=3, nb_iter=3)
    assert count(0.001, right, **targets) == 1 + 3 * 2 * (3 + 1)
    assert count(0.001, (right + 1) % 10, **targets) == 2


def test_same_seed_same_examples_whatever_the_batch_size(trained, images):
    x, y = images
    model = trained["none"]
    attack = make(nb_iter=10, nb_restarts=2, seed=3)
    whole = attack.generate(model, x, y)
    np.testing.assert_array_equal(whole, attack.generate(model, x, y))
    parts = attack.generate(model, x, y, batch_size=7)
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    other = make(nb_iter=10, nb_restarts=2, seed=4).generate(model, x, y)
    assert (other != whole).mean() > 0.1


def test_eps_is_followed_by_a_shared_function(trained, images):
    x, y = images
    for eps in (0.02, 0.05):
        x_adv = make(eps=eps).generate(trained["none"], x, y)
        assert np.abs(x_adv - x).max() == pytest.approx(eps, abs=1e-6)


def test_config_rebuilds_the_attack():
    attack = make(2, "dlr", 0.5, 7, nb_restarts=3, rho=0.6, nb_targets=4)
    again = type(attack).from_config(attack.get_config())
    assert again.get_config() == attack.get_config()
    for part in ("loss='dlr'", "nb_iter=7", "rho=0.6", "nb_targets=4"):
        assert part in repr(again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1}, "`eps` must be a finite number >= 0. Received: eps=-1"),
        ({"norm": 3}, "`norm` must be one of np.inf, 2, 1. Received: norm=3"),
        ({"loss": "cw"}, "`loss` must be 'ce', 'dlr' or .* loss='cw'"),
        ({"nb_iter": 0}, "`nb_iter` must be a whole number of at least 1"),
        ({"nb_iter": 2.5}, "`nb_iter` must be .* Received: nb_iter=2.5"),
        ({"nb_restarts": 0}, "`nb_restarts` must be .* nb_restarts=0"),
        ({"nb_targets": 0}, "`nb_targets` must be .* nb_targets=0"),
        ({"rho": 1.5}, "`rho` must be a number from 0 to 1. Received: rho=1.5"),
        ({"rho": np.nan}, "`rho` must be a number from 0 to 1"),
        ({"clip_min": 1.0}, "`clip_min` must be below `clip_max`"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoProjectedGradientDescent(**arguments)


@pytest.mark.parametrize("loss", ["dlr", "targeted-dlr"])
@pytest.mark.parametrize("targeted", [False, True])
def test_dlr_of_few_classes(loss, targeted, images):
    """Of 3 classes `z_3` closes the scale; of 2 the margin is left."""
    rng = np.random.default_rng(0)
    for classes in (2, 3):
        logits = rng.normal(size=(9, classes)).astype("float32")
        labels = tf.constant(rng.integers(classes, size=9), tf.int32)
        attack = make(loss=loss, nb_iter=3)
        others = attack._others(lambda x: x, logits, labels, targeted)
        found = attack._loss(logits, labels, targeted, others[:, 0])
        own = logits[np.arange(9), labels]
        other = tf.where(tf.one_hot(labels, classes) > 0, -np.inf, logits)
        gap = np.max(other, 1) - own
        spread = np.ptp(logits, axis=1) if classes == 3 else 1.0
        wanted = (-gap if targeted else gap) / spread
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        x, y = images[0][:9], images[1][:9] % classes
        kwargs = {"y_target": y} if targeted else {"y": y}
        model = small_cnn(num_classes=classes)
        result = attack.run(model, x, **kwargs)
        assert (result.success == ((result.prediction == y) == targeted)).all()


def test_all_targets_of_a_model_with_fewer(images):
    x, y = images[0], images[1] % 4
    model = small_cnn(num_classes=4)
    nine, three = (
        make(loss="targeted-dlr", nb_iter=2, nb_targets=n).generate(model, x, y)
        for n in (9, 3)
    )
    np.testing.assert_array_equal(nine, three)


class TestSparseSteps:
    """APGD in L1."""

    def test_breaks_a_linear_model_as_soon_as_it_can_be(self):
        """A little beyond the smallest distance in `[0, 1]`, and not before."""
        rng = np.random.default_rng(0)
        w = rng.normal(size=50).astype("float32")
        x = rng.uniform(size=(20, 50)).round(1).astype("float32")
        model = linear_model(w, bias=0.3)
        gap = tf.constant(x @ w + 0.3)
        nearest = hyperplane.project(x, w + 0 * x, gap, 1, 0.0, 1.0)
        least = sizes(nearest.numpy(), 1)
        y = predicted(model, x)
        # Of several sizes, so that the radius is not the same for all.
        for i in np.argsort(least)[::4]:
            for share, can in ((0.98, False), (1.03, True)):
                attack = make(1, eps=share * least[i], nb_iter=60)
                result = attack.run(model, x[i : i + 1], y[i : i + 1])
                assert result.success[0] == can
                far = sizes(result.x_adv - x[i : i + 1], 1)
                assert far <= share * least[i] + 1e-6

    @pytest.mark.parametrize("nb_iter", [1, 2, 3, 4, 7])
    def test_few_steps_are_in_the_ball_itself(self, nb_iter, trained, images):
        x, y = images
        attack = make(1, nb_iter=nb_iter, eps=20.0)
        result = attack.run(trained["none"], x, y)
        assert sizes(result.x_adv - x, 1).max() <= 20 * (1 + 1e-6)
        wrong = predicted(trained["none"], x) != y
        assert result.success.sum() >= wrong.sum() + (nb_iter > 2)

    def test_fools_what_the_nearest_examples_say(self, trained, digits):
        """Of as many steps, no fewer than FMN finds within the radius."""
        x, y = digits.x_test[::10], digits.y_test[::10]
        x_adv = FastMinimumNorm(1, 60).generate(trained["none"], x, y)
        near = sizes(x_adv - x, 1) <= EPS[1]
        near &= predicted(trained["none"], x_adv) != y
        result = make(1, "dlr", nb_iter=60).run(trained["none"], x, y)
        assert result.success.mean() >= near.mean() - 0.02 > 0.3

    def test_the_unit_of_the_pixels_does_not_matter(self, trained, images):
        x, y = images
        scaled = keras.Sequential(
            [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 256)]
        )
        scaled.add(trained["none"])
        unit = make(1).run(trained["none"], x, y)
        large = make(1, eps=256 * EPS[1], clip_max=256.0)
        large = large.run(scaled, 256 * x, y)
        same = unit.success == large.success
        assert same.mean() > 0.95
