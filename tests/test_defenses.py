"""Feature squeezing, bounded ReLU, Gaussian augmentation."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from conftest import input_gradient
from conftest import small_cnn
from keras_qsn.attacks import BPDA
from keras_qsn.attacks import CubeAttack
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.classifier.opened import quantizers_of
from keras_qsn.defenses import BitDepthReduction
from keras_qsn.defenses import DynamicQuantizationActivation
from keras_qsn.defenses import FeatureSqueezingDetector
from keras_qsn.defenses import MedianSmoothing
from keras_qsn.defenses import NonLocalMeans
from keras_qsn.defenses import gaussian_augmentation
from keras_qsn.defenses import recommended_squeezers
from keras_qsn.defenses import squeezed
from keras_qsn.defenses import with_bounded_relu
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper
from keras_qsn.models import cleverhans_cnn

SQUEEZERS = [
    BitDepthReduction(3, steepness=20.0, gradient="exact"),
    BitDepthReduction(2, value_range=(0, 2)),
    MedianSmoothing((3, 2)),
    NonLocalMeans(5, 3, 20.0),
]
LAYERS = [
    *SQUEEZERS,
    DynamicQuantizationActivation(2, False, "straight_through", 5.0),
]
IDS = ["bits", "range", "median", "means", "activation"]


def images(shape=(3, 9, 8, 3), dtype="float32"):
    return np.random.default_rng(0).random(shape).astype(dtype)


def reloaded(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
class TestContract:
    def model(self, layer):
        again = type(layer).from_config(layer.get_config())
        return keras.Sequential([keras.Input((9, 8, 3)), again])

    def test_config_survives_json(self, layer):
        config = json.loads(json.dumps(layer.get_config()))
        again = type(layer).from_config(config)
        assert again.get_config() == layer.get_config()

    def test_registered_with_the_package_name(self, layer):
        registered = keras.saving.get_registered_name(type(layer))
        assert registered == f"keras_qsn>{type(layer).__name__}"

    def test_save_and_load(self, layer, tmp_path):
        model, x = self.model(layer), images()
        again = reloaded(model, tmp_path)
        np.testing.assert_array_equal(model(x), again(x))
        assert again.layers[0].get_config() == model.layers[0].get_config()

    def test_export_to_saved_model(self, layer, tmp_path):
        model, x = self.model(layer), images()
        model.export(tmp_path / "served", verbose=False)
        served = tf.saved_model.load(tmp_path / "served")
        np.testing.assert_allclose(served.serve(x), model(x), atol=1e-6)

    def test_compiled_as_eager(self, layer):
        model, x = self.model(layer), images()
        y, gradient = model(x), input_gradient(model, x)
        for jit in (False, True):
            compiled = tf.function(model, jit_compile=jit, autograph=False)
            np.testing.assert_allclose(compiled(x), y, atol=1e-6)
            np.testing.assert_allclose(
                input_gradient(compiled, x), gradient, rtol=1e-4, atol=1e-4
            )

    def test_mixed_precision(self, layer):
        mixed = type(layer).from_config(
            {**layer.get_config(), "dtype": "mixed_float16"}
        )
        x = images()
        assert mixed(x).dtype == tf.float16
        np.testing.assert_allclose(mixed(x), layer(x), atol=2e-3)

    def test_images_of_unknown_size(self, layer):
        again = type(layer).from_config(layer.get_config())
        inputs = keras.Input((None, None, 3))
        model = keras.Model(inputs, again(inputs))
        assert model.output_shape == (None, None, None, 3)
        for shape in ((2, 9, 8, 3), (1, 12, 7, 3)):
            x = images(shape)
            np.testing.assert_allclose(model(x), layer(x), atol=1e-6)


class TestBitDepthReduction:
    @pytest.mark.parametrize("bits", range(1, 9))
    def test_rounds_all_grey_levels_as_numpy(self, bits):
        x = (np.arange(256) / 255).astype("float32")[None]
        steps = 2**bits - 1
        y = BitDepthReduction(bits)(x).numpy() * steps
        expected = np.round(x.astype("float64") * steps)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        np.testing.assert_array_equal(np.rint(y), expected)

    def test_no_grey_level_is_a_tie(self):
        for bits in range(1, 9):
            doubled = 2 * np.arange(256) * (2**bits - 1)
            assert not ((doubled % 255 == 0) & (doubled // 255 % 2 == 1)).any()

    def test_a_tie_goes_up(self):
        assert BitDepthReduction(1)(np.array([[0.5]], "float32")) == 1.0
        assert np.round(0.5) == 0.0

    def test_eight_bits_change_no_image(self):
        x = (np.arange(256) / 255).astype("float32")[None]
        np.testing.assert_allclose(BitDepthReduction(8)(x), x, atol=1e-7)

    def test_value_range(self):
        x = images((4, 6)) * 255
        layer = BitDepthReduction(2, value_range=(0, 255))
        expected = np.round(x / 85) * 85
        np.testing.assert_allclose(layer(x), expected, rtol=1e-6)

    @pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3), (2, 2, 5, 4, 1)])
    def test_any_rank_shares_its_thresholds(self, shape):
        layer, x = BitDepthReduction(2), images(shape)
        np.testing.assert_allclose(layer(x), np.round(x * 3) / 3, rtol=1e-6)
        assert layer.thresholds.shape == (*[1] * (len(shape) - 1), 3)
        assert layer.trainable_variables == []

    def test_gradients(self):
        x = images((2, 5))
        upstream = np.arange(10, dtype="float32").reshape(2, 5)
        identity = input_gradient(BitDepthReduction(2), x, upstream)
        np.testing.assert_array_equal(identity, upstream)
        exact = BitDepthReduction(2, steepness=9.0, gradient="exact")
        slope = 0
        for threshold in (1 / 6, 1 / 2, 5 / 6):
            s = 1 / (1 + np.exp(-9 * (x - threshold)))
            slope = slope + 9 * s * (1 - s) / 3
        np.testing.assert_allclose(
            input_gradient(exact, x, upstream), slope * upstream, rtol=1e-5
        )

    @pytest.mark.parametrize("bits", [0, 9, 1.5, -1])
    def test_refuses_other_bits(self, bits):
        with pytest.raises(ValueError, match="`bits` must be a whole number"):
            BitDepthReduction(bits)


class TestMedianSmoothing:
    @pytest.mark.parametrize(
        "size", [1, 2, 3, 5, (2, 3), (4, 1), (1, 4)], ids=str
    )
    @pytest.mark.parametrize("ties", [False, True])
    def test_is_scipys(self, size, ties):
        x = images((2, 7, 6, 3))
        x = np.round(x * 3) / 3 if ties else x
        pair = np.broadcast_to(size, 2)
        expected = ndimage.median_filter(x, (1, *pair, 1), mode="reflect")
        np.testing.assert_array_equal(MedianSmoothing(size)(x), expected)

    @pytest.mark.parametrize("size", [2, 3])
    def test_gradient_goes_to_the_pixel_selected(self, size):
        x = images((1, 6, 5, 1))
        upstream = np.arange(30, dtype="float32").reshape(x.shape)
        median = ndimage.median_filter(x, (1, size, size, 1), mode="reflect")
        selected = median.reshape(-1, 1) == x.reshape(1, -1)
        np.testing.assert_array_equal(
            input_gradient(MedianSmoothing(size), x, upstream).ravel(),
            upstream.ravel() @ selected,
        )

    def test_gradient_of_equal_pixels_goes_to_one_of_them(self):
        x = np.zeros((1, 6, 5, 1), "float32")
        upstream = np.ones_like(x)
        upstream[0, 3, 3] = 100
        gradient = input_gradient(MedianSmoothing(3), x, upstream)
        assert gradient.sum() == upstream.sum()
        assert (gradient == np.rint(gradient)).all() and gradient.max() >= 100

    @pytest.mark.parametrize("size", [0, (3, 0), 2.5])
    def test_refuses_other_sizes(self, size):
        with pytest.raises(ValueError, match="`size` must be a whole number"):
            MedianSmoothing(size)

    def test_refuses_three_sizes(self):
        with pytest.raises(ValueError, match=r"`size` must be an integer or"):
            MedianSmoothing((2, 2, 2))

    def test_refuses_inputs_that_are_no_images(self):
        with pytest.raises(ValueError, match="expects images of shape"):
            MedianSmoothing(2)(images((3, 20)))
        with pytest.raises(ValueError, match="at least 3x3 pixels"):
            MedianSmoothing(7)(images((1, 2, 9, 1)))
        assert MedianSmoothing(7)(images((1, 3, 3, 1))).shape == (1, 3, 3, 1)


def means_by_loops(x, search_window, patch_size, strength):
    """The docstring's formula, pixel by pixel."""
    reach, border = search_window // 2, patch_size // 2
    margin = reach + border
    padded = np.pad(
        x, [(0, 0), (margin, margin), (margin, margin), (0, 0)], "reflect"
    )
    y = np.empty_like(x)

    def patch(image, row, column):
        rows = slice(row - border, row + border + 1)
        return image[rows, column - border : column + border + 1]

    for n, row, column in np.ndindex(x.shape[:3]):
        image, total, weights = padded[n], 0.0, 0.0
        here = row + margin, column + margin
        steps = range(-reach, reach + 1)
        for down, right in itertools.product(steps, steps):
            there = here[0] + down, here[1] + right
            distance = np.mean(
                (patch(image, *here) - patch(image, *there)) ** 2
            )
            weight = np.exp(-distance / (strength / 255) ** 2)
            total, weights = total + weight * image[there], weights + weight
        y[n, row, column] = total / weights
    return y


