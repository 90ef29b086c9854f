"""DivQAT: its formula in NumPy, and what it does to a network."""

import keras
import numpy as np
import pytest

from conftest import small_cnn
from keras_qsn.deployment import quantization_aware
from keras_qsn.layers import ConstantQuantization
from keras_qsn.training import DivQAT
from keras_qsn.training import QuSecNet

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def log_softmax(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def linear(seed, scale=1.0):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    rng = np.random.default_rng(seed)
    model.set_weights([scale * rng.normal(size=(5, 3)), rng.normal(size=3)])
    return model


def logits_of(model, x):
    return np.asarray(model(x), "float64")


@pytest.mark.parametrize("direction", ["quantized", "float"])
@pytest.mark.parametrize("cap", [16.0, 0.3])
def test_loss_is_the_formula(direction, cap):
    """Weighted; where the cap holds, the step is that of the labels alone."""
    rng = np.random.default_rng(2)
    x = rng.random((6, 5)).astype("float32")
    y, sample_weight = np.arange(6) % 3, np.arange(1.0, 7.0) / 4
    model, original = linear(0), linear(1)
    q = log_softmax(logits_of(model, x))
    p = log_softmax(logits_of(original, x))
    a, b = (q, p) if direction == "quantized" else (p, q)
    apart = np.minimum((np.exp(a) * (a - b)).sum(1), cap)
    assert (apart == cap).any() == (cap < 1)
    wanted = (sample_weight * (-q[np.arange(6), y] - 0.5 * apart)).mean()
    net = QuSecNet(model, DivQAT(original, 0.5, direction, cap))
    net.compile(keras.optimizers.SGD(0.1), LOSS)
    before = [w.numpy() for w in original.weights]
    history = net.fit(
        x, y, sample_weight=sample_weight, batch_size=6, verbose=0
    ).history
    assert history["loss"] == [pytest.approx(wanted, rel=1e-5)]
    for new, old in zip(original.get_weights(), before):
        np.testing.assert_array_equal(new, old)


def test_the_step_follows_the_gradient_of_the_formula():
    """d KL(q || p) / dz = q (log q/p - KL), in float64."""
    rng = np.random.default_rng(2)
    x, y = rng.random((6, 5)).astype("float32"), np.arange(6) % 3
    model, original = linear(0), linear(1)
    w, b = model.get_weights()
    q = log_softmax(logits_of(model, x))
    log = q - log_softmax(logits_of(original, x))
    q = np.exp(q)
    d_z = q - np.eye(3)[y]
    d_z -= 0.5 * q * (log - (q * log).sum(1, keepdims=True))
    net = QuSecNet(model, DivQAT(original, 0.5))
    net.compile(keras.optimizers.SGD(0.1), LOSS)
    net.fit(x, y, batch_size=6, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        model.get_weights()[0], w - 0.1 * x.T @ d_z / 6, atol=1e-5
    )
    np.testing.assert_allclose(
        model.get_weights()[1], b - 0.1 * d_z.mean(0), atol=1e-5
    )


def test_what_the_float_network_rules_out_stays_finite():
    model, original = linear(0), linear(1, scale=1e4)
    x = np.random.default_rng(2).random((6, 5)).astype("float32")
    net = QuSecNet(model, DivQAT(original, 1.0, cap=1e3))
    net.compile(keras.optimizers.SGD(0.1), LOSS)
    history = net.fit(x, np.arange(6) % 3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(model.get_weights()[0]).all()


def trained(digits, original, objective):
    x, y = digits.x_train[:640], digits.y_train[:640]
    twin = quantization_aware(original, x[:100])
    net = QuSecNet(twin, objective)
    net.compile(keras.optimizers.Adam(1e-3), LOSS)
    net.fit(x, y, epochs=3, shuffle=False, verbose=0)
    return twin


def test_answers_move_away_behind_a_quantizer_and_classes_stay(digits):
    original = small_cnn(ConstantQuantization(2))
    net = QuSecNet(original)
    net.compile(keras.optimizers.Adam(5e-3), LOSS)
    net.fit(digits.x_train, digits.y_train, epochs=2, verbose=0)
    x, y = digits.x_test[:300], digits.y_test[:300]
    p = log_softmax(logits_of(original, x))
    twins = {
        name: trained(digits, original, objective)
        for name, objective in {
            "plain": None,
            "none": DivQAT(original, 0.0),
            "some": DivQAT(original, 0.4),
        }.items()
    }
    for a, b in zip(*(twins[name].get_weights() for name in ("plain", "none"))):
        np.testing.assert_array_equal(a, b)
    apart, right = {}, {}
    for name, twin in twins.items():
        q = log_softmax(logits_of(twin, x))
        apart[name] = (np.exp(q) * (q - p)).sum(1).mean()
        right[name] = (q.argmax(1) == y).mean()
    assert apart["some"] > 1.7 * apart["plain"]
    assert right["some"] > right["plain"] - 0.05


def test_refuses():
    original = linear(0)
    with pytest.raises(TypeError, match="Keras model"):
        DivQAT("original")
    with pytest.raises(ValueError, match="`weight` must be"):
        DivQAT(original, -0.1)
    with pytest.raises(ValueError, match="`direction` must be one of"):
        DivQAT(original, direction="both")
    with pytest.raises(ValueError, match="`cap` must be a finite number abov"):
        DivQAT(original, cap=0)
    with pytest.raises(ValueError, match="another model.*quantization_aware"):
        QuSecNet(original, DivQAT(original))
    with pytest.raises(
        ValueError, match="`num_classes` of the model in training, 10"
    ):
        QuSecNet(small_cnn(), DivQAT(original))
