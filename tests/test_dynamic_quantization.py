"""Dynamic quantization activation, against its formula in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import input_gradient
from keras_qsn.defenses import DynamicQuantizationActivation
from keras_qsn.evaluation import surrogates
from keras_qsn.evaluation.threat_model import ThreatModel
from keras_qsn.models import KerasModelWrapper


def activations(shape=(4, 7), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def layer_with(thresholds, **kwargs):
    """A layer of these thresholds in (-1, 1)."""
    bits = int(np.log2(len(thresholds) + 1))
    layer = DynamicQuantizationActivation(bits, **kwargs)
    layer.build((None, 7))
    unit = (np.array(thresholds, "float32") + 1) / 2
    layer.thresholds.assign(unit[None])
    return layer


def signs(x, thresholds):
    """The docstring's formula."""
    steps = np.where(x[..., None] >= thresholds, 1.0, -1.0)
    return steps.sum(-1) / len(thresholds)


@pytest.mark.parametrize("bits", range(1, 9))
def test_is_the_mean_of_signs(bits):
    levels = 2**bits
    thresholds = -1 + 2 * np.arange(1, levels) / levels
    x = activations((50, 7))
    y = DynamicQuantizationActivation(bits)(x).numpy()
    np.testing.assert_allclose(y, signs(x, thresholds), atol=1e-6)
    assert len(np.unique(y)) <= levels


def test_one_bit_is_the_sign():
    x = np.array([[-3.0, -1e-6, 0.0, 1e-6, 0.5, 40.0]], "float32")
    y = DynamicQuantizationActivation()(x)
    np.testing.assert_array_equal(y, [[-1, -1, 1, 1, 1, 1]])


def test_thresholds_that_have_moved_to_the_ends():
    thresholds = [-1.0, 0.25, 1.0]
    x = np.array([[-2, -1.0000001, -1, 0.9999999, 1, 1.5, 9]], "float32")
    y = layer_with(thresholds)(x)
    np.testing.assert_allclose(y, signs(x, thresholds), atol=1e-6)


@pytest.mark.parametrize("gradient", ["signum", "straight_through"])
@pytest.mark.parametrize("training", [False, True])
def test_gradient_of_the_input(gradient, training):
    layer = DynamicQuantizationActivation(2, gradient=gradient)
    x, upstream = activations(), activations(seed=1)
    found = input_gradient(lambda x: layer(x, training=training), x, upstream)
    masked = gradient == "signum" and not training
    expected = 0 * upstream if masked else upstream * (np.abs(x) <= 1)
    np.testing.assert_array_equal(found, expected)


def test_gradient_of_the_thresholds():
    layer = layer_with([-0.4, 0.1, 0.3], steepness=6.0)
    x, upstream = activations(), activations(seed=1)
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
    found = tape.gradient(y, layer.thresholds.value, upstream).numpy()[0]
    for threshold, slope in zip([-0.4, 0.1, 0.3], found):
        # Steepness is per width, 2, and so is the weight.
        s = 1 / (1 + np.exp(-3 * (x.astype("float64") - threshold)))
        expected = -2 / 3 * (3 * s * (1 - s) * upstream).sum() * 2
        assert slope == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("trainable", [False, True])
def test_thresholds_are_trained_or_not(trainable):
    layer = DynamicQuantizationActivation(2, trainable_thresholds=trainable)
    model = keras.Sequential([keras.Input((7,)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    before = layer.thresholds.numpy()
    model.fit(activations((32, 7)), np.ones(32), verbose=0)
    after = layer.thresholds.numpy()
    assert np.array_equal(before, after) != trainable
    assert (after >= 0).all() and (after <= 1).all()


def test_layers_in_front_are_trained():
    dense = keras.layers.Dense(5)
    model = keras.Sequential(
        [
            keras.Input((7,)),
            dense,
            DynamicQuantizationActivation(),
            keras.layers.Dense(1),
        ]
    )
    before = dense.kernel.numpy()
    model.compile("sgd", "mse")
    model.fit(activations((32, 7)), np.ones(32), verbose=0)
    assert not np.array_equal(before, dense.kernel.numpy())


@pytest.mark.parametrize("gradient", ["signum", "straight_through"])
def test_an_evaluation_takes_its_surrogate(gradient):
    """Where its own gradient does not tell what happens."""
    model = keras.Sequential(
        [
            keras.Input((7,)),
            DynamicQuantizationActivation(gradient=gradient, name="dqa"),
            keras.layers.Dense(3),
        ]
    )
    x = np.random.default_rng(0).random((8, 7), "float32")
    threat = ThreatModel(0.3, np.inf)
    wrapper = KerasModelWrapper(model)
    found = surrogates.surrogates_of(wrapper, x, threat, {}, None, {})
    words = {"layer": "dqa", "gradient": "zero"}
    words["surrogate"] = "the layer's own"
    assert found.masks == ((words,) if gradient == "signum" else ())


@pytest.mark.parametrize("bits", [0, 9, 1.5, -1])
def test_refuses_other_bits(bits):
    with pytest.raises(ValueError, match="`bits` must be a whole number"):
        DynamicQuantizationActivation(bits)


def test_refuses_other_settings():
    with pytest.raises(ValueError, match="`gradient` must be one of"):
        DynamicQuantizationActivation(gradient="exact")
    for steepness in (0, -1, np.inf):
        with pytest.raises(ValueError, match="`steepness` must be a finite"):
            DynamicQuantizationActivation(steepness=steepness)
