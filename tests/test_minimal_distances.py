"""`minimal_distances`: the best of a plan, its cost in passes, its curve."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import masks
from conftest import linear_model
from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn.attacks.views import passes
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import minimal_distances
from keras_qsn.evaluation import nearest
from keras_qsn.evaluation import plans
from keras_qsn.evaluation.facts import ModelFacts
from keras_qsn.evaluation.sight import AS_IT_IS
from keras_qsn.evaluation.threat_model import ThreatModel

NORMS = pytest.mark.parametrize("norm", [np.inf, 2, 1, 0])


@pytest.fixture(scope="module")
def images(digits):
    return digits.x_test[::25], digits.y_test[::25]


def sizes(delta, norm):
    flat = delta.reshape(len(delta), -1).astype("float64")
    return np.linalg.norm(flat, norm, axis=1)


@pytest.fixture(scope="module")
def result(trained, images):
    x, y = images
    plan = [
        attacks.FastMinimumNorm(2, 30),
        attacks.DeepFool(),
        attacks.FastGradientMethod(1.0, 2),
    ]
    return minimal_distances(trained["none"], x, y, 2, plan, verbose=0)


class TestPasses:
    @pytest.mark.parametrize(
        ("attack", "forward", "backward"),
        [
            (attacks.FastMinimumNorm(2, 7), 7, 7),
            (attacks.SigmaZero(5), 5, 5),
            (attacks.FastGradientMethod(1e-6), 1, 1),
            (attacks.ProjectedGradientDescent(1e-6, nb_iter=4), 4, 4),
            # Its queries, and the look at the image.
            (attacks.SquareAttack(1e-6, nb_queries=6), None, 0),
            (attacks.BPDA(attacks.FastMinimumNorm(2, 3)), 3, 3),
            (attacks.EOT(attacks.FastMinimumNorm(2, 3), 4), 12, 12),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_are_those_of_the_attack(
        self, attack, forward, backward, trained, images
    ):
        x, y = images
        result = minimal_distances(
            trained["soft"], x, y, 2, [attack], batch_size=16, verbose=0
        )
        (found,) = result.found
        if forward is not None:
            assert found.forward == forward
        assert found.forward >= 1 and found.backward == backward

    def test_each_class_of_deepfool_is_a_pass_back(self):
        """Three classes, two boundaries, one step and the look at its end."""
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.set_weights([np.eye(4, 3, dtype="float32"), np.zeros(3)])
        x = np.array([[0.6, 0.5, 0.1, 0.0]], "float32")
        plan = [attacks.DeepFool(nb_candidate=3)]
        found = minimal_distances(model, x, [0], plan=plan, verbose=0).found[0]
        assert (found.forward, found.backward) == (3, 4)

    def test_what_is_counted_is_what_is_seen(self, trained, images):
        wrapper = KerasModelWrapper.of(trained["none"])
        x, _ = images
        seen = passes.Passes().see(wrapper.get_logits, wrapper)
        before = passes.count(wrapper)
        np.testing.assert_array_equal(seen(x), wrapper.get_logits(x))
        with tf.GradientTape() as tape:
            image = tf.constant(x[:3])
            tape.watch(image)
            logits = seen(image)
        tape.gradient(logits, image)
        counted = passes.count(wrapper) - before
        np.testing.assert_array_equal(counted, [len(x) + 3, 3])


class TestResult:
    def test_the_best_of_all_is_what_counts(self, result, trained, images):
        x, y = images
        each = np.array([found.distances for found in result.found])
        np.testing.assert_array_equal(result.best, each.min(0))
        far = sizes(result.x_adv.astype("float64") - x, 2)
        hit = np.isfinite(result.best)
        np.testing.assert_allclose(far[hit], result.best[hit], rtol=1e-12)
        classes = np.asarray(trained["none"](result.x_adv)).argmax(-1)
        np.testing.assert_array_equal(classes != y, hit)
        wrong = result.prediction != y
        assert wrong.any() and (result.best[wrong] == 0).all()
        assert (result.best[~wrong] > 0).all()
        # One step does not reach all, and another attack is nearer.
        assert not np.isfinite(each[2]).all()

    def test_medians_are_of_images_that_are_right(self, result):
        right = result.prediction == result.y
        assert result.median == np.median(result.best[right])
        assert result.median <= min(result.medians.values())

    def test_the_curve_falls_from_the_clean_accuracy_to_0(self, result):
        radii, left = result.curve()
        assert radii[0] == 0 and (np.diff(radii) > 0).all()
        assert left[0] == (result.prediction == result.y).mean()
        assert (np.diff(left) < 0).all() and left[-1] == 0
        assert result.accuracy(radii[3]) == left[3]
        own = result.curve(next(iter(result.medians)))
        assert (result.accuracy(own[0]) <= own[1]).all()

    def test_optimality_is_1_of_the_best_and_less_of_others(self, result):
        shares = list(result.optimality.values())
        assert max(shares) <= 1 and min(shares) < 0.9
        # By hand, from the curves, up to the last image.
        end = result.best.max()
        grid = np.linspace(0, end, 40001)
        clean = result.accuracy(0.0)
        best = clean - result.accuracy(grid).mean()
        for name, share in result.optimality.items():
            own = clean - result.accuracy(grid, name).mean()
            assert share == pytest.approx(own / best, abs=1e-3)

    def test_is_short_to_print_and_whole_as_json(self, result):
        assert len(repr(result)) < 400 and "median" in repr(result)
        data = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert data["median"] == result.median
        assert len(data["images"]) == len(result.y)
        first = data["images"][0]
        assert first["distance"] == min(
            value for value in first["distances"].values() if value is not None
        )
        assert first["found_by"]
        assert [a["forward"] for a in data["attacks"]][0] == 30
        assert data["curve"][0] == [0, data["clean_accuracy"]]

    def test_of_an_unknown_attack(self, result):
        with pytest.raises(ValueError, match="`name` must be one of Fast"):
            result.accuracy(1.0, "PGD")


@NORMS
def test_of_a_linear_model_it_is_the_distance_to_the_plane(norm):
    w = np.array([3.0, -1.0, 0.5, -2.0], "float32")
    x = np.array([[0.5, 0.5, 0.5, 0.5], [0.6, 0.4, 0.5, 0.4]], "float32")
    model = linear_model(w, bias=0.0)
    gap = np.abs(x @ w)
    dual = {np.inf: 1, 2: 2, 1: np.inf}
    least = np.ones(2)
    if norm:
        least = gap / np.linalg.norm(w, dual[norm])
    y = np.asarray(model(x)).argmax(-1)
    result = minimal_distances(model, x, y, norm, verbose=0)
    np.testing.assert_allclose(result.best, least, rtol=2e-3)


@NORMS
def test_same_seed_same_distances(norm, trained, images):
    x, y = images[0][:8], images[1][:8]
    one, two = (
        minimal_distances(trained["hard"], x, y, norm, "quick", verbose=0)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.best, two.best)
    names = [found.step.name for found in one.found]
    assert "FMN-50 by BPDA" in names
    assert ("level flips" in names) == (norm != np.inf)
    assert ("cube within 0.1" in names) == (norm == np.inf)


def masked(model):
    rounding = keras.layers.Lambda(
        lambda x: tf.stop_gradient(tf.round(x)), name="rounding"
    )
    return keras.Sequential([keras.Input((28, 28, 1)), rounding, model])


@NORMS
def test_goes_through_what_hides_the_gradient(norm, trained, images):
    x, y = images[0][:12], images[1][:12]
    behind = masked(trained["none"])
    result = minimal_distances(behind, x, y, norm, "quick", verbose=0)
    (mask,) = result.settings["masks"]
    assert (mask["layer"], mask["gradient"]) == ("rounding", "none")
    assert result.found[0].step.name == "FMN-50 through surrogates"
    # Plain descent is blind there.
    blind = [attacks.FastMinimumNorm(norm, 50)]
    assert (
        minimal_distances(behind, x, y, norm, blind, verbose=0).median == np.inf
    )
    assert np.isfinite(result.best).mean() > 0.5


def test_without_a_gradient_it_asks(trained, images):
    """Where nothing can be put through what hides it."""
    x, y = images
    facts = ModelFacts(10, (28, 28, 1), gradient_cut="rounding")
    steps = nearest.named("quick", ThreatModel(784.0, 0), facts, AS_IT_IS)
    assert [step.name for step in steps] == ["pointwise"]
    result = minimal_distances(
        masked(trained["none"]), x[:6], y[:6], 0, steps, verbose=0
    )
    assert result.found[0].backward == 0


@NORMS
def test_plans_hold_more_the_longer_they_are(norm):
    threat = ThreatModel(784.0 if norm == 0 else 1.0, norm)
    facts = ModelFacts(10, (28, 28, 1), quantized=True, opened=True)
    counts = [
        len(nearest.named(plan, threat, facts, AS_IT_IS))
        for plan in plans.NAMES
    ]
    assert counts == sorted(counts) and counts[0] < counts[-1]
    for plan in plans.NAMES:
        for step in nearest.named(plan, threat, facts, AS_IT_IS):
            json.dumps(step.get_config())


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"norm": 3}, "`norm` must be one of np.inf, 2, 1, 0"),
            ({"plan": "slow"}, "`plan` must be one of quick, standard, full"),
            ({"plan": []}, "at least one step"),
            ({"y": None}, "`y` must hold the true classes"),
            ({"batch_size": 0}, "`batch_size` must be a whole number"),
        ],
    )
    def test_arguments(self, arguments, message, images):
        x, y = images
        with pytest.raises(ValueError, match=message):
            minimal_distances(small_cnn(), **{"x": x, "y": y, **arguments})

    def test_a_model_that_answers_at_random(self, trained, images):
        noisy = keras.Sequential(
            [keras.Input((28, 28, 1)), masks.Noise(0.3), trained["none"]]
        )
        with pytest.raises(ValueError, match="no smallest distance.*evaluate"):
            minimal_distances(noisy, *images)

    def test_another_range(self, images):
        plan = [attacks.FastMinimumNorm(clip_max=2.0)]
        with pytest.raises(ValueError, match="must have the range of the im"):
            minimal_distances(small_cnn(), *images, plan=plan)