class TestNonLocalMeans:
    @pytest.mark.parametrize(
        "window, patch, strength, channels",
        [(5, 3, 60, 3), (3, 5, 90, 1), (5, 1, 30, 2), (1, 3, 20, 1)],
    )
    def test_is_its_formula(self, window, patch, strength, channels):
        x = images((2, 7, 6, channels), "float64")
        layer = NonLocalMeans(window, patch, strength, dtype="float64")
        expected = means_by_loops(x, window, patch, strength)
        np.testing.assert_allclose(layer(x), expected, rtol=1e-12)

    def test_the_papers_settings_in_float32(self):
        x = images((1, 11, 10, 3)) * 0.05
        expected = means_by_loops(x.astype("float64"), 13, 3, 4)
        assert np.abs(expected - x).max() > 0.01
        np.testing.assert_allclose(
            NonLocalMeans(13, 3, 4)(x), expected, atol=1e-6
        )

    def test_endless_strength_is_the_mean_of_the_window(self):
        x = images()
        expected = ndimage.uniform_filter(x, (1, 5, 5, 1), mode="mirror")
        np.testing.assert_allclose(
            NonLocalMeans(5, 3, 1e6)(x), expected, atol=1e-5
        )

    def test_little_strength_changes_nothing(self):
        x = images()
        np.testing.assert_allclose(NonLocalMeans(5, 3, 0.1)(x), x, atol=1e-7)

    def test_gradient_is_that_of_finite_differences(self):
        x = images((1, 6, 5, 2), "float64")
        layer = NonLocalMeans(5, 3, 60, dtype="float64")
        upstream = np.random.default_rng(1).random(x.shape)
        gradient = input_gradient(layer, x, upstream)
        for place in [(0, 0, 0, 0), (0, 3, 2, 1), (0, 5, 4, 0), (0, 1, 4, 1)]:
            step = np.zeros_like(x)
            step[place] = 1e-5
            change = np.sum(upstream * (layer(x + step) - layer(x - step)))
            np.testing.assert_allclose(
                gradient[place], change / 2e-5, rtol=1e-6
            )

    def test_refuses(self):
        for argument in ("search_window", "patch_size"):
            with pytest.raises(ValueError, match=f"`{argument}` must be odd"):
                NonLocalMeans(**{argument: 4})
        for strength in (0, -1, np.inf, np.nan):
            with pytest.raises(ValueError, match="`strength` must be a finite"):
                NonLocalMeans(strength=strength)
        with pytest.raises(ValueError, match="at least 8x8 pixels"):
            NonLocalMeans(13, 3)(images((1, 7, 9, 1)))


