"""FMN, DDN, sigma-zero: projections, closed forms, ranges, targets, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import brentq

from conftest import linear_model
from keras_qsn.attacks import DecoupledDirectionNorm
from keras_qsn.attacks import FastAdaptiveBoundary
from keras_qsn.attacks import FastMinimumNorm
from keras_qsn.attacks import PointwiseAttack
from keras_qsn.attacks import SaliencyMapMethod
from keras_qsn.attacks import SigmaZero
from keras_qsn.attacks import norms
from keras_qsn.attacks.white_box import ball_in_box

NORMS = pytest.mark.parametrize("norm", [np.inf, 2, 1, 0])
ATTACKS = pytest.mark.parametrize(
    "attack",
    [FastMinimumNorm(n, 40) for n in (np.inf, 2, 1)]
    + [FastMinimumNorm(0, 100)]
    + [DecoupledDirectionNorm(40), SigmaZero(60)],
    ids=lambda a: f"{type(a).__name__}-{a.norm}",
)


def sizes(delta, norm):
    flat = delta.reshape(len(delta), -1).astype("float64")
    return np.linalg.norm(flat, norm, axis=1)


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


def nearest_in(x, delta, eps, norm):
    """The nearest point of the ball and of `[0, 1]`, by a root of SciPy's."""
    room = np.where(delta > 0, 1 - x, x)
    size = np.abs(delta)

    def moved(level):
        if norm == np.inf:
            return np.minimum(np.minimum(size, eps), room)
        if norm == 1:
            return np.minimum(np.maximum(size - level, 0), room)
        return np.minimum(size / (1 + level), room)

    def beyond(level):
        return np.linalg.norm(moved(level), norm) - eps

    level = 0
    if norm != np.inf and beyond(0) > 0:
        level = brentq(beyond, 0, 1e6, xtol=1e-12)
    return np.sign(delta) * moved(level)


class TestBallInBox:
    @pytest.mark.parametrize("norm", [np.inf, 2, 1])
    @pytest.mark.parametrize("eps", [1e-3, 0.3, 2.0, 50.0])
    def test_is_the_root_of_another_solver(self, norm, eps):
        rng = np.random.default_rng(0)
        x = rng.uniform(size=(30, 5, 8)).round(1).astype("float32")
        delta = (rng.normal(size=x.shape) ** 3).astype("float32")
        # Ties, and pixels that do not move.
        delta[:5] = delta[:5].round()
        found = ball_in_box.project(x, tf.constant(delta), eps, norm, 0.0, 1.0)
        for image, move, result in zip(x, delta, found.numpy()):
            wanted = nearest_in(
                image.ravel().astype("float64"), move.ravel(), eps, norm
            )
            np.testing.assert_allclose(result.ravel(), wanted, atol=2e-5)

    @pytest.mark.parametrize("norm", [np.inf, 2, 1])
    def test_no_point_tried_at_random_is_nearer(self, norm):
        rng = np.random.default_rng(1)
        x = rng.uniform(size=(4, 3)).astype("float32")
        delta = rng.normal(size=(4, 3)).astype("float32")
        found = ball_in_box.project(x, tf.constant(delta), 0.4, norm, 0.0, 1.0)
        tried = rng.uniform(-1, 1, size=(40000, 4, 3)) * 0.4
        inside = (x + tried >= 0) & (x + tried <= 1)
        fits = inside.all(2) & (np.linalg.norm(tried, norm, axis=2) <= 0.4)
        far = np.linalg.norm(tried - delta, axis=2)
        distance = np.linalg.norm(found.numpy() - delta, axis=1)
        assert (distance <= np.where(fits, far, np.inf).min(0) + 1e-6).all()

    @NORMS
    def test_each_image_has_its_own_radius_and_range(self, norm):
        rng = np.random.default_rng(2)
        low = np.array([-1, 0, 2, 0, 5], "float32")
        high = low + np.array([1, 3, 1, 9, 2], "float32")
        x = (low + (high - low) * rng.uniform(size=(6, 5))).astype("float32")
        delta = 9 * rng.normal(size=x.shape).astype("float32")
        eps = np.array([0, 1, 1, 2, 3, 5], "float32")
        moved = ball_in_box.project(
            x, tf.constant(delta), eps[:, None], norm, low, high
        )
        assert (sizes(moved.numpy(), norm) <= eps * (1 + 1e-6)).all()
        assert (x + moved >= low - 1e-6).numpy().all()
        assert (x + moved <= high + 1e-6).numpy().all()


