"""Defences of answers: their formulas, models made of them, what voids them."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from conftest import softmax
from keras_qsn import defenses
from keras_qsn.defenses import MAD
from keras_qsn.defenses import AdaptiveMisinformation
from keras_qsn.defenses import LabelsOnly
from keras_qsn.defenses import NoisyAnswers
from keras_qsn.defenses import ReverseSigmoid
from keras_qsn.defenses import RoundedAnswers
from keras_qsn.defenses import TopAnswers
from keras_qsn.defenses import with_defended_answers
from keras_qsn.deployment import quantization_aware
from keras_qsn.losses import ReverseCrossentropy
from keras_qsn.models import KerasModelWrapper
from keras_qsn.training import QuSecNet

ALONE = (
    RoundedAnswers(1),
    TopAnswers(2),
    TopAnswers(2, rest="shared"),
    LabelsOnly(),
    NoisyAnswers(0.3),
    NoisyAnswers(0.3, keep_top=True),
    ReverseSigmoid(),
)
BESIDE = (MAD(0.8), MAD(1.5, keep_top=True), AdaptiveMisinformation(0.5))


def probabilities(images=200, classes=10, scale=3.0, seed=0):
    """Softmax of random scores, sure ones and unsure ones among them."""
    scores = np.random.default_rng(seed).normal(size=(images, classes))
    return softmax(scale * scores).astype("float32")


def told(layer, p, q=None):
    return np.asarray(layer([p, q] if layer.beside else p))


class TestFormulas:
    def test_rounding(self):
        p = np.array([[0.26, 0.26, 0.48], [0.34, 0.33, 0.33]], "float32")
        expected = [[0.3 / 1.1, 0.3 / 1.1, 0.5 / 1.1], [1 / 3] * 3]
        np.testing.assert_allclose(told(RoundedAnswers(1), p), expected, 1e-6)
        # Nothing is left of any class: all have the same.
        np.testing.assert_allclose(
            told(RoundedAnswers(0), p[1:]), [[1 / 3] * 3]
        )

    def test_top_classes(self):
        p = np.array([[0.1, 0.5, 0.15, 0.25], [0.4, 0.4, 0.1, 0.1]], "float32")
        np.testing.assert_allclose(
            told(TopAnswers(2), p),
            [[0, 2 / 3, 0, 1 / 3], [0.5, 0.5, 0, 0]],
            atol=1e-6,
        )
        np.testing.assert_allclose(
            told(TopAnswers(2, rest="shared"), p),
            [[0.125, 0.5, 0.125, 0.25], [0.4, 0.4, 0.1, 0.1]],
            atol=1e-6,
        )
        for rest in ("zero", "shared"):
            np.testing.assert_allclose(told(TopAnswers(4, rest), p), p, 1e-6)

    def test_labels(self):
        p = probabilities()
        np.testing.assert_array_equal(
            told(LabelsOnly(), p), np.eye(10)[p.argmax(1)]
        )
        np.testing.assert_array_equal(
            told(LabelsOnly(), p), told(TopAnswers(1), p)
        )

    def test_reverse_sigmoid(self):
        p = probabilities()
        p64 = np.clip(p.astype("float64"), 1e-6, 1 - 1e-6)
        reverse = 0.5 * np.tanh(0.15 * np.log(p64 / (1 - p64)))
        expected = p - 0.6 * reverse
        expected /= expected.sum(1, keepdims=True)
        np.testing.assert_allclose(
            told(ReverseSigmoid(0.6, 0.3), p), expected, rtol=1e-4
        )
        np.testing.assert_allclose(told(ReverseSigmoid(0.0), p), p, rtol=1e-5)
        # Not monotone: of two probabilities the larger is told as smaller.
        low = told(ReverseSigmoid(), np.array([[0.98, 0.019, 0.001]]))
        lower = told(ReverseSigmoid(), np.array([[0.98, 0.0199, 0.0001]]))
        assert lower[0, 2] > low[0, 2]

    def test_adaptive_misinformation(self):
        p = np.array([[0.9, 0.1], [0.5, 0.5], [0.701, 0.299]], "float32")
        m = np.array([[0.0, 1.0], [0.1, 0.9], [0.0, 1.0]], "float32")
        share = 0.5 - 0.5 * np.tanh(500 * (p.max(1, keepdims=True) - 0.7))
        np.testing.assert_allclose(
            told(AdaptiveMisinformation(0.7), p, m),
            (1 - share) * p + share * m,
            atol=1e-4,
        )
        np.testing.assert_array_equal(
            told(AdaptiveMisinformation(0.7), p, m)[:2], [p[0], m[1]]
        )

    def test_exact_probabilities_of_zero_and_one(self):
        p = np.eye(3, dtype="float32")
        for layer in (*ALONE, *BESIDE):
            y = told(layer, p, np.roll(p, 1, 0))
            assert np.isfinite(y).all()
            np.testing.assert_allclose(y.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("layer", (*ALONE, *BESIDE), ids=lambda q: q.name)
def test_told_are_probabilities(layer):
    p, q = probabilities(), probabilities(seed=1)
    y = told(layer, p, q)
    assert y.shape == p.shape and y.dtype == "float32"
    assert y.min() >= 0
    np.testing.assert_allclose(y.sum(1), 1, atol=1e-5)
    assert abs(y - p).sum(1).max() > 0.01


class TestNoise:
    def test_formula(self):
        p = probabilities(50)
        draws = keras.random.SeedGenerator(1)
        noise = np.asarray(keras.random.normal(p.shape, seed=draws))
        expected = np.maximum(p + 0.3 * noise, 0)
        expected /= expected.sum(1, keepdims=True)
        np.testing.assert_allclose(
            told(NoisyAnswers(0.3, seed=1), p), expected, atol=1e-6
        )

    def test_anew_at_each_answer_and_the_same_by_seed(self):
        p = probabilities(50)
        first, second = NoisyAnswers(seed=1), NoisyAnswers(seed=1)
        a, b = told(first, p), told(first, p)
        assert (abs(a - b).sum(1) > 0).all()
        np.testing.assert_array_equal(a, told(second, p))
        np.testing.assert_array_equal(b, told(second, p))
        assert (told(NoisyAnswers(seed=2), p) != a).any()

    def test_sizes(self):
        p = np.full((4000, 2), 0.5, "float32")
        y = told(NoisyAnswers(0.05), p)
        # About (0.5 + a) / (1 + a + b), less 0.5: (a - b) / 2.
        assert y[:, 0].std() == pytest.approx(0.05 / np.sqrt(2), rel=0.05)
        np.testing.assert_allclose(told(NoisyAnswers(0.0), p), p, rtol=1e-6)

    def test_the_top_class_stays_if_asked(self):
        p = probabilities(scale=1.0)
        loose, kept = NoisyAnswers(0.2), NoisyAnswers(0.2, keep_top=True)
        a, b = told(loose, p), told(kept, p)
        assert (a.argmax(1) != p.argmax(1)).mean() > 0.2
        assert (b.argmax(1) == p.argmax(1)).all()
        # The same values, two of them in other places.
        np.testing.assert_allclose(np.sort(a), np.sort(b), atol=1e-6)

    def test_the_mean_of_answers_tells(self):
        # None so small that the cut at 0 would be met.
        p = probabilities(20, 4, scale=0.2)
        layer = NoisyAnswers(0.05)
        mean = np.mean([told(layer, p) for _ in range(49)], 0)
        one = abs(told(layer, p) - p).sum(1).mean()
        assert abs(mean - p).sum(1).mean() < 0.25 * one


def deviation(v, p, q):
    """The paper's objective, of the last layer's gradients."""
    u, w = v - q, p - q
    u = u / np.linalg.norm(u, axis=-1, keepdims=True)
    return ((u - w / np.linalg.norm(w, axis=-1, keepdims=True)) ** 2).sum(-1)


class TestMAD:
    def test_the_angle_is_that_of_the_last_layers_gradients(self):
        """What a surrogate's weights would follow, by its own gradient."""
        x = np.random.default_rng(0).normal(size=(1, 6)).astype("float32")
        dense = keras.layers.Dense(4)
        dense.build((None, 6))
        p, v = probabilities(2, 4)

        def gradient(target):
            with tf.GradientTape() as tape:
                logs = tf.nn.log_softmax(dense(x))
                value = tf.reduce_sum(target * logs)
            return tape.gradient(value, dense.kernel).numpy().ravel()

        a, b = gradient(v), gradient(p)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        q = softmax(dense(x).numpy())
        assert deviation(v, p, q[0]) == pytest.approx(2 - 2 * cosine, rel=1e-3)

    def test_goes_to_the_best_class_as_far_as_it_may(self):
        p, q = probabilities(50), probabilities(50, seed=1, scale=1.0)
        corners = np.eye(10)
        best = np.array(
            [deviation(corners, u, v).argmax() for u, v in zip(p, q)]
        )
        for eps in (0.3, 1.0, 2.0):
            distance = abs(p - corners[best]).sum(1, keepdims=True)
            share = np.minimum(1, eps / distance)
            np.testing.assert_allclose(
                told(MAD(eps), p, q),
                p + share * (corners[best] - p),
                atol=1e-5,
            )
        np.testing.assert_array_equal(told(MAD(0.0), p, q), p)

    def test_keeps_the_top_class_and_finds_nearly_the_best_mixture(self):
        p, q = probabilities(40, 6), probabilities(40, 6, seed=1, scale=1.0)
        y = told(MAD(2.0, keep_top=True), p, q)
        assert (y.argmax(1) == p.argmax(1)).all()
        subsets = [s for s in itertools.product([0, 1], repeat=6) if any(s)]
        subsets = np.array(subsets, float)
        found, best = [], []
        for answer, u, v in zip(y, p, q):
            own = subsets[subsets[:, u.argmax()] > 0]
            own = own / own.sum(1, keepdims=True)
            best.append(deviation(own, u, v).max())
            found.append(deviation(answer, u, v))
        assert (np.array(found) <= np.array(best) + 1e-3).all()
        assert np.mean(found) > 0.98 * np.mean(best)
        near = told(MAD(0.5, keep_top=True), p, q)
        assert (near.argmax(1) == p.argmax(1)).all()
        assert abs(near - p).sum(1).max() < 0.5 + 1e-5

    def test_the_model_itself_as_surrogate(self):
        p = probabilities()
        for keep_top in (True, False):
            assert np.isfinite(told(MAD(1.0, keep_top), p, p)).all()


