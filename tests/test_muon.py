import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from keras_qsn.initializers import EquallySpaced
from keras_qsn.layers import QuantLayer
from keras_qsn.optimizers import Muon
from keras_qsn.optimizers import orthogonal


def by_singular_values(x):
    """What `orthogonal` approximates, from the decomposition itself."""
    u, s, vt = np.linalg.svd(x.astype("float64"), full_matrices=False)
    s /= np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ vt, s


@pytest.mark.parametrize("shape", [(40, 40), (200, 16), (16, 200), (9, 1)])
def test_singular_values_are_drawn_to_one(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape) * np.exp(-np.arange(shape[1]) / 50)
    expected, singular = by_singular_values(x)
    found = orthogonal(tf.constant(x, "float32"))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (
        singular[: (min(shape) + 1) // 2].min() > 0.6 and singular.max() < 1.3
    )


def test_zero_stays_zero():
    assert np.all(orthogonal(tf.zeros((5, 3))).numpy() == 0)


def test_kernels_take_orthogonal_steps():
    """Three steps against the formula of the docstring, in float64."""
    rng = np.random.default_rng(1)
    start = rng.normal(size=(3, 3, 4, 8))
    gradients = rng.normal(size=(3, *start.shape))
    kernel = keras.Variable(start, dtype="float32", name="kernel")
    optimizer = Muon(0.01, beta_1=0.9)
    expected, momentum = start.reshape(36, 8), 0.0
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, "float32")], [kernel])
        gradient = gradient.reshape(36, 8)
        momentum = 0.9 * momentum + 0.1 * gradient
        step, _ = by_singular_values(0.9 * momentum + 0.1 * gradient)
        expected = expected - 0.01 * 0.2 * 6 * step
    found = kernel.numpy().reshape(36, 8)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    rms = np.sqrt(np.mean((found - start.reshape(36, 8)) ** 2))
    assert 0.001 < rms < 0.01


@pytest.mark.parametrize(
    "shape, name",
    [
        ((5,), "bias"),
        ((6, 5), "kernel"),
        ((4, 4, 1, 2), "thresholds"),
    ],
)
def test_all_else_takes_adams_step(shape, name):
    rng = np.random.default_rng(2)
    start, *gradients = rng.normal(size=(4, *shape)).astype("float32")
    found = []
    for optimizer in (Muon(0.01), keras.optimizers.Adam(0.01, beta_1=0.95)):
        variable = keras.Variable(start, name=name)
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient)], [variable])
        found.append(variable.numpy())
    np.testing.assert_array_equal(*found)
    assert not np.array_equal(found[0], start)


def test_kernels_of_a_model():
    """What is not a kernel is as after Adam's step, and kernels are not."""
    models = []
    for optimizer in (Muon(0.01), keras.optimizers.Adam(0.01, beta_1=0.95)):
        keras.utils.set_random_seed(0)
        model = small_cnn(QuantLayer(2, 5.0, trainable=True))
        model.compile(optimizer, "mse")
        x = np.random.default_rng(3).uniform(size=(8, 28, 28, 1))
        model.fit(x, np.ones((8, 10)), verbose=0)
        models.append(model)
    for muon, adam in zip(*(model.layers for model in models), strict=True):
        pairs = zip(muon.get_weights(), adam.get_weights(), strict=True)
        same = [np.array_equal(*pair) for pair in pairs]
        convolution = isinstance(muon, keras.layers.Conv2D)
        assert same == [not convolution, True][: len(same)]


def test_saved_with_its_state(tmp_path, digits):
    def compiled():
        keras.utils.set_random_seed(0)
        model = small_cnn()
        model.compile(
            Muon(keras.optimizers.schedules.ExponentialDecay(2e-3, 10, 0.5)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return model

    x, y = digits.x_train[:256], digits.y_train[:256]
    kwargs = {"batch_size": 64, "shuffle": False, "verbose": 0}
    whole = compiled()
    whole.fit(x, y, epochs=2, **kwargs)
    first = compiled()
    losses = first.fit(x, y, epochs=1, **kwargs).history["loss"]
    first.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(resumed.optimizer, Muon)
    losses += resumed.fit(x, y, epochs=1, **kwargs).history["loss"]
    assert losses[1] < losses[0]
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_kept_by_the_version_before_goes_on():
    """Classes lay in other modules then; momentum and steps come along."""
    path = pathlib.Path(__file__).parent / "kept" / "muon-0.1.0.keras"
    model = keras.models.load_model(path)
    layer, optimizer = model.layers[0], model.optimizer
    assert isinstance(layer.threshold_initializer, EquallySpaced)
    assert layer.threshold_constraint.maximum == 0.9
    assert isinstance(optimizer, Muon) and int(optimizer.iterations) == 2
    states = [np.abs(v).sum() for v in optimizer.variables[2:]]
    assert len(states) == 10 and np.count_nonzero(states) == 9
    x = np.random.default_rng(0).random((16, 8, 8, 1), "float32")
    model.fit(x, np.arange(16) % 2, batch_size=8, shuffle=False, verbose=0)
    # As that version went on.
    first = float(model.layers[1].kernel[0, 0, 0, 0])
    assert first == pytest.approx(0.01383357, abs=1e-6)


def test_another_adam_is_refused(monkeypatch):
    monkeypatch.setattr("keras_qsn.optimizers._OF_ADAM", ("_velocity_of",))
    with pytest.raises(RuntimeError, match="_velocity_of.*Received: Keras"):
        Muon().build([keras.Variable(np.zeros((2, 2)), name="kernel")])
