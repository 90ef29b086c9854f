"""Quantization-aware training and the int8 file, against NumPy and LiteRT."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.networks import network as network_of
from conftest import input_gradient
from conftest import small_cnn
from keras_qsn._core.tracing import replaced
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.deployment import FakeQuantActivations
from keras_qsn.deployment import FakeQuantWeights
from keras_qsn.deployment import calibrate
from keras_qsn.deployment import export_litert
from keras_qsn.deployment import fake_quant
from keras_qsn.deployment import load_litert
from keras_qsn.deployment import quantization_aware
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import TrainableQuantization
from keras_qsn.models import KerasModelWrapper
from keras_qsn.training import QuSecNet

layers = keras.layers


def residual_network():
    """Each kind of layer that there is an integer kernel for."""
    inputs = x = keras.Input((28, 28, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.7)(x)
    x = skip = layers.AveragePooling2D(2)(layers.ReLU()(x))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.7)(x))
    x = layers.BatchNormalization(momentum=0.7)(layers.Conv2D(8, 1)(x))
    x = layers.ReLU(6.0)(x + skip)
    x = layers.MaxPooling2D(2)(layers.Conv2D(16, 3, activation="relu")(x))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def compiled(model):
    model.compile(
        keras.optimizers.Adam(5e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


@pytest.fixture(scope="module")
def network(digits):
    """A network with statistics of its own in batch normalization."""
    keras.utils.set_random_seed(0)
    model = compiled(residual_network())
    model.fit(digits.x_train[:2000], digits.y_train[:2000], verbose=0)
    return model


@pytest.fixture
def twin(network, digits):
    return quantization_aware(network, digits.x_train[:200])


def rounded(x, low, high, bits):
    """Affine quantization by its formula, in float64."""
    step = (high - low) / (2**bits - 1)
    zero = np.floor(0.5 - low / step)
    q = np.floor(np.asarray(x, "float64") / step + 0.5) + zero
    return step * (np.clip(q, 0, 2**bits - 1) - zero)


class TestActivations:
    @pytest.mark.parametrize("bits", [8, 4, 2])
    def test_against_numpy(self, bits):
        layer = FakeQuantActivations(bits)
        layer.build((None, 7))
        layer.set_range(-1.3, 2.9)
        x = np.random.default_rng(0).uniform(-3, 4, (50, 7)).astype("float32")
        expected = rounded(x, np.float32(-1.3), np.float32(2.9), bits)
        np.testing.assert_allclose(layer(x), expected, atol=1e-6)
        assert len(np.unique(layer(x))) == 2**bits or bits == 8

    def test_a_range_of_one_point_is_finite(self):
        layer = FakeQuantActivations()
        layer.build((None, 2))
        layer.set_range(0, 0)
        found = layer(np.float32([[0.0, -1.0]]))
        np.testing.assert_array_equal(found, [[0, 0]])

    def test_gradient_is_straight_through_inside_of_the_range(self):
        layer = FakeQuantActivations()
        layer.build((None, 4))
        layer.set_range(-1, 2)
        x = np.float32([[-1.5, -0.7, 0.31, 2.5]])
        gradient = input_gradient(layer, x, tf.constant([[3.0, 4.0, 5.0, 6.0]]))
        np.testing.assert_array_equal(gradient, [[0, 4, 5, 0]])
        inside = input_gradient(layer.surrogate, x)
        np.testing.assert_array_equal(inside, [[0, 1, 1, 0]])

    def test_ranges_move_in_training_alone(self):
        layer = FakeQuantActivations(momentum=0.75)
        x = np.float32([[1.0, 4.0]])
        layer(x, training=False)
        assert (float(layer.low), float(layer.high)) == (-6, 6)
        layer(x, training=True)
        # 0 is in the range of every batch.
        assert (float(layer.low), float(layer.high)) == (-4.5, 5.5)
        layer.trainable = False
        layer(x, training=True)
        assert float(layer.high) == 5.5

    def test_averages_are_rounded_as_integers(self):
        layer = FakeQuantActivations()
        layer.build((None, 6))
        layer.set_range(-1.28, 1.27)
        q = np.float32([-100.5, -0.5, 0.5, 99.5, 0.25, -0.75])
        # Half away from zero; in float32 a half is hardly met.
        y = np.asarray(layer(0.01 * q[None] + 1e-7, averages=True))
        np.testing.assert_allclose(y[0] * 100, [-101, -1, 1, 100, 0, -1], 1e-4)

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="whole number from 2 to 8"):
            FakeQuantActivations(bits=9)
        with pytest.raises(ValueError, match="`momentum` must be"):
            FakeQuantActivations(momentum=1.5)


class TestWeights:
    @pytest.mark.parametrize("bits", [8, 4, 2])
    @pytest.mark.parametrize(
        ("layer", "shape"),
        [
            (layers.Conv2D(4, 3, strides=2), (2, 7, 7, 3)),
            (layers.DepthwiseConv2D(3, depth_multiplier=2), (2, 7, 7, 3)),
            (layers.Dense(5), (2, 6)),
        ],
        ids=["convolution", "depthwise", "dense"],
    )
    def test_against_numpy(self, layer, shape, bits):
        layer = type(layer).from_config(layer.get_config())
        x = np.random.default_rng(0).random(shape, "float32")
        wrapped = FakeQuantWeights(layer, bits=bits)
        found = wrapped(x)
        kernel = layer.kernel.numpy()
        channels = kernel.reshape(-1, np.shape(found)[-1])
        step = abs(channels).max(0) / (2 ** (bits - 1) - 1)
        levels = np.round(channels / step)
        assert len(np.unique(levels)) <= 2**bits - 1
        layer.kernel.assign((step * levels).reshape(kernel.shape))
        np.testing.assert_allclose(found, layer(x), atol=1e-5)

    def test_gradient_is_straight_through(self):
        wrapped = FakeQuantWeights(layers.Dense(2), bits=2)
        x = tf.constant([[1.0, 2.0, 3.0]])
        wrapped.build(x.shape)
        with tf.GradientTape() as tape:
            y = wrapped(x)
        kernel, bias = tape.gradient(y, wrapped.trainable_weights)
        np.testing.assert_array_equal(kernel, [[1, 1], [2, 2], [3, 3]])
        np.testing.assert_array_equal(bias, [1, 1])

    @pytest.mark.parametrize("options", [{}, {"center": False, "scale": False}])
    @pytest.mark.parametrize(
        "layer",
        [
            layers.Conv2D(6, 3),
            layers.Conv2D(6, 3, use_bias=False),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
        ],
        ids=["bias", "no bias", "depthwise"],
    )
    def test_folded_batch_normalization_is_that_of_floats(self, layer, options):
        layer = type(layer).from_config(layer.get_config())
        rng = np.random.default_rng(0)
        batch_norm = layers.BatchNormalization(**options)
        wrapped = FakeQuantWeights(layer, batch_norm)
        wrapped.build((None, 5, 5, 3))
        for weight in batch_norm.weights:
            weight.assign(rng.uniform(0.5, 2, weight.shape))
        x = rng.random((4, 5, 5, 3), "float32")
        wrapped.rounded = lambda kernel: kernel
        expected = batch_norm(layer(x), training=False)
        np.testing.assert_allclose(wrapped(x), expected, atol=1e-5)

    def test_rounding_before_the_scaling_is_rounding_after_it(self):
        """So training, with the batch's statistics, needs one product."""
        wrapped = FakeQuantWeights(
            layers.Conv2D(3, 2), layers.BatchNormalization(momentum=0.0)
        )
        x = np.random.default_rng(0).random((8, 5, 5, 2), "float32")
        y = wrapped(x, training=True)
        # The moving statistics are now the batch's.
        np.testing.assert_allclose(y, wrapped(x), atol=1e-4)

    def test_wrong_arguments(self):
        with pytest.raises(TypeError, match="must be a `Conv2D`"):
            FakeQuantWeights(layers.ReLU())
        with pytest.raises(ValueError, match="must have no activation"):
            FakeQuantWeights(layers.Dense(2, activation="relu"))


