"""Carlini & Wagner: closed forms, distances, confidence, batches, errors."""

import numpy as np
import pytest

from conftest import input_gradient
from conftest import linear_model
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.attacks.white_box import carlini_wagner
from keras_qsn.attacks.white_box.carlini_wagner import CarliniWagnerL2

# Larger steps, so that a tenth of the default iterations is enough.
FAST = {"learning_rate": 0.1, "max_iterations": 100, "initial_const": 0.1}


def distances(x, y):
    delta = (x - y).reshape(len(x), -1).astype("float64")
    return np.sqrt((delta**2).sum(1))


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


def leads(model, x, labels, targeted=False):
    """How far the wrong class, or the target, is ahead in the logits."""
    logits = np.array(model(x), "float64")
    rows = np.arange(len(x))
    own = logits[rows, labels]
    logits[rows, labels] = -np.inf
    lead = logits.max(1) - own
    return -lead if targeted else lead


@pytest.fixture
def images(digits):
    return digits.x_test[::40], digits.y_test[::40]


class TestLinearModel:
    """The nearest wrong x is |w.x + b| / ||w|| away; see conftest."""

    w = np.array([3.0, -1.0, 0.5, -2.0, 1.0, 0.25], "float32")
    x = np.array(
        [[0.3] * 6, [0.6, 0.3, 0.5, 0.4, 0.5, 0.7], [0.4, 0.6] * 3], "float32"
    )
    bias = -0.9

    def wanted(self, confidence=0.0):
        score = self.x @ self.w + self.bias
        return (np.abs(score) + confidence) / np.linalg.norm(self.w)

    @pytest.mark.parametrize("targeted", [False, True])
    @pytest.mark.parametrize("abort_early", [False, True])
    def test_finds_the_nearest_example(self, targeted, abort_early):
        model = linear_model(self.w, self.bias)
        y = predicted(model, self.x)
        assert set(y) == {0, 1}
        attack = CarliniWagnerL2(abort_early=abort_early)
        labels = {"y_target": 1 - y} if targeted else {"y": y}
        result = attack.run(model, self.x, **labels)
        assert result.success.all()
        found = distances(result.x_adv, self.x)
        assert (found >= self.wanted() - 1e-6).all()
        np.testing.assert_allclose(found, self.wanted(), rtol=0.02)

    def test_confidence_moves_the_boundary(self):
        model = linear_model(self.w, self.bias)
        y = predicted(model, self.x)
        x_adv = CarliniWagnerL2(confidence=0.5).generate(model, self.x, y)
        assert (leads(model, x_adv, y) >= 0.5).all()
        np.testing.assert_allclose(
            distances(x_adv, self.x), self.wanted(0.5), rtol=0.02
        )

    def test_search_finds_a_constant_from_far_above_and_below(self):
        model = linear_model(self.w, self.bias)
        y = predicted(model, self.x)
        for const in (1e-3, 1e1):
            x_adv = CarliniWagnerL2(
                initial_const=const, binary_search_steps=10
            ).generate(model, self.x, y)
            np.testing.assert_allclose(
                distances(x_adv, self.x), self.wanted(), rtol=0.02
            )

    def test_units_of_the_pixels_do_not_matter(self):
        y = predicted(linear_model(self.w, self.bias), self.x)
        attack = CarliniWagnerL2(clip_min=-255, clip_max=255, **FAST)
        unit = CarliniWagnerL2(**FAST).generate(
            linear_model(self.w, self.bias), self.x, y
        )
        wide = attack.generate(
            linear_model(self.w / 510, self.bias + self.w.sum() / 2),
            510 * self.x - 255,
            y,
        )
        np.testing.assert_allclose((wide + 255) / 510, unit, atol=1e-4)


