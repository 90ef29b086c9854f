"""A detector beside a model: judged with it, attacked with it."""

import functools
import json
import pathlib
import pickle
import re
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qsn as qsn
import masks
from keras_qsn import attacks
from keras_qsn import report
from keras_qsn.defenses import Detector
from keras_qsn.defenses import FeatureSqueezingDetector
from keras_qsn.defenses import MedianSmoothing
from keras_qsn.defenses import ModelDetector
from keras_qsn.defenses import recommended_squeezers
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.models import KerasModelWrapper
from keras_qsn.report import charts

EPS = 0.3
ROOT = pathlib.Path(__file__).parents[1]


class Brightness(Detector):
    """Bright images are suspicious."""

    def __init__(self, threshold=None):
        self.threshold = threshold

    def call(self, x):
        return tf.reduce_mean(x, axis=[1, 2, 3])


class Left(Brightness):
    def call(self, x):
        return tf.reduce_mean(x[:, :, 0], axis=[1, 2])


@pytest.fixture(scope="module")
def model():
    """Bright images on the left are of class 1, on the right of class 0."""
    dense = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), dense]
    )
    left = np.array([1, -1, 1, -1], "float32")
    dense.set_weights([np.stack([-left, left], 1)])
    return model


@pytest.fixture
def images():
    x = np.full((4, 2, 2, 1), 0.5, "float32")
    x[:, :, 0] -= np.array([0.02, 0.05, 0.09, 0.3], "float32")[:, None, None]
    return x, np.zeros(4, int)


def evaluated(model, x, y, detector=None, **kwargs):
    kwargs = {"plan": "quick", "checks": None, "verbose": 0, **kwargs}
    return evaluate_robustness(model, x, y, detector=detector, **kwargs)


def adaptive(model, detector, x, y, eps, steps=100):
    """Adam on the largest distance of probabilities, and on the margin until
    it is won: written for these squeezers, and apart from the library."""

    @tf.function
    def slope(x_adv):
        with tf.GradientTape() as tape:
            tape.watch(x_adv)
            logits = model(x_adv)
            own = tf.one_hot(y, 10)
            lead = tf.reduce_max(logits - 1e9 * own, 1)
            lead -= tf.reduce_sum(logits * own, 1)
            p = tf.nn.softmax(logits)
            moved = [
                tf.reduce_sum(abs(p - tf.nn.softmax(model(s(x_adv)))), 1)
                for s in detector.squeezers
            ]
            loss = tf.reduce_max(moved, 0) + tf.nn.relu(0.05 - lead)
        return tape.gradient(loss, x_adv)

    def right(x_adv):
        return (np.asarray(model(x_adv)).argmax(-1) == y) | detector.detect(
            x_adv
        )

    left = (np.asarray(model(x)).argmax(-1) == y) & ~detector.detect(x)
    noise = np.random.default_rng(0).uniform(-eps, eps, x.shape)
    low, high = np.maximum(x - eps, 0), np.minimum(x + eps, 1)
    x_adv = np.clip(x + noise, low, high).astype("float32")
    mean = square = 0
    for i in range(steps):
        g = slope(tf.constant(x_adv)).numpy()
        mean, square = 0.9 * mean + 0.1 * g, 0.99 * square + 0.01 * g * g
        rate = 0.02 * (1 - i / steps)
        x_adv = np.clip(x_adv - rate * mean / (square**0.5 + 1e-8), low, high)
        left &= right(x_adv)
    return left.mean()


@pytest.mark.parametrize("eps", [0.3, 0.1])
def test_the_plan_does_what_an_attack_by_hand_does(trained, digits, eps):
    model, x, y = trained["none"], digits.x_test[::20], digits.y_test[::20]
    squeezers = recommended_squeezers("mnist")
    detector = masks.squeezing(model, digits, squeezers)
    found = evaluated(model, x, y, detector, eps=eps, plan="standard")
    by_hand = adaptive(model, detector, x, y, eps)
    assert found.robust_accuracy <= by_hand + 0.02
    # Or the detector would be no matter.
    plain = attacks.ProjectedGradientDescent(eps, nb_iter=100)
    plain = evaluated(model, x, y, detector, eps=eps, plan=[plain])
    assert plain.robust_accuracy > found.robust_accuracy + 0.05