def two_branches():
    """A functional classifier that is no chain of layers."""
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(4, 5, strides=4)(inputs)
    x = keras.layers.Add()([x, keras.layers.ReLU()(x)])
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(10, "softmax")(x))


class TestSqueezed:
    @pytest.mark.parametrize("make", [small_cnn, two_branches])
    @pytest.mark.parametrize("squeezer", SQUEEZERS[:1] + SQUEEZERS[2:])
    def test_is_the_model_of_the_squeezed_image(self, make, squeezer, tmp_path):
        model, x = make(), images((3, 28, 28, 1))
        squeezer = type(squeezer).from_config(squeezer.get_config())
        defended = squeezed(model, squeezer)
        np.testing.assert_array_equal(defended(x), model(squeezer(x)))
        assert defended.layers[1:] == [
            squeezer,
            *(q for q in model.layers if q.name[:5] != "input"),
        ]
        again = reloaded(defended, tmp_path)
        np.testing.assert_array_equal(again(x), defended(x))
        model.layers[-1].kernel.assign(-model.layers[-1].kernel)
        np.testing.assert_array_equal(defended(x), model(squeezer(x)))
        assert np.abs(again(x) - defended(x)).max() > 0.01

    def test_logits_and_quantizer_are_found(self):
        model = squeezed(two_branches(), BitDepthReduction(1))
        wrapper = KerasModelWrapper(model)
        x = images((3, 28, 28, 1))
        np.testing.assert_allclose(wrapper.get_probs(x), model(x), atol=1e-6)
        assert np.abs(np.sum(wrapper(x), 1) - 1).max() > 0.1
        assert quantizers_of(wrapper) == [model.layers[1]]
        assert isinstance(model.layers[1], QuantLayer)

    def test_attacks_go_through_bits(self, trained, digits):
        model = squeezed(trained["none"], BitDepthReduction(1))
        x, y = digits.x_test[:60], digits.y_test[:60]
        clean = np.argmax(model.predict(x, verbose=0), 1) == y
        assert clean.mean() > 0.8
        pgd = ProjectedGradientDescent(eps=0.3, nb_iter=10)
        results = [
            attack.run(model, x, y, verbose=0)
            for attack in (pgd, BPDA(pgd), CubeAttack(eps=0.3, nb_iter=10))
        ]
        for result in results:
            assert np.mean(result.success) > 0.1 + np.mean(~clean)
            assert np.abs(result.x_adv - x).max() <= 0.3 + 1e-6
        # Straight through is BPDA already.
        np.testing.assert_array_equal(results[0].x_adv, results[1].x_adv)

    def test_attacks_go_through_the_median(self, trained, digits):
        model = squeezed(trained["none"], MedianSmoothing(2))
        x, y = digits.x_test[:60], digits.y_test[:60]
        clean = np.argmax(model.predict(x, verbose=0), 1) == y
        pgd = ProjectedGradientDescent(eps=0.3, nb_iter=10)
        result = pgd.run(model, x, y, verbose=0)
        assert clean.mean() > 0.6 and np.mean(result.success) > 0.95
        assert not result.blind.any()
        with pytest.raises(ValueError, match="without one"):
            BPDA(pgd).run(model, x, y)

    def test_refuses(self):
        with pytest.raises(TypeError, match="`squeezer` must be a Keras layer"):
            squeezed(small_cnn(), lambda x: x)
        for model in (keras.Sequential([keras.layers.Dense(2)]), "model"):
            with pytest.raises(ValueError, match="`model` must be a built"):
                squeezed(model, MedianSmoothing(2))
        two = [keras.Input((4,)), keras.Input((4,))]
        model = keras.Model(two, keras.layers.Add()(two))
        with pytest.raises(ValueError, match="with one input"):
            squeezed(model, BitDepthReduction(1))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class TestDetector:
    def test_score_is_the_largest_distance(self):
        x, squeezers = images((7, 28, 28, 1)), recommended_squeezers("mnist")
        logits = small_cnn()
        p = softmax(np.asarray(logits(x)))
        distances = [
            np.abs(p - softmax(np.asarray(logits(s(x))))).sum(1)
            for s in squeezers
        ]
        probabilities = keras.Sequential(
            [*logits.layers, keras.layers.Softmax()]
        )
        probabilities.build((None, 28, 28, 1))
        for model in (logits, probabilities, KerasModelWrapper(logits)):
            for batch_size in (3, 128):
                detector = FeatureSqueezingDetector(
                    model, squeezers, batch_size=batch_size
                )
                np.testing.assert_allclose(
                    detector.score(x), np.max(distances, 0), atol=1e-6
                )

    @pytest.mark.parametrize("rate", [0.0, 0.05, 0.1, 0.3, 0.5, 0.99])
    def test_threshold_is_the_sorted_score_of_the_paper(self, rate):
        detector = FeatureSqueezingDetector(
            small_cnn(), [MedianSmoothing(2)], rate
        )
        rng = np.random.default_rng(0)
        for count in (1, 7, 10, 40, 100):
            scores = rng.permutation(count) / count
            detector.score = lambda x, scores=scores: scores
            # In whole numbers: ceil(N (1 - rate)) - 1.
            percent = round(100 * (1 - rate))
            index = -(-count * percent // 100) - 1
            assert detector.fit(None).threshold == np.sort(scores)[index]
            assert detector.detect(None).sum() == count - 1 - index

    def test_detects_attacks_that_do_not_know_of_it(self, trained, digits):
        model, x, y = trained["none"], digits.x_test, digits.y_test
        detector = FeatureSqueezingDetector(
            model, recommended_squeezers("mnist")
        )
        data = tf.data.Dataset.from_tensor_slices((x[:200], y[:200])).batch(64)
        flagged = detector.fit(data).detect(x[:200])
        assert flagged.dtype == bool and flagged.sum() == 10
        attack = FastGradientMethod(eps=0.2)
        result = attack.run(model, x[200:260], y[200:260], verbose=0)
        found = detector.detect(result.x_adv[result.success])
        assert result.success.sum() > 20
        assert found.mean() > 0.7

    def test_follows_weights_that_change(self):
        model, x = small_cnn(), images((4, 28, 28, 1))
        detector = FeatureSqueezingDetector(model, [BitDepthReduction(1)])
        assert detector.score(x).max() > 0
        model.set_weights([0 * w for w in model.get_weights()])
        assert detector.score(x).max() == 0

    def test_refuses(self):
        model, layers = small_cnn(), [MedianSmoothing(2)]
        x = images((4, 28, 28, 1))
        with pytest.raises(ValueError, match="has no threshold yet. Call `fit"):
            FeatureSqueezingDetector(model, layers).detect(x)
        with pytest.raises(ValueError, match="`squeezers` must hold at least"):
            FeatureSqueezingDetector(model, [])
        with pytest.raises(TypeError, match="`squeezers` must be Keras layers"):
            FeatureSqueezingDetector(model, [np.round])
        for rate in (-0.1, 1.0, np.nan):
            with pytest.raises(ValueError, match="`false_positive_rate` must"):
                FeatureSqueezingDetector(model, layers, rate)
        with pytest.raises(ValueError, match="`batch_size` must be"):
            FeatureSqueezingDetector(model, layers, batch_size=0)
        with pytest.raises(ValueError, match=r"`x` must lie in \[0.0, 1.0\]"):
            FeatureSqueezingDetector(model, layers).score(x * 255)

    def test_recommended_squeezers(self):
        means = [
            recommended_squeezers(name)[2].get_config()
            for name in ("cifar10", "imagenet")
        ]
        assert [
            (c["search_window"], c["patch_size"], c["strength"]) for c in means
        ] == [(13, 3, 2.0), (11, 3, 4.0)]
        assert recommended_squeezers("cifar10")[0].bits == 5
        with pytest.raises(ValueError, match="`dataset` must be 'mnist'"):
            recommended_squeezers("svhn")


def relu_everywhere():
    """A model with ReLUs of each kind, also inside layers and models."""
    layers = keras.layers
    inside = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, activation="relu")]
    )
    inputs = keras.Input((4, 6))
    x = layers.TimeDistributed(layers.Dense(6, activation="relu"))(inputs)
    x = layers.SimpleRNN(6, activation="relu")(x)
    x = layers.Add()([layers.Activation("relu")(x), layers.ReLU()(x)])
    x = layers.Dense(6, activation=keras.activations.relu)(inside(x))
    x = layers.ReLU(max_value=6.0)(x)
    return keras.Model(inputs, layers.Dense(3, activation=layers.ReLU())(x))