class TestTwin:
    def test_trains_and_loads_as_usual(self, twin, network, digits, tmp_path):
        x, y = digits.x_test[:500], digits.y_test[:500]
        before = compiled(twin).evaluate(x, y, verbose=0)[1]
        plain = network.evaluate(x, y, verbose=0)[1]
        assert abs(before - plain) <= 0.02
        twin.fit(digits.x_train[:1000], digits.y_train[:1000], verbose=0)
        loss, after = twin.evaluate(x, y, verbose=0)
        assert after > before
        twin.save(tmp_path / "twin.keras")
        again = keras.models.load_model(tmp_path / "twin.keras")
        assert again.evaluate(x, y, verbose=0) == [loss, after]
        # The network it was made of has not changed.
        assert network.evaluate(x, y, verbose=0)[1] == plain

    def test_a_quantizer_at_the_input_stays(self, digits):
        model = small_cnn(ConstantQuantization(2, hard=True))
        twin = quantization_aware(model, digits.x_train[:100])
        wrapper = KerasModelWrapper(twin)
        assert len(wrapper.quantizers) == 1
        assert wrapper.value_range == (0, 1)
        expected = model.predict(digits.x_test[:50], verbose=0)
        found = wrapper.logits(digits.x_test[:50])
        assert abs(found - expected).max() < 0.05 * np.ptp(expected)

    def test_few_bits_leave_image_and_output_at_eight(self, network, digits):
        x = digits.x_train[:100]
        twin = quantization_aware(network, x, weight_bits=4, activation_bits=2)
        kinds = FakeQuantActivations, FakeQuantWeights
        first, *middle, last = [
            (layer.bits, type(layer))
            for layer in twin.layers
            if isinstance(layer, kinds)
        ]
        assert first[0] == last[0] == 8
        assert {bits for bits, kind in middle if kind is kinds[0]} == {2}
        assert {bits for bits, kind in middle if kind is kinds[1]} == {4}

    def test_adversarial_training(self, twin, digits):
        before = [w.numpy() for w in twin.trainable_weights]
        net = compiled(QuSecNet(twin, FastGradientMethod(eps=0.1)))
        history = net.fit(digits.x_train[:256], digits.y_train[:256], verbose=0)
        assert np.isfinite(history.history["adv_accuracy"][0])
        for old, new in zip(before, twin.trainable_weights):
            assert not np.array_equal(old, new)

    def test_names_of_inner_models_and_uses_may_be_the_same(self):
        relu = layers.ReLU(name="relu")
        parts = [
            keras.Sequential(
                [
                    keras.Input((6, 6, 2)),
                    layers.Conv2D(2, 1, kernel_initializer="ones", name="it"),
                ]
            )
            for _ in range(2)
        ]
        inputs = x = keras.Input((6, 6, 2))
        for part in parts:
            x = relu(part(x))
        # The name of what is made behind a convolution.
        x = layers.Flatten(name="relu_rounded")(x)
        model = keras.Model(inputs, layers.Dense(3)(x))
        x = np.random.default_rng(0).random((16, 6, 6, 2), "float32")
        twin = quantization_aware(model, x)
        expected = np.asarray(model(x))
        error = abs(np.asarray(twin(x)) - expected).max()
        assert error < 0.05 * np.ptp(expected)
        assert len({layer.name for layer in twin.layers}) == len(twin.layers)

    @pytest.mark.parametrize("first", [True, False])
    def test_what_batch_normalization_shares_is_refused(self, first):
        inputs = keras.Input((4,))
        x = layers.Dense(4)(inputs)
        if first:
            others = [layers.ReLU()(x), layers.BatchNormalization()(x)]
        else:
            others = [layers.BatchNormalization()(x), layers.ReLU()(x)]
        model = keras.Model(inputs, layers.Dense(3)(layers.Add()(others)))
        with pytest.raises(ValueError, match="must go nowhere else"):
            quantization_aware(model, np.zeros((2, 4), "float32"))

    def test_images_of_any_size_are_refused(self):
        inputs = keras.Input((None, None, 1))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs))
        model = keras.Model(inputs, layers.Dense(3)(x))
        with pytest.raises(ValueError, match="images of one size"):
            quantization_aware(model, np.zeros((2, 8, 8, 1), "float32"))

    def test_a_softmax_stays_at_the_end(self, digits):
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Flatten(),
                layers.Dense(10, activation="softmax"),
            ]
        )
        x = digits.x_test[:50]
        twin = quantization_aware(
            keras.Sequential([keras.Input((28, 28, 1)), model]), x
        )
        np.testing.assert_allclose(twin(x), model(x), atol=0.02)
        logits = KerasModelWrapper(twin).logits(x)
        np.testing.assert_allclose(tf.nn.softmax(logits), twin(x), atol=1e-6)

    def test_ranges_of_images(self, twin, digits):
        x = digits.x_train[:70]
        calibrate(twin, x / 2, batch_size=32)
        assert float(twin.layers[1].high) == x.max() / 2
        with pytest.raises(
            ValueError, match="what `quantization_aware` return"
        ):
            calibrate(small_cnn(), x)
        with pytest.raises(ValueError, match=r"Received: x.shape=\(70, 28"):
            calibrate(twin, x[..., 0])

    @pytest.mark.parametrize(
        ("inner", "error", "says"),
        [
            ([layers.LayerNormalization()], TypeError, "LayerNormalization"),
            ([layers.Dense(4, activation="tanh")], TypeError, "Activation"),
            ([layers.BatchNormalization()], ValueError, "right behind"),
            ([layers.Softmax(), layers.Dense(3)], TypeError, "the last layer"),
            ([layers.Dense(4)] * 2, ValueError, "used twice"),
            ([layers.Dense(4, dtype="bfloat16")], ValueError, "in float32"),
        ],
    )
    def test_what_has_no_integer_kernel_is_refused(self, inner, error, says):
        inputs = x = keras.Input((4,))
        for layer in inner:
            x = layer(x)
        model = keras.Model(inputs, layers.Dense(3)(x))
        with pytest.raises(error, match=says):
            quantization_aware(model, np.zeros((2, 4), "float32"))