class TestVerdict:
    def test_broken_is_misclassified_and_accepted(self, model, images):
        """A step makes the left brighter by 0.1, and the right darker."""
        one = {"eps": 0.1, "plan": [attacks.FastGradientMethod(0.1)]}
        bare = evaluated(model, *images, **one)
        assert bare.robust.tolist() == [False, False, False, True]
        for threshold, robust in (
            (0.6, [False, False, False, True]),
            (0.53, [True, True, False, True]),
            (0.49, [True, True, True, True]),
            # Wrong, since it is rejected as it is.
            (0.47, [False, True, True, True]),
        ):
            found = evaluated(model, *images, Left(threshold), **one)
            assert found.robust.tolist() == robust
        assert found.detection.rejected.tolist() == [True, False, False, False]
        assert found.clean_accuracy == 0.75
        # Who knows of it leaves the left alone.
        found = evaluated(model, *images, Left(0.49), eps=0.1)
        assert found.robust.tolist() == bare.robust.tolist()
        assert found.detection.attacked.max() <= 0.49

    @pytest.mark.parametrize(
        ("norm", "eps", "threshold", "robust"),
        [
            # All pixels move, by 0.1 each.
            (1, 0.4, 0.53, [True, True, False, True]),
            # Each goes to its end.
            (0, 4, 0.9, [True, True, True, True]),
        ],
    )
    def test_other_norms_with_attacks_of_ones_own(
        self, norm, eps, threshold, robust, model, images
    ):
        plan = [attacks.FastGradientMethod(eps, norm)]
        one = {"eps": eps, "norm": norm, "plan": plan}
        bare = evaluated(model, *images, **one)
        assert not bare.robust[:3].any()
        found = evaluated(model, *images, Left(threshold), **one)
        assert found.robust.tolist() == robust

    def test_the_curve_over_thresholds(self, model, images):
        found = evaluated(model, *images, Brightness(0.48), eps=0.1)
        curve = found.rejection_curve()
        shares = [point["clean_rejected"] for point in curve]
        assert shares == sorted(shares, reverse=True) and shares[-1] == 0
        assert curve[-1]["threshold"] == found.detection.clean.max()
        told = report.to_json(found)["detection"]
        assert json.loads(json.dumps(told))["curve"] == curve
        assert told["clean_rejected"]["share"] == 0.25
        lines = charts.plot_rejection(found).axes[0].get_lines()
        assert len(lines) == 3
        bare = evaluated(model, *images, eps=0.1)
        assert bare.rejection_curve() == []
        assert report.to_json(bare)["detection"] is None

    def test_the_folder_knows_the_detector(self, model, images, tmp_path):
        given = {"eps": 0.1, "folder": tmp_path / "kept"}
        first = evaluated(model, *images, Brightness(0.48), **given)
        again = evaluated(model, *images, Brightness(0.48), **given)
        assert (first.robust == again.robust).all()
        with pytest.raises(ValueError, match="detector"):
            evaluated(model, *images, Brightness(0.479), **given)