def test_of_no_norm_the_largest_are_kept():
    delta = tf.constant([[1.0, -3.0, 2.0, -2.0], [0.0, 0.5, 0.0, 0.0]])
    kept = norms.project(delta, tf.constant([[2.0], [3.0]]), 0)
    np.testing.assert_array_equal(kept, [[0, -3, 2, 0], [0, 0.5, 0, 0]])
    np.testing.assert_array_equal(norms.size(delta, 0), [4, 1])


class TestLinearModel:
    w = np.array([3.0, -1.0, 0.5, -2.0, 0.1, 1.0], "float32")
    x = np.array(
        [
            [0.5, 0.4, 0.6, 0.5, 0.5, 0.5],
            [0.45, 0.5, 0.5, 0.5, 0.2, 0.1],
            [0.02, 0.5, 0.5, 0.2, 0.9, 1.0],
        ],
        "float32",
    )
    bias = -0.7

    def least(self, x, norm):
        """The smallest perturbation in `[0, 1]` that changes the class."""
        gap = float(x @ self.w) + self.bias
        step = -np.sign(gap * self.w)
        room = np.where(step > 0, 1 - x, x)
        slope = np.abs(self.w)
        if norm == 0:
            reach = sorted(slope * room, reverse=True)
            return 1 + int((np.cumsum(reach) <= abs(gap)).sum())

        def short(t):
            if norm == np.inf:
                moved = np.minimum(t, room)
            elif norm == 2:
                moved = np.minimum(t * slope, room)
            else:
                order = np.argsort(-slope)
                left = t - np.cumsum(room[order]) + room[order]
                moved = np.zeros_like(room)
                moved[order] = np.clip(left, 0, room[order])
            return slope @ moved - abs(gap), np.linalg.norm(moved, norm)

        return short(brentq(lambda t: short(t)[0], 0, 9))[1]

    @NORMS
    def test_fmn_comes_to_the_closed_form(self, norm):
        model = linear_model(self.w, bias=self.bias)
        result = FastMinimumNorm(norm, 300).run(model, self.x)
        assert result.success.all()
        least = np.array([self.least(x, norm) for x in self.x])
        found = sizes(result.x_adv - self.x, norm)
        assert (found >= least * (1 - 1e-5)).all()
        np.testing.assert_allclose(found, least, rtol=0.01)

    def test_ddn_comes_to_the_closed_form(self):
        model = linear_model(self.w, bias=self.bias)
        result = DecoupledDirectionNorm(300).run(model, self.x)
        assert result.success.all()
        least = np.array([self.least(x, 2) for x in self.x])
        found = sizes(result.x_adv - self.x, 2)
        assert (found >= least * (1 - 1e-5)).all()
        np.testing.assert_allclose(found, least, rtol=0.02)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_sigma_zero_comes_to_the_fewest_pixels(self, sign):
        rng = np.random.default_rng(0)
        self.w = rng.normal(size=40).astype("float32")
        x = rng.uniform(size=(30, 40)).astype("float32")
        self.bias = -sign * float(np.median(sign * x @ self.w))
        self.bias += 3 * sign
        model = linear_model(self.w, bias=self.bias)
        result = SigmaZero(300).run(model, x)
        assert result.success.all()
        least = np.array([self.least(image, 0) for image in x])
        found = sizes(result.x_adv - x, 0)
        assert (found >= least).all() and (found == least).mean() > 0.8


