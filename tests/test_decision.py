"""Attacks on classes alone: closed forms, brute force, batches, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import linear_model
from keras_qsn.attacks.decisions import pointwise as decision
from keras_qsn.attacks.decisions.hop_skip_jump import HopSkipJumpAttack
from keras_qsn.attacks.decisions.pointwise import AdditiveGaussianNoiseAttack
from keras_qsn.attacks.decisions.pointwise import PointwiseAttack
from keras_qsn.attacks.losses import fooled

NOISE = pytest.param(AdditiveGaussianNoiseAttack(100), id="noise")
POINTWISE = pytest.param(PointwiseAttack(), id="pointwise")
POINTWISE_L2 = pytest.param(PointwiseAttack(2), id="pointwise-2")
HOP = pytest.param(HopSkipJumpAttack(num_iterations=3), id="hop-2")
HOP_LINF = pytest.param(
    HopSkipJumpAttack(np.inf, num_iterations=2), id="hop-inf"
)

W = np.array([3.0, -1.0, 0.5, -2.0, 1.0, 0.25], "float32")
X = np.array([[0.3, 0.4] * 3, [0.6, 0.3, 0.5, 0.4, 0.5, 0.7]], "float32")
BIAS = -0.9


@pytest.fixture
def images(digits):
    return digits.x_test[::40], digits.y_test[::40]


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


def lengths(delta, norm=2):
    return np.linalg.norm(delta.reshape(len(delta), -1), norm, axis=1)


def own_seeds(seed, count):
    return tf.constant([[seed, i] for i in range(count)])


def craft(attack, logits_fn, x, labels):
    """The attack on a function that is no model, compiled."""

    def run(x, labels, seeds):
        return attack.craft(logits_fn, x, labels, tf.constant(0.0), seeds)

    arguments = x, tf.constant(labels, tf.int32), own_seeds(0, len(x))
    return tf.function(run, autograph=False)(*arguments).numpy()


@pytest.mark.parametrize("name", ["none", "soft", "hard"])
@pytest.mark.parametrize("attack", [NOISE, POINTWISE, HOP])
def test_successes_are_real_and_failures_unchanged(
    attack, name, trained, images
):
    model, (x, y) = trained[name], images
    result = attack.run(model, x, y)
    assert result.success.mean() > 0.5
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    np.testing.assert_array_equal(
        result.prediction, predicted(model, result.x_adv)
    )
    np.testing.assert_array_equal(result.success, result.prediction != y)
    # Nothing is to be done where the model is wrong already.
    idle = ~result.success | (predicted(model, x) != y)
    np.testing.assert_array_equal(result.x_adv[idle], x[idle])
    assert 0 < idle.sum() < len(x) / 2 or name == "none"


@pytest.mark.parametrize("attack", [POINTWISE, HOP_LINF])
def test_needs_the_class_alone(attack, trained, images):
    x, y = images

    def logits_fn(x):
        return tf.one_hot(tf.argmax(trained["none"](x), -1), 10)

    x_adv = craft(attack, logits_fn, x, y)
    clean = (predicted(logits_fn, x) != y).mean()
    assert (predicted(logits_fn, x_adv) != y).mean() > clean + 0.5


@pytest.mark.parametrize("attack", [NOISE, POINTWISE_L2, HOP, HOP_LINF])
def test_same_seed_same_examples_whatever_the_batch_size(
    attack, trained, images
):
    model, x, y = trained["none"], images[0][::6], images[1][::6]
    whole = attack.generate(model, x, y)
    for batch_size in (3, 1):
        parts = attack.generate(model, x, y, batch_size=batch_size)
        np.testing.assert_array_equal(whole, parts)
    config = {**attack.get_config(), "seed": 1}
    other = type(attack).from_config(config).generate(model, x, y)
    assert (other != whole).mean() > 0.01


@pytest.mark.parametrize("attack", [NOISE, POINTWISE, HOP])
def test_a_class_without_boundary_is_a_failure(attack):
    result = attack.run(linear_model(W, 50.0), X)
    assert not result.success.any()
    np.testing.assert_array_equal(result.x_adv, X)


@pytest.mark.parametrize(
    ("attack", "config"),
    [
        (
            AdditiveGaussianNoiseAttack(7, -1.0, 2.0, 3),
            {"epsilons": 7, "clip_min": -1.0, "clip_max": 2.0, "seed": 3},
        ),
        (PointwiseAttack(2, 4, seed=3), {"norm": 2, "nb_restarts": 4}),
        (PointwiseAttack(), {"norm": 0, "nb_restarts": 1}),
        (
            HopSkipJumpAttack("inf", 20, 200, 7, 2.0, 9, -1.0, 2.0, 5),
            {
                "norm": "inf",
                "initial_num_evals": 20,
                "max_num_evals": 200,
                "num_iterations": 7,
                "gamma": 2.0,
                "init_size": 9,
                "clip_min": -1.0,
                "clip_max": 2.0,
                "seed": 5,
            },
        ),
        (HopSkipJumpAttack(), {"norm": 2, "gamma": None}),
    ],
)
def test_config_rebuilds_the_attack(attack, config):
    found = attack.get_config()
    assert {name: found[name] for name in config} == config
    assert repr(type(attack).from_config(found)) == repr(attack)
    assert attack.eps is None and "eps" not in found


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        (AdditiveGaussianNoiseAttack, "epsilons", 0, "at least 1"),
        (AdditiveGaussianNoiseAttack, "epsilons", 1.5, "a whole number"),
        (AdditiveGaussianNoiseAttack, "clip_max", -1, "below `clip_max`"),
        (PointwiseAttack, "norm", 1, "`norm` must be one of 0, 2"),
        (PointwiseAttack, "nb_restarts", 0, "at least 1"),
        (HopSkipJumpAttack, "norm", 1, "`norm` must be one of np.inf, 2"),
        (HopSkipJumpAttack, "initial_num_evals", 0, "at least 1"),
        (HopSkipJumpAttack, "max_num_evals", np.inf, "a whole number"),
        (HopSkipJumpAttack, "num_iterations", 0, "at least 1"),
        (HopSkipJumpAttack, "init_size", 0, "at least 1"),
        (HopSkipJumpAttack, "gamma", 0, "a finite number above 0"),
        (HopSkipJumpAttack, "gamma", np.nan, "a finite number above 0"),
    ],
)
def test_bad_parameters(kind, name, value, message):
    with pytest.raises(ValueError, match=f"{message}.*{name}={value}"):
        kind(**{name: value})


@pytest.mark.parametrize("count", [0, 1, 32, 70])
def test_the_model_sees_batches_of_one_size(count):
    """However many are asked about, and only those."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(90, 6)).astype("float32")
    labels = rng.integers(2, size=90).astype("int32")
    asked = rng.permutation(np.arange(90) < count)
    model, sizes = linear_model(W), []

    def logits_fn(x):
        sizes.append(len(x))
        return model(x)

    hits = decision.decide(logits_fn, points, labels, False, asked)
    wanted = asked & (predicted(model, points) != labels)
    np.testing.assert_array_equal(hits, wanted)
    assert sizes == [decision.CHUNK] * -(-count // decision.CHUNK)


class TestNoise:
    def test_is_brute_force(self):
        """The first level whose noise fools, of all levels from below."""
        model = linear_model(W, BIAS)
        attack = AdditiveGaussianNoiseAttack(50, 0.1, 0.9, seed=3)
        result = attack.run(model, X)
        y = predicted(model, X)
        for i in range(len(X)):
            for k in range(51):
                seed = tf.random.fold_in(tf.constant([3, i]), k)
                noise = tf.random.stateless_normal([6], seed).numpy()
                noise *= (k / 50) ** 2 * 0.8 / np.sqrt(3)
                wanted = np.clip(X[i] + noise, 0.1, 0.9)
                if predicted(model, wanted[None]) != y[i]:
                    break
            np.testing.assert_allclose(result.x_adv[i], wanted, atol=1e-6)
        assert result.success.all()


class TestPointwise:
    def test_no_pixel_can_go_back(self, trained, images):
        model, (x, y) = trained["none"], images
        result = PointwiseAttack().run(model, x, y)
        counts = []
        for before, after, label in zip(x, result.x_adv, y):
            pixels = np.argwhere(after != before)
            if len(pixels):
                tried = np.repeat(after[None], len(pixels), 0)
                for one, pixel in zip(tried, map(tuple, pixels)):
                    one[pixel] = before[pixel]
                # But for the rounding that `fooled` sets aside.
                labels = tf.fill([len(tried)], int(label))
                assert not fooled(model(tried), labels, False).numpy().any()
                counts.append(len(pixels))
        assert 0 < np.median(counts) < 30
        changed = result.x_adv != x
        assert set(np.unique(result.x_adv[changed])) <= {0.0, 1.0}

    def test_l2_stops_at_the_steps_of_a_quantizer(self, trained, images):
        model, (x, y) = trained["hard"], images
        few, near = (PointwiseAttack(norm).run(model, x, y) for norm in (0, 2))
        np.testing.assert_array_equal(few.success, near.success)
        assert (near.x_adv != x).sum() <= (few.x_adv != x).sum()
        far, least = lengths(few.x_adv - x), lengths(near.x_adv - x)
        assert (least <= far).all()
        assert np.median(least[far > 0]) < 0.7 * np.median(far[far > 0])

    def test_one_pixel_that_decides(self):
        """Salt or pepper of a single pixel is enough, and is found."""
        w = np.array([0.1, -8.0, 0.2, 0.1], "float32")
        x = np.full((20, 4), 0.5, "float32")
        model = linear_model(w, 3.0)
        result = PointwiseAttack(nb_restarts=10).run(model, x)
        assert result.success.all() and set(result.prediction) == {1}
        wanted = np.tile(np.float32([0.5, 0, 0.5, 0.5]), (20, 1))
        np.testing.assert_array_equal(result.x_adv, wanted)

    def test_restarts_keep_the_best(self, trained, images):
        model, x, y = trained["none"], images[0][::2], images[1][::2]
        runs = [PointwiseAttack(nb_restarts=n).run(model, x, y) for n in (1, 4)]
        assert not (runs[0].success & ~runs[1].success).any()
        both = runs[0].success
        one, three = (
            (run.x_adv != x).reshape(len(x), -1).sum(1)[both] for run in runs
        )
        assert (three <= one).all() and three.sum() < 0.9 * one.sum()

    def test_an_image_of_one_pixel(self):
        model = linear_model([2.0], -1.2)
        result = PointwiseAttack(nb_restarts=9).run(model, np.float32([[0.5]]))
        assert result.x_adv.tolist() == [[1.0]] and result.success.all()


class TestHopSkipJump:
    @pytest.mark.parametrize(("norm", "gamma"), [(2, None), (np.inf, 1.0)])
    def test_finds_the_nearest_point_of_a_linear_model(self, norm, gamma):
        """At |w.x + b| / ||w|| in the dual norm; see conftest."""
        model = linear_model(W, BIAS)
        dual = 2 if norm == 2 else 1
        wanted = np.abs(X @ W + BIAS) / np.linalg.norm(W, dual)
        attack = HopSkipJumpAttack(norm, num_iterations=15, gamma=gamma)
        result = attack.run(model, X)
        found = lengths(result.x_adv - X, norm)
        assert result.success.all() and (found >= wanted - 1e-6).all()
        np.testing.assert_allclose(found, wanted, rtol=0.05)

    def test_more_iterations_come_nearer(self, trained, images):
        model, x, y = trained["none"], images[0][::2], images[1][::2]
        far, near = (
            lengths(
                HopSkipJumpAttack(num_iterations=n).generate(model, x, y) - x
            )
            for n in (3, 8)
        )
        assert (near <= far).all()
        assert np.median(near) < 0.85 * np.median(far)

    def test_wide_noise_sees_the_steps_of_a_quantizer(self, trained, images):
        model, x, y = trained["hard"], images[0][::4], images[1][::4]
        narrow, wide = (
            HopSkipJumpAttack(num_iterations=8, gamma=gamma).run(model, x, y)
            for gamma in (1.0, None)
        )
        assert wide.success.all() and narrow.success.all()
        near, far = (np.median(lengths(r.x_adv - x)) for r in (wide, narrow))
        assert near < 0.6 * far

    def test_targeted_raises_the_rate_of_the_target(self, trained, images):
        x, y = images
        model, target = trained["none"], (y + 1) % 10
        attack = HopSkipJumpAttack(num_iterations=3)
        result = attack.run(model, x, y, y_target=target)
        np.testing.assert_array_equal(
            result.success, result.prediction == target
        )
        before = (predicted(model, x) == target).mean()
        assert result.success.mean() > before + 0.3

    def test_memory_does_not_grow_with_the_estimates(self):
        sizes, model = [], linear_model(W, BIAS)

        def logits_fn(x):
            sizes.append(len(x))
            return model(x)

        attack = HopSkipJumpAttack(
            initial_num_evals=100, max_num_evals=110, num_iterations=2
        )
        label = tf.constant(predicted(model, X[:1]), tf.int32)
        eps = tf.constant(0.0)
        attack.craft(logits_fn, X[:1], label, eps, own_seeds(0, 1))
        assert max(sizes) == decision.CHUNK
        # Estimates of 100 and of `max_num_evals`, nothing wasted.
        partial = [size for size in sizes if size < decision.CHUNK]
        assert partial == [100 % decision.CHUNK, 110 % decision.CHUNK]

    def test_starts_are_cells_of_black_and_white(self):
        x = np.full((50, 6, 9, 3), 0.5, "float32")
        attack = HopSkipJumpAttack(clip_min=-1.0, clip_max=2.0)
        seeds = own_seeds(0, 50)
        start = [attack._noise(tf.constant(k), x, seeds) for k in range(5)]
        np.testing.assert_array_equal(start[0], x)
        for k, side in ((1, 1), (2, 2), (3, 4), (4, 1)):
            noise = np.asarray(start[k])
            assert set(np.unique(noise)) == {-1.0, 2.0}
            corners = noise[:, ::side, ::side]
            cells = corners.repeat(side, 1).repeat(side, 2)[:, :6, :9]
            np.testing.assert_array_equal(noise, cells)
            # Of every density.
            assert np.ptp((noise > 0).mean((1, 2, 3))) > 0.7
        assert (start[1] != start[4]).numpy().any()

    def test_flat_images_have_no_cells(self):
        model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(3)])
        x = np.random.default_rng(0).random((4, 40), "float32")
        seeds = own_seeds(0, 4)
        noise = HopSkipJumpAttack()._noise(tf.constant(2), x, seeds)
        assert set(np.unique(noise)) == {0.0, 1.0}
        assert HopSkipJumpAttack(num_iterations=2).run(model, x).success.any()