class TestRandomModels:
    """Broken is what is accepted, and wrong in most draws."""

    @pytest.fixture
    def noisy(self, model):
        return keras.Sequential(
            [keras.Input((2, 2, 1)), masks.Noise(0.003), model]
        )

    def test_verdict(self, noisy, images):
        """As without noise, which is a tenth of the smallest margin."""
        one = {"eps": 0.1, "plan": [attacks.FastGradientMethod(0.1)]}
        for threshold, robust in (
            (0.6, [False, False, False, True]),
            (0.53, [True, True, False, True]),
            (0.47, [False, True, True, True]),
        ):
            found = evaluated(noisy, *images, Left(threshold), **one)
            assert found.settings["chance"]
            assert found.robust.tolist() == robust
        # The last one rejects the first image as it is.
        assert found.answers.clean[0] == found.answers.attacked[0] == 0
        assert found.answers.mean_accuracy == 0.75
        assert found.clean_accuracy == 0.75
        # Who knows of it leaves the left alone.
        found = evaluated(noisy, *images, Left(0.49), eps=0.1)
        assert found.robust.tolist() == [False, False, False, True]
        assert found.detection.attacked.max() <= 0.49

    def test_a_sure_attack_goes_on_behind_the_boundary(self, trained, digits):
        x, y = digits.x_test[::100], digits.y_test[::100]
        kwargs = {"detector": Brightness(0.6), "nb_iter": 40}
        kwargs |= {"loss": "margin", "early_stop": True, "direction": "sum"}
        shares = []
        for confidence in (0.0, 0.2):
            attack = attacks.DetectorEvasion(
                0.3, confidence=confidence, **kwargs
            )
            x_adv = attack.generate(trained["none"], x, y, verbose=0)
            z = np.asarray(trained["none"](x_adv))
            rest = np.where(np.eye(10)[y], -np.inf, z).max(1)
            lead = rest - z[np.arange(len(y)), y]
            shares.append(lead / np.ptp(z, 1))
        stopped, sure = shares
        assert (stopped > 0).all() and np.median(stopped) < 0.2
        assert (sure >= 0.2).all()

    def test_the_plan_does_what_an_attack_by_hand_does(self, trained, digits):
        """Noise before the network, and squeezing beside it without any."""
        network = trained["none"]
        x, y = digits.x_test[::20], digits.y_test[::20]
        squeezers = recommended_squeezers("mnist")
        detector = masks.squeezing(network, digits, squeezers)
        noise = masks.Noise(0.1)
        noisy = keras.Sequential([keras.Input((28, 28, 1)), noise, network])
        found = evaluated(noisy, x, y, detector, eps=0.1)
        by_hand = adaptive(network, detector, x, y, 0.1)
        assert found.robust_accuracy <= by_hand + 0.02
        # Or the detector would be no matter.
        plain = attacks.EOT(attacks.ProjectedGradientDescent(0.1), 8)
        plain = evaluated(noisy, x, y, detector, eps=0.1, plan=[plain])
        assert plain.robust_accuracy > found.robust_accuracy + 0.05
        # What broke an image is accepted, and wrong in most draws of its own.
        broken = found.correct & ~found.robust
        x_adv, draws = found.x_adv[broken], 100
        assert not detector.detect(x_adv).any()
        right = [
            np.asarray(noisy(x_adv)).argmax(-1) == y[broken]
            for _ in range(draws)
        ]
        assert (np.mean(right, 0) < 0.5 + 3 * 0.5 / draws**0.5).all()