def test_nearer_than_pgd_and_inside_the_range(trained, images):
    model, (x, y) = trained["none"], images
    result = CarliniWagnerL2(**FAST).run(model, x, y)
    assert result.success.all()
    np.testing.assert_array_equal(
        result.prediction, predicted(model, result.x_adv)
    )
    assert result.x_adv.dtype == np.float32 and result.x_adv.shape == x.shape
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    found = distances(result.x_adv, x)
    # In balls where PGD succeeds; a single image may find another minimum.
    for eps in (0.5, 1.0, 1.5):
        pgd = ProjectedGradientDescent(eps, norm=2).run(model, x, y)
        assert 0 < pgd.success.sum() < len(x)
        assert (found[pgd.success] <= 1.05 * eps).mean() >= 0.9
        assert (found <= eps).sum() >= pgd.success.sum() - 1


def test_targeted(trained, images):
    model, (x, y) = trained["none"], images
    target = (y + 1) % 10
    result = CarliniWagnerL2(**FAST).run(model, x, y, y_target=target)
    np.testing.assert_array_equal(result.success, result.prediction == target)
    assert result.success.all()
    # Any wrong class is nearer than a given one, on the whole.
    nearest = CarliniWagnerL2(**FAST).generate(model, x, y)
    targeted = distances(result.x_adv, x)
    assert distances(nearest, x).mean() < 0.9 * targeted.mean()


@pytest.mark.parametrize("targeted", [False, True])
def test_confidence_is_reached(targeted, trained, images):
    model, (x, y) = trained["none"], images
    labels = (y + 1) % 10 if targeted else y
    names = {"y_target": labels} if targeted else {"y": labels}
    before = -np.inf
    for confidence in (0.0, 3.0):
        attack = CarliniWagnerL2(confidence, **FAST)
        result = attack.run(model, x, **names)
        assert result.success.all()
        lead = leads(model, result.x_adv, labels, targeted)
        assert (lead >= confidence).all()
        # Not much further than asked, or it would not be the nearest.
        wrong = leads(model, x, labels, targeted) > confidence
        assert np.median(lead[~wrong]) < confidence + 0.5
        mean = distances(result.x_adv, x).mean()
        assert mean > before
        before = mean


def test_images_already_wrong_stay_as_they_are(trained, images):
    model, (x, _) = trained["none"], images
    y = (predicted(model, x) + np.arange(len(x)) % 2) % 10
    wrong = predicted(model, x) != y
    result = CarliniWagnerL2(**FAST).run(model, x, y)
    assert result.success.all()
    np.testing.assert_array_equal(result.x_adv[wrong], x[wrong])
    assert (distances(result.x_adv, x)[~wrong] > 0).all()


def test_failed_images_come_back_unchanged(trained, images):
    model, (x, _) = trained["none"], images
    y = predicted(model, x)
    for change in ({"max_iterations": 1}, {"initial_const": 1e-12}):
        attack = CarliniWagnerL2(**{**FAST, **change})
        result = attack.run(model, x, y)
        assert not result.success.any()
        np.testing.assert_array_equal(result.x_adv, x)
        np.testing.assert_array_equal(result.prediction, y)