class TestModels:
    def test_a_fake_quantized_network_is_defended(self, trained, data):
        """Its last layer rounds the logits: none that makes logits."""
        x = data[0][:16]
        twin = quantization_aware(trained["soft"], x)
        defended = with_defended_answers(twin, RoundedAnswers(1))
        expected = np.asarray(RoundedAnswers(1)(softmax(np.asarray(twin(x)))))
        np.testing.assert_allclose(defended(x), expected, atol=1e-6)

    @pytest.fixture
    def networks(self):
        return small_cnn(), small_cnn()

    @pytest.mark.parametrize(
        "layer", (*ALONE, *BESIDE), ids=lambda layer: layer.name
    )
    def test_tell_what_the_layer_does_and_load(
        self, layer, networks, digits, tmp_path
    ):
        model, other = networks
        x = digits.x_test[:20]
        layer = type(layer).from_config(layer.get_config())
        beside = other if layer.beside else None
        defended = with_defended_answers(model, layer, beside=beside)
        defended.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        # The stream of draws goes on where it was.
        expected = defended.predict(x, verbose=0)
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
        fresh = type(layer).from_config(layer.get_config())
        p, q = (softmax(net.predict(x, verbose=0)) for net in (model, other))
        np.testing.assert_allclose(expected, told(fresh, p, q), atol=1e-4)

    def test_one_after_the_other_on_the_models_layers(self, networks, digits):
        x = digits.x_test[:20]
        model, other = networks
        layers = (MAD(0.5), ReverseSigmoid(), RoundedAnswers(1))
        defended = with_defended_answers(model, *layers, beside=other)
        p, q = (softmax(net.predict(x, verbose=0)) for net in networks)
        p = told(ReverseSigmoid(), told(MAD(0.5), p, q))
        np.testing.assert_allclose(
            defended.predict(x, verbose=0),
            told(RoundedAnswers(1), p),
            atol=1e-5,
        )
        assert {w.path for w in model.weights} <= {
            w.path for w in defended.weights
        }

    def test_models_ending_in_a_softmax_and_nets(self, networks, digits):
        x = digits.x_test[:20]
        model = networks[0]
        soft = keras.Sequential([model, keras.layers.Softmax()])
        expected = with_defended_answers(model, ReverseSigmoid())(x)
        for other in (soft, QuSecNet(model), KerasModelWrapper(model)):
            found = with_defended_answers(other, ReverseSigmoid())(x)
            np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_what_is_told_is_what_attacks_and_thieves_see(
        self, networks, digits
    ):
        x = digits.x_test[:20]
        for layer in (ReverseSigmoid(), LabelsOnly(), RoundedAnswers(1)):
            defended = with_defended_answers(networks[0], layer)
            inside = keras.Sequential([keras.Input((28, 28, 1)), defended])
            for model in (defended, inside):
                wrapper = KerasModelWrapper(model)
                found = softmax(wrapper.logits(x).astype("float64"))
                np.testing.assert_allclose(found, model(x), atol=1e-6)
                assert not wrapper.is_random((28, 28, 1))
        noisy = with_defended_answers(networks[0], NoisyAnswers())
        wrapper = KerasModelWrapper(noisy)
        assert wrapper.is_random((28, 28, 1))
        # Where the stream of draws stands is no other model.
        before = wrapper.fingerprint((28, 28, 1))
        wrapper.predict(x)
        assert wrapper.fingerprint((28, 28, 1)) == before

    def test_the_classifier_behind(self, networks, digits, tmp_path):
        x = digits.x_test[:20]
        layers = (MAD(0.5), NoisyAnswers(), LabelsOnly())
        model, other = networks
        defended = with_defended_answers(model, *layers, beside=other)
        defended.save(tmp_path / "model.keras")
        for found in (
            defenses.undefended(defended),
            defenses.undefended(
                keras.models.load_model(tmp_path / "model.keras")
            ),
        ):
            expected = softmax(model.predict(x, verbose=0))
            np.testing.assert_allclose(found(x), expected, atol=1e-5)
            assert found.count_params() == model.count_params()
        assert defenses.undefended(model) is model
        with pytest.raises(TypeError, match="must be a Keras model"):
            defenses.undefended(None)

    def test_wrong_arguments(self, networks):
        model, other = networks
        with pytest.raises(ValueError, match="at least one defence"):
            with_defended_answers(model)
        with pytest.raises(ValueError, match="here its surrogate"):
            with_defended_answers(model, MAD())
        with pytest.raises(ValueError, match="here none"):
            with_defended_answers(model, LabelsOnly(), beside=other)
        with pytest.raises(TypeError, match="must be a layer of this"):
            with_defended_answers(model, keras.layers.Softmax())
        with pytest.raises(ValueError, match="`num_classes` of the model"):
            with_defended_answers(model, MAD(), beside=small_cnn(None, 3))
        with pytest.raises(TypeError, match="must be a Keras model"):
            with_defended_answers(lambda x: x, LabelsOnly())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RoundedAnswers(-1), "at least 0"),
        (lambda: TopAnswers(0), "at least 1"),
        (lambda: TopAnswers(2, rest="none"), "must be one of"),
        (lambda: TopAnswers(3)(np.ones((2, 2)) / 2), "at most the number of"),
        (lambda: NoisyAnswers(-0.1), ">= 0"),
        (lambda: ReverseSigmoid(1.1), "from 0 to 1"),
        (lambda: ReverseSigmoid(gamma=0.0), "above 0"),
        (lambda: MAD(-1.0), ">= 0"),
        (lambda: MAD()(np.ones((2, 2)) / 2), "must be called on a list"),
        (
            lambda: MAD()([np.ones((2, 2)) / 2, np.ones((2, 3)) / 3]),
            "must have the classes",
        ),
        (lambda: AdaptiveMisinformation(2.0), "from 0 to 1"),
        (lambda: AdaptiveMisinformation(steepness=0.0), "above 0"),
        (lambda: LabelsOnly()(np.ones((2, 1))), "of at least 2 classes"),
        (lambda: LabelsOnly()(np.ones((2, 2, 2))), "of shape"),
    ],
)
def test_wrong_numbers_and_shapes(make, says):
    with pytest.raises(ValueError, match=says):
        make()