class TestModelDetector:
    @pytest.mark.parametrize("axes", [(1, 2, 3), (1, 2)])
    def test_is_a_detector_when_it_comes_back(self, axes, images, tmp_path):
        """Of scores of shape (images,) or (images, 1)."""
        image = keras.Input((2, 2, 1))
        model = keras.Model(image, keras.ops.mean(image, axes))
        model.save(tmp_path / "score.keras")
        model = keras.models.load_model(tmp_path / "score.keras")
        x = np.random.default_rng(0).random((40, 2, 2, 1), "float32")
        detector = ModelDetector(model, 0.1).fit(x)
        bright = x.mean((1, 2, 3))
        np.testing.assert_allclose(detector.score(x), bright, rtol=1e-6)
        assert detector.detect(x).sum() == 4
        again = pickle.loads(pickle.dumps(detector))
        np.testing.assert_array_equal(again.detect(x), detector.detect(x))
        shape = x.shape[1:]
        assert again.fingerprint(shape) == detector.fingerprint(shape)

    def test_is_evaded_as_any_other(self, model, images):
        image = keras.Input((2, 2, 1))
        score = keras.ops.mean(image[:, :, 0], (1, 2))
        detector = ModelDetector(keras.Model(image, score))
        detector.threshold = 0.49
        found = evaluated(model, *images, detector, eps=0.1)
        same = evaluated(model, *images, Left(0.49), eps=0.1)
        assert found.robust.tolist() == same.robust.tolist()
        assert found.detection.attacked.max() <= 0.49

    def test_refuses(self, model):
        with pytest.raises(TypeError, match="a Keras model.*subclass"):
            ModelDetector(tf.reduce_mean)
        with pytest.raises(ValueError, match="one score.*keras.ops.max"):
            ModelDetector(model)
        with pytest.raises(ValueError, match="not built"):
            ModelDetector(keras.Sequential([keras.layers.Dense(1)]))
        score = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        with pytest.raises(ValueError, match="false_positive_rate"):
            ModelDetector(score, 1.0)

    def test_takes_models_that_say_no_shape(self):
        class Scores(keras.Model):
            def __init__(self, axes):
                super().__init__()
                self.axes = axes

            def call(self, x):
                return keras.ops.mean(x, self.axes)

        x = np.random.default_rng(0).random((4, 2, 2, 1), "float32")
        scores, others = Scores((1, 2, 3)), Scores((2, 3))
        scores(x), others(x)
        np.testing.assert_allclose(
            ModelDetector(scores).score(x), x.mean((1, 2, 3)), rtol=1e-6
        )
        with pytest.raises(ValueError, match="one score for each image"):
            ModelDetector(others).score(x)


class TestEvasion:
    @pytest.mark.parametrize("direction", ["sum", "selective", "orthogonal"])
    def test_directions(self, model, direction):
        """Of a linear model and a linear score: known in closed form."""
        attack = attacks.DetectorEvasion(
            0.3, detector=Brightness(0.4), direction=direction, loss="margin"
        )
        f = np.array([0.5, -0.5, 0.5, -0.5])
        d = np.full(4, -0.5)
        expected = {
            "sum": (f + d, f + d),
            "selective": (f, d),
            "orthogonal": (f, d),
        }[direction]
        x = np.array([[0.4, 0.6, 0.4, 0.6], [0.6, 0.4, 0.6, 0.4]], "float32")
        seen = attack.seen(KerasModelWrapper.of(model))
        gradient, _ = attack._gradient(
            seen,
            tf.constant(x.reshape(2, 2, 2, 1)),
            tf.zeros(2, "int32"),
            False,
        )
        np.testing.assert_allclose(
            gradient.numpy().reshape(2, 4), expected, atol=1e-6
        )

    def test_orthogonal_leaves_the_other_alone(self, model):
        attack = attacks.DetectorEvasion(0.3, detector=Left(0.4), loss="margin")
        x = tf.constant([[0.4, 0.6, 0.4, 0.6], [0.6, 0.4, 0.6, 0.4]])
        gradient, _ = attack._gradient(
            attack.seen(KerasModelWrapper.of(model)),
            tf.reshape(x, [2, 2, 2, 1]),
            tf.zeros(2, "int32"),
            False,
        )
        toward, away = gradient.numpy().reshape(2, 4)
        # The score is of the left pixels, the margin of all.
        np.testing.assert_allclose(toward[[0, 2]], 0, atol=1e-6)
        assert (toward[[1, 3]] < -0.1).all()
        assert abs(away @ [1, -1, 1, -1]) < 1e-6 and away[0] < -0.1