class TestBoundedReLU:
    def test_is_its_formula(self):
        model = keras.Sequential(
            [
                keras.Input((5,)),
                keras.layers.Dense(7, activation="relu"),
                keras.layers.Dense(6),
                keras.layers.ReLU(),
                keras.layers.Dense(3),
            ]
        )
        x = 4 * images((8, 5))
        a, b, c, d, e, f = model.get_weights()
        hidden = np.clip(np.clip(x @ a + b, 0, 0.7) @ c + d, 0, 0.7)
        assert (hidden == 0.7).any() and (x @ a + b > 0.7).any()
        bounded = with_bounded_relu(model, 0.7)
        assert type(bounded) is keras.Sequential
        np.testing.assert_allclose(bounded(x), hidden @ e + f, atol=1e-5)

    def test_finds_every_relu(self, tmp_path):
        model, x = relu_everywhere(), 50 * images((3, 4, 6))
        before = json.dumps(model.get_config())
        bounded = with_bounded_relu(model, 0.25)
        assert json.dumps(model.get_config()) == before
        text = json.dumps(bounded.get_config())
        assert '"relu"' not in text and text.count('"max_value": 0.25') == 8
        assert float(np.max(bounded(x))) <= 0.25 < float(np.max(model(x)))
        again = reloaded(bounded, tmp_path)
        np.testing.assert_array_equal(again(x), bounded(x))

    def test_a_bound_out_of_reach_changes_nothing(self):
        model, x = relu_everywhere(), images((3, 4, 6))
        bounded = with_bounded_relu(model, 1e9)
        np.testing.assert_allclose(bounded(x), model(x), rtol=1e-5)
        text = json.dumps(bounded.get_config())
        assert text.count('"max_value": 6.0') == 1

    @pytest.mark.parametrize(
        "quantizer", [None, ConstantQuantization(3, hard=True)]
    )
    def test_the_papers_network(self, quantizer, tmp_path):
        model = cleverhans_cnn(quantizer=quantizer, seed=0)
        x, y = images((4, 28, 28, 1)), np.arange(4)
        logits = np.asarray(model(x))
        bounded = with_bounded_relu(model)
        features = keras.Model(bounded.inputs[0], bounded.layers[-2].output)
        assert float(np.max(features(x))) == 1.0
        assert [type(q) for q in bounded.layers] == [
            type(q) for q in model.layers
        ]
        bounded.compile("adam", "sparse_categorical_crossentropy")
        bounded.fit(x, y, verbose=0)
        np.testing.assert_array_equal(model(x), logits)
        again = reloaded(bounded, tmp_path)
        np.testing.assert_array_equal(again(x), bounded(x))
        attack = FastGradientMethod(eps=0.3)
        assert attack.generate(again, x, y, verbose=0).shape == x.shape

    def test_is_not_compiled_and_keeps_the_precision(self):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3, "relu", dtype="mixed_float16"),
                keras.layers.Lambda(lambda x: 2 * x),
            ]
        )
        model.compile("adam", lambda y, p: p)
        bounded = with_bounded_relu(model)
        assert not bounded.compiled
        activation = bounded.layers[0].activation
        assert activation.dtype_policy.name == "mixed_float16"
        assert bounded.layers[0](images((2, 4))).dtype == tf.float16

    def test_refuses(self):
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, activation="tanh")]
        )
        with pytest.raises(ValueError, match="`model` must have a ReLU"):
            with_bounded_relu(model)
        with pytest.raises(TypeError, match="`model` must be a Keras model"):
            with_bounded_relu(lambda x: x)
        for max_value in (0, -1, np.inf, np.nan):
            with pytest.raises(
                ValueError, match="`max_value` must be a finite"
            ):
                with_bounded_relu(small_cnn(), max_value)


