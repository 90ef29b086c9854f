"""The contract of objectives: order, what they may ask for, TRADES."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import linear_model
from conftest import small_cnn
from keras_qsn.attacks import BasicIterativeMethod
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.attacks import norms
from keras_qsn.layers import TrainableQuantization
from keras_qsn.training import TRADES
from keras_qsn.training import AdversarialTraining
from keras_qsn.training import Objective
from keras_qsn.training import QuSecNet
from keras_qsn.training import ThresholdTraining
from keras_qsn.training import outputs

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def data(digits):
    return digits.x_train[:64], digits.y_train[:64]


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class Darker(Objective):
    """Images times a factor, and the loss times and plus one."""

    def __init__(self, factor, term):
        self.factor, self.term = factor, term

    def build(self, net):
        super().build(net)
        self.metrics = [keras.metrics.Mean(f"light_{self.factor}")]
        self.resets = 0

    def images(self, x, labels):
        return self.factor * x

    def loss(self, batch, loss):
        self.metrics[0].update_state(batch.given)
        return self.factor * loss + self.term

    def evaluate(self, x, labels):
        self.metrics[0].update_state(x)

    def reset(self):
        self.resets += 1


class TestContract:
    def test_one_works_on_what_the_other_made(self, data):
        x, y = data
        model = small_cnn()
        expected = 4 * (2 * float(LOSS(y, model(8 * x))) + 1) + 3
        pixels = float(np.mean(8 * x))
        net = QuSecNet(model, [Darker(2.0, 1.0), Darker(4.0, 3.0)])
        net.compile(keras.optimizers.SGD(0.0), LOSS)
        history = net.fit(x, y, batch_size=64, verbose=0).history
        assert history["loss"] == [pytest.approx(expected, rel=1e-5)]
        for name in ("light_2.0", "light_4.0"):
            assert history[name] == [pytest.approx(pixels, rel=1e-5)]
        found = net.evaluate(x, y, verbose=0, return_dict=True)
        assert found["light_4.0"] == pytest.approx(float(np.mean(x)), rel=1e-5)
        assert all(objective.resets >= 2 for objective in net.objectives)

    def test_one_objective_serves_many_networks(self, data):
        objective = TRADES(ProjectedGradientDescent(0.1, nb_iter=2))
        found = []
        for _ in range(2):
            keras.utils.set_random_seed(0)
            net = QuSecNet(small_cnn(), objective)
            net.compile("sgd", LOSS)
            found.append(net.fit(*data, shuffle=False, verbose=0).history)
        assert found[0] == found[1]
        assert not hasattr(objective, "net")

    def test_thresholds_follow_the_loss_made_before_them(self, data):
        """At a term that does not depend on them, and at ten times it."""
        moved = []
        for given in ([], [Darker(1.0, 5.0)], [Ten()]):
            keras.utils.set_random_seed(0)
            layer = TrainableQuantization()
            model = small_cnn(layer)
            before = layer.thresholds.numpy()
            own = ThresholdTraining(learning_rate=0.01)
            net = QuSecNet(model, [*given, own])
            net.compile("sgd", LOSS)
            net.fit(*data, batch_size=64, shuffle=False, verbose=0)
            moved.append(layer.thresholds.numpy() - before)
        np.testing.assert_allclose(moved[1], moved[0], atol=1e-7)
        np.testing.assert_allclose(moved[2], 10 * moved[0], atol=1e-6)
        assert np.abs(moved[0]).max() > 1e-5

    def test_metrics_of_one_name_are_numbered(self, data):
        weak, strong = (FastGradientMethod(eps) for eps in (0.01, 0.5))
        net = QuSecNet(small_cnn(), [weak, strong])
        net.compile("sgd", LOSS)
        found = net.evaluate(*data, verbose=0, return_dict=True)
        assert found["adv_accuracy_1"] <= found["adv_accuracy"]

    def test_a_metric_that_would_hide_another_is_refused(self):
        twins = [Darker(2.0, 1.0), Darker(2.0, 3.0)]
        with pytest.raises(ValueError, match="Received: 'light_2.0' of Darker"):
            QuSecNet(small_cnn(), twins)

    def test_a_loss_must_be_returned(self, data):
        net = QuSecNet(small_cnn(), Silent())
        net.compile("sgd", LOSS)
        with pytest.raises(TypeError, match="Silent.loss. must return"):
            net.fit(*data, verbose=0)


class Ten(Objective):
    def loss(self, batch, loss):
        return 10.0 * loss


class Silent(Objective):
    def loss(self, batch, loss):
        batch.tape.stop_recording()


class TestTRADES:
    ATTACK = ProjectedGradientDescent(0.05, eps_iter=0.2, nb_iter=1, seed=3)

    def test_a_step_is_the_formula(self):
        """Loss, example and update of a linear model, in NumPy."""
        rng = np.random.default_rng(0)
        x = rng.uniform(0.2, 0.8, (6, 5)).astype("float32")
        y, weight = np.arange(6) % 2, np.arange(1.0, 7.0) / 4
        beta, rate = 3.0, 0.5
        model = linear_model(rng.normal(size=5))
        w, b = (v.astype("float64") for v in model.get_weights())
        net = QuSecNet(model, TRADES(self.ATTACK, beta))
        net.compile(keras.optimizers.SGD(rate), LOSS)
        history = net.fit(
            x, y, sample_weight=weight, batch_size=6, shuffle=False, verbose=0
        ).history

        p = softmax(x @ w + b)
        seeds = tf.stack([tf.fill(6, 3), tf.range(6)], 1)
        start = np.asarray(norms.sample((5,), seeds, np.inf))
        uphill = (softmax((x + 0.05 * start) @ w + b) - p) @ w.T
        x_adv = x + 0.05 * np.sign(uphill)
        q = softmax(x_adv @ w + b)
        log = np.log(p / q)
        divergence = (p * log).sum(1)
        clean = -np.log(p[np.arange(6), y])
        loss = (weight * (clean + beta * divergence)).mean()
        assert history["loss"] == [pytest.approx(loss, rel=1e-5)]
        assert history["adv_accuracy"] == [
            pytest.approx((q.argmax(1) == y).mean())
        ]
        # d KL / d z = p (log p/q - KL), d KL / d z' = q - p.
        d_clean = p - np.eye(2)[y] + beta * p * (log - divergence[:, None])
        d_adv = beta * (q - p)
        share = weight[:, None] / 6
        d_w = x.T @ (share * d_clean) + x_adv.T @ (share * d_adv)
        d_b = (share * (d_clean + d_adv)).sum(0)
        found = model.get_weights()
        np.testing.assert_allclose(found[0], w - rate * d_w, atol=1e-5)
        np.testing.assert_allclose(found[1], b - rate * d_b, atol=1e-5)

    def test_examples_move_the_answer_more_than_noise(self, trained, digits):
        x, y = digits.x_test[:50], digits.y_test[:50]
        attack = ProjectedGradientDescent(0.1, nb_iter=5)
        net = QuSecNet(trained["none"], TRADES(attack))
        (objective,) = net.objectives
        images = tf.constant(x)
        x_adv = objective.craft(
            images,
            tf.zeros(50, tf.int32),
            training=True,
            view=objective._apart_from(images),
        ).numpy()
        noise = np.random.default_rng(0).choice([-0.1, 0.1], x.shape)
        noisy = np.clip(x + noise, 0, 1).astype("float32")
        p, q, other = (
            softmax(net.wrapper.logits(z).astype("float64"))
            for z in (x, x_adv, noisy)
        )
        apart, without = ((p * np.log(p / z)).sum(1) for z in (q, other))
        assert (apart > without).mean() > 0.9
        assert np.abs(x_adv - x).max() <= 0.1 + 1e-6
        assert (q.argmax(1) != y).sum() > (other.argmax(1) != y).sum()

    @pytest.mark.parametrize("columns, activation", [(1, "sigmoid"), (2, None)])
    def test_any_classifier_and_attack(self, data, columns, activation):
        x, y = data
        model = small_cnn(num_classes=columns)
        model.add(keras.layers.Activation(activation or "softmax"))
        trades = TRADES(FastGradientMethod(0.1), maximize="own")
        net = QuSecNet(model, trades)
        loss = "binary" if columns == 1 else "sparse_categorical"
        net.compile("adam", f"{loss}_crossentropy", metrics=["accuracy"])
        wanted = {"loss", "accuracy", "adv_accuracy"}
        history = net.fit(x, y % 2, epochs=2, verbose=0).history
        assert set(history) == wanted
        assert np.isfinite(history["loss"]).all()
        assert set(net.evaluate(x, y % 2, verbose=0, return_dict=True)) == (
            wanted
        )

    def test_in_a_list_with_another(self, data):
        attack = ProjectedGradientDescent(0.1, nb_iter=2)
        mixed = AdversarialTraining(FastGradientMethod(0.1))
        net = QuSecNet(small_cnn(), [mixed, Ten(), TRADES(attack)])
        net.compile("adam", LOSS, run_eagerly=True)
        history = net.fit(*data, verbose=0).history
        assert np.isfinite(history["loss"]).all()

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"beta": 0.0}, "`beta` must be a finite number above 0"),
            ({"beta": np.inf}, "`beta` must be a finite number above 0"),
            ({"maximize": "kl"}, "`maximize` must be 'divergence' or 'own'"),
            ({"attack": BasicIterativeMethod(0.1)}, "with a random start"),
            ({"attack": FastGradientMethod(0.1)}, "`maximize='own'` any"),
            (
                {"attack": ProjectedGradientDescent(0.1, early_stop=True)},
                "without early stop",
            ),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(ValueError, match=message):
            TRADES(**{"attack": self.ATTACK, **settings})


@pytest.mark.parametrize("columns", [1, 3])
def test_log_probabilities(columns):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, columns)).astype("float32")
    if columns == 1:
        whole = softmax(np.concatenate([0 * logits, logits], 1))
        returned = whole[:, 1:]
    else:
        returned = whole = softmax(logits)
    for given, are_logits in ((logits, True), (returned, False)):
        found = outputs.log_probabilities(tf.constant(given), are_logits)
        np.testing.assert_allclose(found, np.log(whole), atol=1e-6)
    assert np.isfinite(outputs.log_probabilities(tf.zeros((1, 3)), False)).all()