def test_biases_are_on_the_grid_of_the_products():
    """By their formula, in float64; a channel of zeros has no grid."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 4)).astype("float32")
    kernel[:, 3] = 0
    bias = rng.normal(size=4).astype("float32")
    steps = 0.01 * abs(kernel[:, :3].astype("float64")).max(0) / 127
    wanted = [*(steps * np.round(bias[:3] / steps)), bias[3]]
    variable = tf.Variable(bias)
    with tf.GradientTape() as tape:
        found = fake_quant.biases(variable, tf.constant(kernel), 0.01, 8)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert (found.numpy() != bias)[:3].all()
    np.testing.assert_array_equal(tape.gradient(found, variable), np.ones(4))
    dense = layers.Dense(4)
    layer = FakeQuantWeights(dense)
    layer.build((None, 5))
    dense.set_weights([kernel, bias])
    zero = np.zeros((1, 5), "float32")
    np.testing.assert_array_equal(layer(zero)[0], bias)
    np.testing.assert_allclose(layer(zero, step=0.01)[0], wanted, rtol=1e-6)
    # Few bits are no file's: their grid would be far too coarse.
    few = FakeQuantWeights(dense, bits=4)
    np.testing.assert_array_equal(few(zero, step=0.01)[0], bias)


def resnet():
    """Sums of two ranges, and shortcuts that are projected or not."""
    inputs = x = keras.Input((14, 14, 8))
    for filters in (8, 16):
        strides = filters // 8
        y = layers.Conv2D(filters, 3, strides, "same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        name = "second" if filters == 8 else None
        y = layers.Conv2D(filters, 3, padding="same", name=name)(y)
        if x.shape[-1] != filters:
            x = layers.Conv2D(filters, 1, strides)(x)
        x = layers.Add()([x, y])
        if filters == 8:
            x = layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


class TestFile:
    def test_computes_what_the_twin_does(self, twin, network, digits, tmp_path):
        compiled(twin).fit(
            digits.x_train[:1000], digits.y_train[:1000], verbose=0
        )
        export_litert(twin, tmp_path / "twin.tflite")
        found = load_litert(tmp_path / "twin.tflite")(digits.x_test)
        expected = twin.predict(digits.x_test, verbose=0)
        step = float(twin.layers[-1].high - twin.layers[-1].low) / 255
        assert len(found) == 1000
        error = abs(found - expected)
        assert error.max() < 1.5 * step
        # Biases are rounded as the kernels', or one in twenty would be off.
        assert (error > 0.5 * step).mean() < 0.005
        same = found.argmax(1) == expected.argmax(1)
        assert same.mean() > 0.98

    @pytest.mark.parametrize("dead", [False, True])
    def test_products_and_sums_are_the_files_to_the_bit(self, dead, tmp_path):
        model = resnet()
        # Bytes: none of them halfway between two levels.
        x = np.random.default_rng(0).integers(0, 256, (200, 14, 14, 8)) / 255
        if dead:
            # One channel of zeros: its bias is all.
            second = [q for q in model.layers if isinstance(q, layers.Conv2D)][
                1
            ]
            kernel, bias = second.get_weights()
            kernel[..., 1], bias[1] = 0, 0.3
            second.set_weights([kernel, bias])
        twin = quantization_aware(model, x[:100])
        export_litert(twin, tmp_path / "twin.tflite")
        found = load_litert(tmp_path / "twin.tflite")(x)
        expected = twin.predict(x, verbose=0)
        step = float(twin.layers[-1].high - twin.layers[-1].low) / 255
        assert len(np.unique(np.round(expected / step))) > 50
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * step)

    def test_gradients_are_those_of_the_product_of_floats(self, twin, digits):
        x = tf.constant(digits.x_test[:20])
        weighted = [q for q in twin.layers if isinstance(q, FakeQuantWeights)]
        exact = input_gradient(lambda x: twin(x, training=False), x)
        with replaced(weighted, "exact", FakeQuantWeights.in_floats):
            floats = input_gradient(lambda x: twin(x, training=False), x)
        assert abs(exact).max() > 0
        # Where a value is at the end of its range, one has it outside.
        far = abs(exact - floats) > 1e-3 * abs(floats).max()
        assert far.mean() < 0.01

    def test_behind_a_soft_quantizer_and_with_integer_ends(
        self, digits, tmp_path
    ):
        x = digits.x_test[:200]
        path = tmp_path / "twin.tflite"
        for quantizer in (ConstantQuantization(2), None):
            twin = quantization_aware(
                small_cnn(quantizer), digits.x_train[:100]
            )
            step = float(twin.layers[-1].high - twin.layers[-1].low) / 255
            export_litert(twin, path, integer_ends=quantizer is None)
            network = load_litert(path, batch_size=64)
            assert network.output_shape == (10,)
            error = abs(network(x) - twin.predict(x, verbose=0))
            assert error.max() < 1.5 * step

    @pytest.mark.parametrize("bias", [0.0, -1e6], ids=["halfway", "dead"])
    def test_degenerate_ranges(self, bias, tmp_path):
        """Zero halfway between two levels, or nothing but zero."""
        keras.utils.set_random_seed(0)
        bias = keras.initializers.Constant(bias)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                ConstantQuantization(4, hard=True),
                layers.Rescaling(2.0, -1.0),
                layers.Flatten(),
                layers.Dense(
                    8,
                    "relu",
                    bias_initializer=bias,
                ),
                layers.Dense(3, bias_initializer="ones"),
            ]
        )
        x = np.random.default_rng(0).random((32, 8, 8, 1), "float32")
        twin = quantization_aware(model, x)
        export_litert(twin, tmp_path / "twin.tflite")
        found = load_litert(tmp_path / "twin.tflite")(x)
        step = float(twin.layers[-1].high - twin.layers[-1].low) / 255
        np.testing.assert_allclose(found, twin(x), rtol=0, atol=0.01 * step)
        np.testing.assert_allclose(twin(x), model(x), atol=0.1)

    def test_wrong_arguments(self, twin, network, tmp_path, digits):
        with pytest.raises(ValueError, match="without fake quantization"):
            export_litert(network, tmp_path / "it.tflite")
        few = quantization_aware(network, digits.x_train[:20], bits=4)
        with pytest.raises(ValueError, match="the file holds 8 bits"):
            export_litert(few, tmp_path / "it.tflite")
        behind = small_cnn(ConstantQuantization(2))
        behind = quantization_aware(behind, digits.x_train[:20])
        with pytest.raises(ValueError, match="the image must be rounded first"):
            export_litert(behind, tmp_path / "it.tflite", integer_ends=True)
        with pytest.raises(ValueError, match="must end in '.tflite'"):
            export_litert(twin, tmp_path / "it.keras")
        (tmp_path / "bad.tflite").write_bytes(b"nothing")
        with pytest.raises(ValueError, match="must be a LiteRT network"):
            load_litert(tmp_path / "bad.tflite")
        with pytest.raises(FileNotFoundError):
            load_litert(tmp_path / "none.tflite")


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [("paper", TrainableQuantization()), ("resnet20", ConstantQuantization(2))],
    ids=["paper", "resnet20"],
)
def test_networks_of_the_paper_and_of_he(name, quantizer, tmp_path, digits):
    """Files of a quarter of the size, whose scores are the twin's."""
    model = network_of(name, (28, 28, 1), quantizer, seed=0)
    x = digits.x_test[::5]
    twin = quantization_aware(model, digits.x_train[:100])
    export_litert(twin, tmp_path / "twin.tflite")
    error = load_litert(tmp_path / "twin.tflite")(x) - twin.predict(
        x, verbose=0
    )
    step = float(twin.layers[-1].high - twin.layers[-1].low) / 255
    assert abs(error).max() < 1.5 * step
    size = (tmp_path / "twin.tflite").stat().st_size
    assert size <= 0.3 * 4 * model.count_params()