@pytest.mark.parametrize("abort_early", [False, True])
def test_batches_change_nothing(abort_early):
    """Each image keeps its own label, constant, bounds and early stop."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.2, 0.8, (23, 6)).astype("float32")
    model = linear_model(TestLinearModel.w, TestLinearModel.bias)
    y = np.where(np.arange(23) % 4, predicted(model, x), 0)
    attack = CarliniWagnerL2(**{**FAST, "abort_early": abort_early})
    whole = attack.run(model, x, y)
    parts = attack.run(model, x, y, batch_size=5)
    assert whole.success.all() and parts.success.all()
    np.testing.assert_allclose(whole.x_adv, parts.x_adv, atol=1e-3)
    one_by_one = [
        attack.generate(model, x[i : i + 1], y[i : i + 1]) for i in range(5)
    ]
    np.testing.assert_allclose(
        whole.x_adv[:5], np.concatenate(one_by_one), atol=1e-3
    )


def test_batches_of_digits(trained, images):
    model, (x, y) = trained["none"], images
    attack = CarliniWagnerL2(**FAST)
    whole, parts = (
        attack.generate(model, x, y, batch_size=n) for n in (25, 10)
    )
    # Rounding moves single steps, hence the distances a little.
    np.testing.assert_allclose(
        distances(whole, x), distances(parts, x), rtol=0.05, atol=1e-3
    )


@pytest.mark.parametrize("name", ["soft", "hard"])
def test_quantized_models(name, trained, images):
    model, (x, y) = trained[name], images
    clean = predicted(model, x)
    result = CarliniWagnerL2(**FAST).run(model, x, y)
    assert np.isfinite(result.x_adv).all()
    np.testing.assert_array_equal(
        result.prediction, predicted(model, result.x_adv)
    )
    np.testing.assert_array_equal(result.success, result.prediction != y)
    unchanged = (result.x_adv == x).all((1, 2, 3))
    np.testing.assert_array_equal(unchanged, ~result.success | (clean != y))


def test_without_labels_attacks_the_prediction(trained, images):
    model, (x, _) = trained["none"], images
    guessed = CarliniWagnerL2(**FAST).run(model, x)
    assert guessed.success.all()
    assert (guessed.prediction != predicted(model, x)).all()


def test_steps_of_the_search_never_make_it_worse(trained, images):
    model, (x, y) = trained["none"], images
    before = np.full(len(x), np.inf)
    for steps in (1, 4):
        attack = CarliniWagnerL2(binary_search_steps=steps, **FAST)
        result = attack.run(model, x, y)
        found = np.where(result.success, distances(result.x_adv, x), np.inf)
        assert (found <= before + 1e-5).all()
        before = found
    assert np.isfinite(before).all()


def test_config_rebuilds_the_attack():
    attack = CarliniWagnerL2(
        1.0, 0.02, 3, 50, False, 0.5, clip_min=-1.0, clip_max=2.0
    )
    config = attack.get_config()
    assert config == {
        "confidence": 1.0,
        "learning_rate": 0.02,
        "binary_search_steps": 3,
        "max_iterations": 50,
        "abort_early": False,
        "initial_const": 0.5,
        "clip_min": -1.0,
        "clip_max": 2.0,
    }
    again = CarliniWagnerL2.from_config(config)
    assert repr(again) == repr(attack)
    assert again.eps is None and again.norm == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("confidence", -1, "must be a finite number >= 0"),
        ("confidence", np.inf, "must be a finite number >= 0"),
        ("learning_rate", 0, "must be a finite number above 0"),
        ("learning_rate", np.nan, "must be a finite number above 0"),
        ("initial_const", 0, "must be a finite number above 0"),
        ("initial_const", np.inf, "must be a finite number above 0"),
        ("binary_search_steps", 0, "must be a whole number of at least 1"),
        ("binary_search_steps", 2.5, "must be a whole number of at least 1"),
        ("max_iterations", 0, "must be a whole number of at least 1"),
        ("max_iterations", np.inf, "must be a whole number of at least 1"),
        ("max_iterations", np.nan, "must be a whole number of at least 1"),
        ("clip_max", -1, "must be below `clip_max`"),
    ],
)
def test_bad_parameters(name, value, message):
    with pytest.raises(ValueError, match=f"{message}.*{name}={value}"):
        CarliniWagnerL2(**{name: value})


def test_black_and_white_pixels_do_not_depend_on_the_batch(trained, digits):
    x, y = np.round(digits.x_test[:12]), digits.y_test[:12]
    attack = CarliniWagnerL2(
        learning_rate=0.1, max_iterations=60, binary_search_steps=3
    )
    whole, parts = (
        attack.run(trained["none"], x, y, batch_size=n).x_adv for n in (12, 5)
    )
    np.testing.assert_allclose(whole, parts, atol=2e-5)


def test_the_slope_at_black_and_white():
    w = np.array([-7.25, -1.0, 0.0, 2.0, 7.25], "float32")
    slope = input_gradient(carlini_wagner._between_0_and_1, w)
    exact = 0.5 / np.cosh(w.astype("float64")) ** 2
    np.testing.assert_allclose(slope, exact, rtol=1e-5)