class TestGaussianAugmentation:
    def test_order_labels_and_distribution(self):
        x, y = images((50, 20, 20, 1)), np.eye(5)[np.arange(50) % 5]
        x_noisy, y_noisy = gaussian_augmentation(x, y, 0.2, 4, clip=None)
        assert x_noisy.shape == (250, 20, 20, 1)
        np.testing.assert_array_equal(x_noisy[:50], x)
        np.testing.assert_array_equal(y_noisy, np.tile(y, (5, 1)))
        noise = x_noisy.reshape(5, *x.shape)[1:] - x
        assert abs(noise.mean()) < 5 * 0.2 / noise.size**0.5
        assert abs(noise.std() - 0.2) < 5 * 0.2 / (2 * noise.size) ** 0.5
        correlation = np.corrcoef(noise.reshape(4, -1))[~np.eye(4, dtype=bool)]
        assert np.abs(correlation).max() < 0.05

    def test_clips_the_same_noise(self):
        x, y = images((5, 6)), np.arange(5)
        free, _ = gaussian_augmentation(x, y, seed=3, clip=None)
        clipped, labels = gaussian_augmentation(x, y, seed=3)
        np.testing.assert_array_equal(clipped, np.clip(free, 0, 1))
        assert free.min() < 0 and free.max() > 1
        assert clipped.shape == (55, 6) and labels.dtype == y.dtype

    def test_the_seed_alone_decides(self):
        x, y = images((5, 6)), np.arange(5)
        first = gaussian_augmentation(x, y, seed=1)[0]
        np.random.default_rng().random()
        keras.utils.set_random_seed(9)
        np.testing.assert_array_equal(
            first, gaussian_augmentation(x, y, seed=1)[0]
        )
        assert (first != gaussian_augmentation(x, y, seed=2)[0])[5:].any()

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_keeps_dtypes(self, dtype):
        x, y = images((5, 6), dtype), np.arange(5, dtype="uint8")
        x_noisy, y_noisy = gaussian_augmentation(x, y, copies=1)
        assert x_noisy.dtype == dtype and y_noisy.dtype == "uint8"

    def test_nothing_added(self):
        x, y = images((5, 6)), np.arange(5)
        np.testing.assert_array_equal(
            gaussian_augmentation(x, y, copies=0)[0], x
        )
        np.testing.assert_array_equal(
            gaussian_augmentation(x, y, sigma=0, copies=2)[0],
            np.tile(x, (3, 1)),
        )

    def test_refuses(self):
        x, y = images((5, 6)), np.arange(5)
        with pytest.raises(TypeError, match="`x` must hold floating-point"):
            gaussian_augmentation((x * 255).astype("uint8"), y)
        with pytest.raises(ValueError, match="one label for each image"):
            gaussian_augmentation(x, y[:4])
        for sigma in (-0.1, np.inf, np.nan):
            with pytest.raises(ValueError, match="`sigma` must be a finite"):
                gaussian_augmentation(x, y, sigma)
        with pytest.raises(ValueError, match="`copies` must be a whole"):
            gaussian_augmentation(x, y, copies=-1)
        x[2, 3] = np.nan
        for bad in (images((5, 6)) * 255, x):
            with pytest.raises(ValueError, match="`x` must lie in `clip`"):
                gaussian_augmentation(bad, y)
