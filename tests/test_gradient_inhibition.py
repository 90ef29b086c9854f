"""Gradient inhibition: its formula, its draws, the largest tau."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from keras_qsn.defenses import HashedDense
from keras_qsn.defenses import InhibitedDense
from keras_qsn.defenses import defensive_hashing
from keras_qsn.defenses import inhibit_gradients
from keras_qsn.defenses import largest_tau
from keras_qsn.layers import ConstantQuantization
from keras_qsn.models import KerasModelWrapper
from keras_qsn.training import QuSecNet

layers = keras.layers


def dense(kernel, bias=None, last="linear"):
    kernel = np.array(kernel, "float32")
    model = keras.Sequential(
        [keras.Input(kernel.shape[:1]), layers.Dense(kernel.shape[1], last)]
    )
    bias = np.zeros(kernel.shape[1]) if bias is None else np.array(bias)
    model.set_weights([kernel, bias])
    return model


class TestPlain:
    def test_weights_and_tau_times_their_sign(self):
        model = dense([[0.5, -0.25], [0.0, 1.0]], [0.5, -1.0])
        kernel, bias = inhibit_gradients(model, 0.3).get_weights()
        np.testing.assert_allclose(kernel, [[0.8, -0.55], [0.0, 1.3]])
        np.testing.assert_array_equal(bias, [0.5, -1.0])
        np.testing.assert_array_equal(model.get_weights()[0][0], [0.5, -0.25])

    def test_only_dense_layers_change(self):
        model = small_cnn(ConstantQuantization(2))
        found = inhibit_gradients(model, 0.1)
        for before, after in zip(model.layers, found.layers, strict=True):
            for u, v in zip(before.get_weights(), after.get_weights()):
                changed = isinstance(before, layers.Dense) and u.ndim == 2
                assert np.array_equal(u, v) != changed

    def test_models_inside(self):
        inner = small_cnn()
        outer = keras.Sequential([keras.Input((28, 28, 1)), inner])
        found = inhibit_gradients(outer, 0.1).get_weights()
        for u, v in zip(inhibit_gradients(inner, 0.1).get_weights(), found):
            np.testing.assert_array_equal(u, v)

    def test_of_buckets_as_of_the_kernel_they_make(self):
        hashed = keras.Sequential([keras.Input((20,)), HashedDense(7)])
        before = hashed.layers[0].kernel.numpy()
        after = inhibit_gradients(hashed, 0.2).layers[0].kernel
        np.testing.assert_allclose(after, before + 0.2 * np.sign(before))


class TestRandomised:
    def draws(self, model, count=200):
        """`u` of each call, of a model of one weight above zero."""
        x = np.ones((1, 1), "float32")
        y = np.array([float(model(x)[0, 0]) for _ in range(count)])
        return (y - 2.0) / 0.5

    def model(self, **kwargs):
        return inhibit_gradients(dense([[2.0, -1.0]]), 0.5, **kwargs)

    def test_draws_are_uniform_and_anew(self):
        found = self.draws(self.model(spread=0.4))
        assert found.min() >= 0.6 - 1e-5 and found.max() <= 1.4 + 1e-5
        assert len(np.unique(found)) > 190
        assert abs(found.mean() - 1) < 4 * 0.4 / np.sqrt(3 * 200)
        assert found.std() == pytest.approx(0.4 / np.sqrt(3), rel=0.15)

    def test_same_seed_same_draws(self):
        a, b, c = (
            self.draws(self.model(spread=0.4, seed=seed), 5)
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)

    def test_layers_draw_for_themselves(self):
        model = keras.Sequential(
            [keras.Input((1,)), layers.Dense(1), layers.Dense(1)]
        )
        seeds = [q.seed for q in inhibit_gradients(model, 1, 0.5, 3).layers]
        assert seeds == [3, 4]

    def test_one_draw_of_all_weights(self):
        model = self.model(spread=0.4)
        y = model(np.ones((3, 1), "float32")).numpy()
        np.testing.assert_allclose(y[:, 0] - 2, -1 - y[:, 1], rtol=1e-5)
        assert len(np.unique(y[:, 0])) == 1

    def test_logits_of_a_softmax_answer_at_random(self):
        model = inhibit_gradients(
            dense([[2.0, -1.0]], last="softmax"), 0.5, 0.4
        )
        wrapper = KerasModelWrapper(model)
        assert wrapper.is_random((1,))
        gap = np.ptp(wrapper.logits(np.ones((1, 1))))
        assert 3.0 + 2 * 0.3 <= gap <= 3.0 + 2 * 0.7

    def test_hashed_layers_saved_and_loaded(self, tmp_path):
        inner = keras.Sequential(
            [keras.Input((6,)), HashedDense(4, activation="relu")]
        )
        model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(2)])
        found = inhibit_gradients(model, 0.3, 0.5)
        wrapped = found.layers[0].layers[0]
        assert isinstance(wrapped, InhibitedDense)
        assert isinstance(wrapped.layer, HashedDense)
        found.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        x = np.random.default_rng(0).random((3, 6), "float32")
        # The state of the draws is kept, too.
        np.testing.assert_array_equal(again(x), found(x))

    def test_export(self, tmp_path):
        model = self.model(spread=0.4)
        model.export(tmp_path / "served", verbose=False)
        served = tf.saved_model.load(tmp_path / "served")
        y = served.serve(np.ones((1, 1), "float32"))
        assert 2.3 <= float(y[0, 0]) <= 2.7


class TestLargestTau:
    # Right for the first image while 0.35 > tau / 2.
    MODEL = ([[0.5, 0.1], [0.0, 0.1]],)
    X = np.array([[1.0, 0.5], [0.0, 1.0]], "float32")

    def test_in_closed_form(self):
        for spread, expected in ((0.0, 0.7), (0.4, 0.5)):
            found = largest_tau(dense(*self.MODEL), self.X, [0, 1], 0.0, spread)
            assert 0.99 * expected < found < expected

    def test_what_may_be_lost(self):
        model = dense(*self.MODEL)
        dataset = tf.data.Dataset.from_tensor_slices((self.X, [0, 1])).batch(2)
        assert largest_tau(model, dataset, None, 0.49) < 0.7
        assert largest_tau(model, dataset, None, 0.5, max_tau=3.0) == 3.0

    def test_none_is_borne(self):
        model = dense(1e-6 * np.array(*self.MODEL))
        assert largest_tau(model, self.X, [0, 1], 0.0) == 0.0

    def test_leaves_the_model_alone(self):
        model = dense(*self.MODEL)
        before = model.get_weights()
        largest_tau(model, self.X, [0, 1])
        np.testing.assert_array_equal(before[0], model.get_weights()[0])

    def test_refuses(self):
        model = dense(*self.MODEL)
        with pytest.raises(ValueError, match="`max_drop` must be a number fr"):
            largest_tau(model, self.X, [0, 1], 1.5)
        with pytest.raises(ValueError, match="`max_tau` must be a finite"):
            largest_tau(model, self.X, [0, 1], max_tau=0)
        with pytest.raises(ValueError, match="y"):
            largest_tau(model, self.X, [0, 2])


def test_the_framework_chains_both(digits):
    def fit(model):
        assert type(model.layers[-1]) is HashedDense
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x[:300], y[:300], verbose=0)

    x, y = digits.x_train[:400], digits.y_train[:400]
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            ConstantQuantization(2),
            layers.Flatten(),
            layers.Dense(10, "softmax"),
        ]
    )
    model, tau = defensive_hashing(network, fit, x[300:], y[300:], max_drop=0.1)
    layer = model.layers[-1]
    assert isinstance(layer, InhibitedDense)
    assert (layer.tau, layer.spread) == (tau, 0.5) and tau > 0
    assert isinstance(layer.layer, HashedDense)


def test_refuses_models_without_dense_layers():
    flat = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten()])
    for refused in (
        lambda: inhibit_gradients(flat, 0.1),
        lambda: largest_tau(flat, np.zeros((1, 4, 4, 1), "float32"), [0]),
    ):
        with pytest.raises(ValueError, match="must have a dense layer"):
            refused()
    with pytest.raises(TypeError, match="must be a Keras model"):
        inhibit_gradients("model")


def test_refuses_other_settings():
    model = dense([[1.0, 2.0]])
    for tau in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="`tau` must be a finite number"):
            inhibit_gradients(model, tau)
    with pytest.raises(ValueError, match="`spread` must be a number from 0"):
        inhibit_gradients(model, 0.1, 1.1)
    with pytest.raises(TypeError, match="`layer` must be a `keras.layers.De"):
        InhibitedDense(layers.Flatten(), 0.1)


def test_refuses_models_that_are_not_built_or_drawn_twice():
    for model in (
        keras.Sequential([layers.Dense(2)]),
        QuSecNet(dense([[1.0, 2.0]])),
    ):
        with pytest.raises(ValueError, match="must be a built Sequential"):
            inhibit_gradients(model, 0.1)
    drawn = inhibit_gradients(dense([[1.0, 2.0]]), 0.1, 0.5)
    for spread in 0.0, 0.5:
        with pytest.raises(ValueError, match="inhibited at random already"):
            inhibit_gradients(drawn, 0.1, spread)
