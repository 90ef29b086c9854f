"""Inner layers in fewer bits: what is rounded, where, and for whom."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn._core import precision
from keras_qsn._core.precision import low_precision
from keras_qsn.layers import QuantLayer
from keras_qsn.models import cleverhans_cnn


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Layer):
    """A layer of the user's own."""

    def call(self, inputs):
        return 2 * inputs


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            QuantLayer(2, 5.0),
            keras.layers.Conv2D(4, 3, activation="relu"),
            Doubled(),
            keras.layers.BatchNormalization(),
            keras.Sequential(
                [keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
            ),
            keras.layers.Dense(3, name="logits"),
            keras.layers.Softmax(),
        ]
    )


X = tf.random.stateless_uniform((4, 8, 8, 1), (0, 0))


def dtypes(model, x=X):
    """What each layer returns, called one after the other."""
    found = {}
    for layer in model.layers:
        x = layer(x)
        found[type(layer).__name__] = x.dtype.name
    return found


def test_what_is_rounded():
    model = network()
    exact = model(X)
    with low_precision(model, "bfloat16"):
        assert dtypes(model) == {
            "QuantLayer": "float32",
            "Conv2D": "bfloat16",
            "Doubled": "float32",
            "BatchNormalization": "bfloat16",
            "Sequential": "bfloat16",
            "Dense": "float32",
            "Softmax": "float32",
        }
        rounded = model(X)
    error = np.abs(rounded - exact).max()
    assert 1e-6 < error < 0.05
    assert {*dtypes(model).values()} == {"float32"}
    np.testing.assert_array_equal(model(X), exact)


def test_gradients_and_weights_stay_float32():
    model = cleverhans_cnn(seed=0)
    x = tf.random.stateless_uniform((4, 28, 28, 1), (0, 0))

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(model(x) ** 2)
        return tape.gradient(loss, [x, *model.trainable_weights])

    exact = gradients()
    with low_precision(model, "bfloat16"):
        rounded = gradients()
    for one, other in zip(exact, rounded):
        assert other.dtype == one.dtype == tf.float32
        size = np.linalg.norm(one)
        assert np.linalg.norm(other - one) < 0.1 * size


def test_other_threads_compute_as_they_did():
    model, seen = network(), {}
    inside, done = threading.Event(), threading.Event()

    def hold():
        with low_precision(model, "bfloat16"):
            seen["holding"] = dtypes(model)["Conv2D"]
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(30)
    assert dtypes(model)["Conv2D"] == "float32"
    with low_precision(model, "float16"):
        assert dtypes(model)["Conv2D"] == "float16"
        done.set()
        thread.join()
        # The other one's end is not this one's.
        assert dtypes(model)["Conv2D"] == "float16"
    assert seen["holding"] == "bfloat16"
    assert dtypes(model)["Conv2D"] == "float32"


def test_an_error_inside_leaves_the_model_as_it_was():
    model = network()
    policies = [layer.dtype_policy for layer in model.layers]
    with pytest.raises(KeyError), low_precision(model, "bfloat16"):
        raise KeyError
    assert [layer.dtype_policy for layer in model.layers] == policies


def test_a_policy_of_ones_own_is_obeyed():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, dtype="float64"),
            keras.layers.Dense(4),
            keras.layers.Dense(3),
        ]
    )
    with low_precision(model, "bfloat16"):
        outputs = [layer.compute_dtype for layer in model.layers]
    assert outputs == ["float64", "bfloat16", "float32"]


def test_layers_of_layers_compute_as_they_are():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 6)),
            layers.Conv1D(4, 3),
            layers.GRU(4, return_sequences=True),
            layers.Bidirectional(layers.LSTM(3)),
            layers.Dense(5),
            layers.Dense(3),
        ]
    )
    x = tf.random.stateless_uniform((2, 8, 6), (0, 0))
    with low_precision(model, "bfloat16"):
        assert dtypes(model, x) == {
            "Conv1D": "bfloat16",
            "GRU": "float32",
            "Bidirectional": "float32",
            "Dense": "float32",
        }


def test_one_product_has_nothing_inside():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    with low_precision(model, "bfloat16"):
        assert model(np.ones((1, 6))).dtype == tf.float32


def test_the_faster_type_is_measured_once(monkeypatch):
    times = iter(range(99))
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(times))
    precision.fast_dtype.cache_clear()
    # Each product takes one tick.
    assert precision.fast_dtype() == "float32"
    monkeypatch.setattr(precision.time, "perf_counter", None)
    assert precision.fast_dtype() == "float32"
    precision.fast_dtype.cache_clear()
