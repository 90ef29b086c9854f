"""MART: its formula in NumPy, classifiers and attacks of every kind."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import LOSS
from conftest import small_cnn
from conftest import softmax
from keras_qsn.attacks import CubeAttack
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.layers import ConstantQuantization
from keras_qsn.training import MART
from keras_qsn.training import QuSecNet
from keras_qsn.training.objectives.mart import runner_up_miss


def linear(rng):
    """Three classes of five pixels."""
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.set_weights(
        [rng.normal(size=(5, 3)), np.array([0.3, -0.2, 0.1], "float32")]
    )
    return model


def test_a_step_is_the_formula():
    """Loss, examples and update of a linear model, in NumPy."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.2, 0.8, (6, 5)).astype("float32")
    y, weight = np.arange(6) % 3, np.arange(1.0, 7.0) / 4
    beta, rate, rows = 3.0, 0.5, np.arange(6)
    model = linear(rng)
    w, b = (v.astype("float64") for v in model.get_weights())
    net = QuSecNet(model, MART(FastGradientMethod(0.1), beta))
    net.compile(keras.optimizers.SGD(rate), LOSS)
    history = net.fit(
        x, y, sample_weight=weight, batch_size=6, shuffle=False, verbose=0
    ).history

    p, own = softmax(x @ w + b), np.eye(3)[y]
    x_adv = x + 0.1 * np.sign((p - own) @ w.T)
    q = softmax(x_adv @ w + b)
    runner_up = (q - 2 * own).argmax(1)
    taken, q_k = np.eye(3)[runner_up], q[rows, runner_up]
    boosted = -np.log(q[rows, y]) - np.log(1 - q_k)
    log = np.log(p / q)
    divergence, missed = (p * log).sum(1), 1 - p[rows, y]
    loss = (weight * (boosted + beta * divergence * missed)).mean()
    assert history["loss"] == [pytest.approx(loss, rel=1e-5)]
    right = (q.argmax(1) == y).mean()
    assert history["adv_accuracy"] == [pytest.approx(right)]
    # d KL / d z = p (log p/q - KL), d KL / d z' = q - p, d p_j / d z =
    # p_j (e_j - p).
    share, apart, missed = (
        v[:, None] for v in (weight / 6, divergence, missed)
    )
    d_adv = q - own + (q_k / (1 - q_k))[:, None] * (taken - q)
    d_adv += beta * missed * (q - p)
    d_clean = missed * p * (log - apart)
    d_clean -= apart * p[rows, y][:, None] * (own - p)
    d_clean *= beta
    d_w = x.T @ (share * d_clean) + x_adv.T @ (share * d_adv)
    d_b = (share * (d_clean + d_adv)).sum(0)
    found = model.get_weights()
    np.testing.assert_allclose(found[0], w - rate * d_w, atol=1e-5)
    np.testing.assert_allclose(found[1], b - rate * d_b, atol=1e-5)


def test_being_sure_of_another_class_is_not_rounded():
    """1 - p_k in float64, where float32 has a p_k of 1."""
    logits = np.array([[0.0, 30.0, 1.0], [0.0, 2.0, 60.0], [9.0, 0.0, 0.0]])
    labels = np.array([0, 1, 0])
    log_p = tf.nn.log_softmax(tf.constant(logits, tf.float32))
    p = softmax(logits)
    rest = [p[0, [0, 2]], p[1, [0, 1]], p[2, [0, 2]]]
    found = runner_up_miss(log_p, tf.constant(labels))
    wanted = np.log([part.sum() for part in rest])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("columns, activation", [(1, "sigmoid"), (10, None)])
def test_any_classifier(data, columns, activation):
    x, y = data
    y = y % 2 if columns == 1 else y
    model = small_cnn(num_classes=columns)
    model.add(keras.layers.Activation(activation or "softmax"))
    net = QuSecNet(model, MART(FastGradientMethod(0.1)))
    loss = "binary" if columns == 1 else "sparse_categorical"
    net.compile("adam", f"{loss}_crossentropy", metrics=["accuracy"])
    history = net.fit(x, y, epochs=2, verbose=0).history
    assert set(history) == {"loss", "accuracy", "adv_accuracy"}
    assert np.isfinite(history["loss"]).all()
    # What is compiled sees the examples.
    assert history["accuracy"] == history["adv_accuracy"]


def test_a_quantized_network_under_the_cube_attack(data):
    """With a fixed threshold the examples are the attack's own."""
    x, y = data
    model = small_cnn(ConstantQuantization(2, hard=True))
    before = model.get_weights()
    attack = CubeAttack(0.3, nb_iter=2, nb_restarts=1)
    net = QuSecNet(model, MART(attack))
    net.compile(keras.optimizers.SGD(0.0), LOSS)
    history = net.fit(x, y, batch_size=64, shuffle=False, verbose=0).history
    for new, old in zip(model.get_weights(), before):
        np.testing.assert_array_equal(new, old)
    found = (net.wrapper.predict(attack.generate(model, x, y)) == y).mean()
    assert history["adv_accuracy"] == [pytest.approx(found)]


def test_refuses():
    with pytest.raises(ValueError, match="`beta` must be a finite number abov"):
        MART(FastGradientMethod(0.1), 0.0)
    with pytest.raises(TypeError, match="`attack` must be a"):
        MART("pgd")