class TestWorkers:
    def test_a_detector_travels(self, trained, digits):
        detector = masks.squeezing(trained["none"], digits)
        again = pickle.loads(pickle.dumps(detector))
        x = digits.x_test[:8]
        assert again.threshold == detector.threshold
        np.testing.assert_allclose(again.score(x), detector.score(x), atol=1e-6)

    def test_the_same_from_two_processes(self, model, images):
        x = np.concatenate([images[0]] * 3)
        x = np.pad(x, [(0, 0), (0, 2), (0, 0), (0, 0)])[:, :2]
        y = np.zeros(len(x), int)
        detector = FeatureSqueezingDetector(model, [MedianSmoothing(2)])
        detector.threshold = 0.2
        given = {"eps": 0.1, "batch_size": 4}
        alone = evaluated(model, x, y, detector, **given)
        two = evaluated(model, x, y, detector, workers=2, **given)
        assert (alone.robust == two.robust).all()
        assert (alone.x_adv == two.x_adv).all()

    def test_what_cannot_travel_is_refused(self, model, images):
        class Local(Brightness):
            pass

        with pytest.raises(ValueError, match="workers=1"):
            evaluated(model, *images, Local(0.6), eps=0.1, workers=2)


def test_refuses(model, images):
    class Pixels(Brightness):
        def call(self, x):
            return x[:, 0, 0]

    class Broken(Brightness):
        def call(self, x):
            return super().call(x) / 0.0 * 0.0

    class Dice(Brightness):
        def call(self, x):
            return tf.random.uniform(tf.shape(x)[:1])

    class Other(Brightness):
        def call(self, x):
            return tf.reduce_mean(
                tf.ensure_shape(x, [None, 3, 3, 1]), [1, 2, 3]
            )

    for detector, error, said in (
        (0.5, TypeError, "must be a `Detector`.*subclass"),
        (Brightness(), ValueError, "must have a threshold.*`fit"),
        (Brightness(np.nan), ValueError, "must have a threshold"),
        (Pixels(0.5), ValueError, r"one score for each image.*\(4, 1\)"),
        (Broken(0.5), ValueError, "Scores must be finite.*division"),
        (Dice(0.5), ValueError, "same image the same score.*seeds"),
        (Other(0.5), ValueError, "must give scores of these images.*3"),
        (Detector(), ValueError, "must have a threshold"),
    ):
        with pytest.raises(error, match=f"(?s){said}"):
            evaluated(model, *images, detector, eps=0.1)
    with pytest.raises(
        ValueError, match="`norm` must be np.inf or 2 for a named plan.*`plan`"
    ):
        evaluated(model, *images, Brightness(0.6), eps=1, norm=1)
    with pytest.raises(ValueError, match="one legitimate image.*none"):
        Brightness().fit(images[0][:0])
    with pytest.raises(ValueError, match="`direction` must be one of"):
        attacks.DetectorEvasion(detector=Brightness(0.6), direction="up")


def test_the_ten_lines_of_the_documentation_run(trained, digits, monkeypatch):
    page = (ROOT / "docs/detectors.rst").read_text()
    (block,) = re.findall(r"code-block:: python\n\n(.*?)\n(?=\S)", page, re.S)
    few = {"x_test": digits.x_test[::50], "y_test": digits.y_test[::50]}
    few = digits._replace(x_train=digits.x_train[::10], **few)
    monkeypatch.setattr(qsn.datasets, "load", {"digits": few}.__getitem__)
    evaluate = functools.partial(
        evaluate_robustness, plan="quick", checks=None, verbose=0
    )
    monkeypatch.setattr(qsn.evaluation, "evaluate_robustness", evaluate)
    names = {"model": trained["none"]}
    exec(compile(textwrap.dedent(block), "detectors.rst", "exec"), names)
    evaluation = names["evaluation"]
    assert 0 < evaluation.detection.rejected.mean() < 0.3
    assert evaluation.robust_accuracy < 0.1
    # All but the setting up, which any program of this library has.
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
