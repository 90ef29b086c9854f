"""Superimposing: what is mixed, its loss in NumPy, where draws come from."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from conftest import LOSS
from conftest import small_cnn
from conftest import softmax
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.training import AdversarialTraining
from keras_qsn.training import ConsistencyTraining
from keras_qsn.training import Objective
from keras_qsn.training import QuSecNet
from keras_qsn.training.objectives.consistency import beta
from keras_qsn.training.objectives.consistency import superimpose


class TestSuperimpose:
    def test_a_share_of_another_image_of_the_batch(self):
        x = np.eye(7, dtype="float32").reshape(7, 7, 1, 1)
        mixed = superimpose(tf.constant(x), 0.3, [3, 5]).numpy()[..., 0, 0]
        # Of each image is left 0.7, and 0.3 is of one, each of them once.
        partners = mixed - 0.7 * np.eye(7)
        np.testing.assert_allclose(np.sort(partners)[:, :-1], 0, atol=1e-6)
        np.testing.assert_allclose(partners.max(1), 0.3, atol=1e-6)
        assert len({*partners.argmax(1)}) == 7
        again = superimpose(tf.constant(x), 0.3, [3, 6]).numpy()[..., 0, 0]
        assert (again != mixed).any()

    @pytest.mark.parametrize("a, b", [(2, 10), (1, 1), (5, 2)])
    def test_shares_are_of_the_beta_distribution(self, a, b):
        drawn = beta(a, b, 4000, [1, 2]).numpy()
        assert stats.kstest(drawn, stats.beta(a, b).cdf).pvalue > 0.01
        other = stats.beta(a + 1, b).cdf
        assert stats.kstest(drawn, other).pvalue < 1e-6

    def test_a_share_is_drawn_for_each_image(self):
        x = tf.eye(50)
        mixed = superimpose(x, (2, 10), [0, 0]).numpy()
        shares = 1 - np.diag(mixed)
        assert len(np.unique(np.round(shares[shares > 0], 5))) > 40
        np.testing.assert_allclose(mixed.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_a_step_is_the_formula(stop_gradient):
    """Loss and update of a linear model, in NumPy."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (6, 5)).astype("float32")
    y, sample_weight = np.arange(6) % 3, np.arange(1.0, 7.0) / 4
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.set_weights([rng.normal(size=(5, 3)), np.zeros(3)])
    w, b = (v.astype("float64") for v in model.get_weights())
    weight, rate = 4.0, 0.5
    objective = ConsistencyTraining(
        weight, stop_gradient=stop_gradient, seed=11
    )
    net = QuSecNet(model, objective)
    net.compile(keras.optimizers.SGD(rate), LOSS)
    history = net.fit(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=6,
        shuffle=False,
        verbose=0,
    ).history

    mixed = superimpose(tf.constant(x), (2, 10), [11, 0]).numpy()
    p, q = softmax(x @ w + b), softmax(mixed @ w + b)
    log = np.log(p / q)
    apart = (p * log).sum(1)
    clean = -np.log(p[np.arange(6), y])
    loss = (sample_weight * (clean + weight * apart)).mean()
    assert history["loss"] == [pytest.approx(loss, rel=1e-5)]
    # d KL / d z = p (log p/q - KL), d KL / d z' = q - p.
    d_clean = p - np.eye(3)[y]
    if not stop_gradient:
        d_clean += weight * p * (log - apart[:, None])
    d_mixed = weight * (q - p)
    share = sample_weight[:, None] / 6
    d_w = x.T @ (share * d_clean) + mixed.T @ (share * d_mixed)
    d_b = (share * (d_clean + d_mixed)).sum(0)
    found = model.get_weights()
    np.testing.assert_allclose(found[0], w - rate * d_w, atol=1e-5)
    np.testing.assert_allclose(found[1], b - rate * d_b, atol=1e-5)


class Passes(Objective):
    """Counts the calls of the network while a step is traced."""

    def __init__(self):
        self.calls = []

    def outputs(self, forward):
        self.calls.append(1)
        return forward()


def test_takes_one_more_forward_pass(digits):
    counts = []
    for more in ([], [ConsistencyTraining()]):
        passes = Passes()
        net = QuSecNet(small_cnn(), [passes, *more])
        net.compile("sgd", LOSS, run_eagerly=True)
        x, y = digits.x_train[:8], digits.y_train[:8]
        net.fit(x, y, batch_size=8, verbose=0)
        counts.append(len(passes.calls))
    assert counts == [1, 2]


def test_of_what_an_attack_has_made(digits):
    x, y = digits.x_train[:64], digits.y_train[:64]
    mixed = AdversarialTraining(FastGradientMethod(0.1))
    net = QuSecNet(small_cnn(), [mixed, ConsistencyTraining(alpha=0.3)])
    net.compile("adam", LOSS)
    history = net.fit(x, y, verbose=0).history
    assert set(history) == {"loss", "adv_accuracy"}
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"weight": 0}, "`weight` must be a finite number above 0"),
        ({"alpha": 0.0}, "`alpha` must lie between 0 and 1"),
        ({"alpha": 1.0}, "`alpha` must lie between 0 and 1"),
        ({"alpha": (2, 0)}, "`alpha` must be a whole number of at least 1"),
        ({"alpha": (0.5, 2)}, "`alpha` must be a whole number of at least 1"),
        ({"alpha": (1, 2, 3)}, "the two numbers of a beta"),
        ({"seed": 0.5}, "`seed` must be a whole number"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        ConsistencyTraining(**settings)