def test_sigma_zero_changes_fewer_pixels_than_greedy_attacks(trained, images):
    x, y = images
    medians = [
        np.median(sizes(attack.generate(trained["none"], x, y) - x, 0))
        for attack in (SigmaZero(), SaliencyMapMethod(), PointwiseAttack())
    ]
    assert medians[0] < min(medians[1:])


def test_sigma_zero_counts_pixels_whatever_their_range(trained, images):
    x, y = images
    scaled = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 256)]
    )
    scaled.add(trained["none"])
    unit = SigmaZero(40).generate(trained["none"], x, y)
    large = SigmaZero(40, clip_max=256.0).generate(scaled, 256 * x, y)
    unit, large = sizes(unit - x, 0), sizes(large - 256 * x, 0)
    assert abs(np.median(unit) - np.median(large)) <= 1


@ATTACKS
def test_success_is_adversarial_and_failure_is_the_image(
    attack, trained, images
):
    x, y = images
    result = attack.run(trained["none"], x, y)
    again = np.asarray(trained["none"](result.x_adv)).argmax(-1)
    np.testing.assert_array_equal(result.success, again != y)
    assert result.success.mean() > 0.95
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    wrong = np.asarray(trained["none"](x)).argmax(-1) != y
    np.testing.assert_array_equal(result.x_adv[wrong], x[wrong])
    short = attack.with_counts((1,)).run(trained["none"], x, y)
    np.testing.assert_array_equal(short.x_adv, x)


@ATTACKS
def test_targets_are_reached(attack, trained, images):
    x, y = images
    target = (y + 1) % 10
    result = attack.run(trained["none"], x, y_target=target)
    np.testing.assert_array_equal(result.success, result.prediction == target)
    assert result.success.mean() > 0.9
    free = attack.run(trained["none"], x, y)
    both = result.success & free.success
    further = sizes((result.x_adv - x)[both], attack.norm)
    nearer = sizes((free.x_adv - x)[both], attack.norm)
    assert np.median(further) > np.median(nearer)


@ATTACKS
def test_the_batch_size_does_not_matter(attack, trained, images):
    x, y = images
    whole, parts = (
        sizes(
            attack.generate(trained["none"], x[:20], y[:20], batch_size=n)
            - x[:20],
            attack.norm,
        )
        for n in (20, 7)
    )
    np.testing.assert_allclose(
        whole, parts, rtol=0.02, atol=1.01 * (not attack.norm)
    )


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_fmn_is_as_near_as_fab(norm, trained, images):
    x, y = images
    fab = FastAdaptiveBoundary({np.inf: 1, 2: 28, 1: 784}[norm], norm, 30)
    medians = [
        np.median(sizes(attack.generate(trained["none"], x, y) - x, norm))
        for attack in (FastMinimumNorm(norm, 100), fab)
    ]
    assert medians[0] <= 1.05 * medians[1]


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (FastMinimumNorm, {"norm": 3}, "one of np.inf, 2, 1, 0. Received"),
        (FastMinimumNorm, {"gamma": 0}, "`gamma` must be above 0"),
        (FastMinimumNorm, {"gamma": 2}, "`gamma` must be a number from 0 to 1"),
        (FastMinimumNorm, {"alpha": 0}, "`alpha` must be a finite number"),
        (FastMinimumNorm, {"nb_iter": 0}, "`nb_iter` must be a whole number"),
        (SigmaZero, {"sigma": 0}, "`sigma` must be a finite number above 0"),
        (SigmaZero, {"threshold": 2}, "`threshold` must be a number from 0"),
        (DecoupledDirectionNorm, {"gamma": 1}, "above 0 and below 1"),
        (DecoupledDirectionNorm, {"init_norm": 0}, "`init_norm` must be a fin"),
    ],
)
def test_bad_input(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    "attack",
    [FastMinimumNorm("0", 7, 0.5, 0.1), DecoupledDirectionNorm(9, 0.1)],
)
def test_config_rebuilds_the_attack(attack):
    again = type(attack).from_config(attack.get_config())
    assert repr(again) == repr(attack) and "eps" not in attack.get_config()