class TestReverseCrossentropy:
    def test_formula(self):
        p = probabilities(30)
        labels = p.argmax(1)
        own = p[np.arange(30), labels].astype("float64")
        found = ReverseCrossentropy(reduction=None)(labels, np.log(p))
        np.testing.assert_allclose(found, -np.log(1 - own), rtol=1e-3)

    def test_sure_of_the_class_it_stays_finite(self):
        logits = np.array([[200.0, 0.0, 0.0]], "float32")
        loss = ReverseCrossentropy()
        assert float(loss([0], logits)) == pytest.approx(200 - np.log(2))
        assert float(loss([[1]], logits)) == pytest.approx(0, abs=1e-6)

    def test_trains_a_model_that_is_wrong(self, digits):
        model = small_cnn()
        model.compile(
            keras.optimizers.Adam(3e-3),
            ReverseCrossentropy(),
            metrics=[keras.metrics.SparseCategoricalAccuracy()],
        )
        x, y = digits.x_train[:1000], digits.y_train[:1000]
        model.fit(x, y, epochs=2, verbose=0)
        _, accuracy = model.evaluate(x, y, verbose=0)
        assert accuracy < 0.03

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="labels of shape"):
            ReverseCrossentropy()(np.eye(3), np.eye(3))


def test_all_are_public():
    for layer in (*ALONE, *BESIDE):
        assert getattr(defenses, type(layer).__name__) is type(layer)
