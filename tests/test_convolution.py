"""FastConv2D is Conv2D, in every case it computes differently or not."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn._core.convolution import FastConv2D
from keras_qsn._core.convolution import fast_convolutions

CASES = [
    case
    for case in itertools.product(
        (8, 9, 11), (2, 4, 8), (1, 2, 4), ("same", "valid"), (1, 3, 20)
    )
    if case[0] >= case[1] >= case[2]
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_values_and_gradients_as_keras(case):
    size, kernel, strides, padding, channels = case
    shape = (2, size, size + 1, channels)
    if size == kernel:
        shape = (2, size, size, channels)
    x = tf.random.stateless_normal(shape, (0, 0))
    upstream = None
    results = []
    weights = None
    for kind in (FastConv2D, keras.layers.Conv2D):
        layer = kind(5, kernel, strides=strides, padding=padding)
        layer.build(shape)
        weights = weights or layer.get_weights()
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        if upstream is None:
            upstream = tf.random.stateless_normal(y.shape, (0, 1))
        sources = [x, *(v.value for v in layer.trainable_variables)]
        results.append([y, *tape.gradient(y, sources, upstream)])
    for fast, stock in zip(*results, strict=True):
        np.testing.assert_allclose(fast, stock, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"strides": 2, "dilation_rate": 1, "groups": 2},
        {"dilation_rate": 2},
        {"strides": (2, 4)},
        {"strides": 3},
    ],
    ids=str,
)
def test_other_arguments_are_left_to_keras(arguments):
    x = tf.random.stateless_normal((2, 16, 16, 2), (0, 0))
    fast = FastConv2D(4, 4, **arguments)
    stock = keras.layers.Conv2D(4, 4, **arguments)
    stock.build(x.shape)
    fast.build(x.shape)
    fast.set_weights(stock.get_weights())
    np.testing.assert_allclose(fast(x), stock(x), atol=1e-5)


def test_unknown_image_size_and_saving(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, None, 1)), FastConv2D(3, 8, strides=2)]
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for size in (8, 21):
        x = tf.random.stateless_normal((1, size, size, 1), (0, 0))
        np.testing.assert_allclose(model(x), again(x), atol=1e-6)


def test_mixed_precision_and_xla():
    x = tf.random.stateless_normal((2, 28, 28, 1), (0, 0))
    layer = FastConv2D(4, 8, strides=2, padding="same", dtype="mixed_float16")
    full = FastConv2D(4, 8, strides=2, padding="same")
    full.build(x.shape)
    layer.build(x.shape)
    layer.set_weights(full.get_weights())

    def gradient(layer, jit_compile):
        @tf.function(jit_compile=jit_compile, autograph=False)
        def run():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
            return tape.gradient(y, x)

        return run()

    assert layer(x).dtype == tf.float16
    np.testing.assert_allclose(
        gradient(full, True), gradient(full, False), atol=1e-4
    )
    np.testing.assert_allclose(
        gradient(layer, False), gradient(full, False), atol=0.05
    )


class Halved(keras.layers.Conv2D):
    """A convolution that computes something else."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel) / 2


def test_stock_layers_are_fast_for_a_while():
    """Also inside other models; subclasses keep what they compute."""
    inner = keras.Sequential([keras.layers.Conv2D(3, 7)])
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(4, 8, strides=2, padding="same"),
            Halved(4, 8, strides=2, padding="same"),
            inner,
        ]
    )
    x = tf.random.stateless_normal((2, 28, 28, 1), (0, 0))

    def gradient_and_operations():
        @tf.function(autograph=False)
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model(x)
            return tape.gradient(y, x)

        concrete = run.get_concrete_function(x)
        return run(x), [op.type for op in concrete.graph.get_operations()]

    stock, stock_operations = gradient_and_operations()
    with pytest.raises(KeyError), fast_convolutions(model):
        fast, operations = gradient_and_operations()
        raise KeyError
    np.testing.assert_allclose(fast, stock, rtol=1e-4, atol=1e-5)
    assert stock_operations.count("Conv2DBackpropInput") == 3
    assert operations.count("DepthToSpace") == 1
    assert operations.count("MatMul") > stock_operations.count("MatMul")
    np.testing.assert_array_equal(gradient_and_operations()[0], stock)
    assert gradient_and_operations()[1] == stock_operations


@pytest.mark.parametrize("kind", [keras.layers.Conv2D, FastConv2D])
def test_rounded_products(kind):
    """What is rounded comes back in the inputs' dtype."""
    model = keras.Sequential([keras.Input((9, 9, 2)), kind(3, 9)])
    x = tf.random.stateless_normal((4, 9, 9, 2), (0, 0))
    exact = model(x)
    with fast_convolutions(model, "bfloat16"):
        rounded = model(x)
    assert rounded.dtype == tf.float32
    error = np.abs(rounded - exact).max()
    assert 1e-4 < error < 2e-2 * np.abs(exact).max()
    np.testing.assert_array_equal(model(x), exact)
