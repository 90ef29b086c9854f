import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qsn as qsn

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TESTS = pathlib.Path(__file__).parent
# Test functions by tier; the others are fast. `benchmarks/tiers.py` measures.
TIERS = {
    tier: (TESTS / f"tiers/{tier}.txt").read_text().split()
    for tier in ("medium", "slow")
}


def pytest_collection_modifyitems(items):
    """Mark each test with its tier."""
    tiers = {name: tier for tier, names in TIERS.items() for name in names}
    for item in items:
        name = item.path.relative_to(TESTS.parent).as_posix()
        inside = item.nodeid.partition("::")[2].partition("[")[0]
        item.add_marker(tiers.get(f"{name}::{inside}", "fast"))
    # The longest first, so that no worker waits for another at the end.
    items.sort(key=lambda item: "families_of_real_networks" not in item.nodeid)


@pytest.fixture(autouse=True)
def clean_state():
    """Same start for each test, and proof that none leaves a policy behind."""
    keras.utils.set_random_seed(0)
    yield
    assert keras.config.dtype_policy().name == "float32"


@pytest.fixture(autouse=True, scope="session")
def same_precision():
    """The same numbers, whatever this processor multiplies fastest."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("approach", "sources"):
            name = f"keras_qsn.evaluation.{module}.fast_dtype"
            patch.setattr(name, lambda: "float32")
        yield


@pytest.fixture(scope="session")
def digits():
    return qsn.datasets.load("digits")


@pytest.fixture
def data(digits):
    """Few digits, and their classes."""
    return digits.x_train[:64], digits.y_train[:64]


@pytest.fixture(scope="session")
def trained(digits):
    """Small trained classifiers of digits, by the name of their quantizer."""
    quantizers = {
        "none": None,
        "soft": qsn.layers.ConstantQuantization(2, steepness=10.0),
        "hard": qsn.layers.ConstantQuantization(2, hard=True),
    }
    return {
        name: _train(quantizer, digits)
        for name, quantizer in quantizers.items()
    }


def _train(quantizer, digits):
    keras.utils.set_random_seed(0)
    model = small_cnn(quantizer)
    model.compile(
        keras.optimizers.Adam(5e-3),
        LOSS,
        metrics=["accuracy"],
    )
    model.fit(digits.x_train, digits.y_train, epochs=3, verbose=0)
    return model


def small_cnn(quantizer=None, num_classes=10):
    layers = keras.layers
    model = keras.Sequential([keras.Input((28, 28, 1))])
    if quantizer is not None:
        model.add(quantizer)
    model.add(layers.Conv2D(8, 5, strides=3, activation="relu"))
    model.add(layers.Conv2D(16, 3, strides=2, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(num_classes))
    return model


def linear_model(weights, bias=None):
    """A two-class linear model of flat images: score_1 - score_0 = w.x + b."""
    weights = np.asarray(weights, "float32")
    model = keras.Sequential(
        [keras.Input(weights.shape), keras.layers.Dense(2)]
    )
    kernel = np.stack([np.zeros_like(weights), weights], axis=1)
    model.set_weights([kernel, np.array([0.0, bias or 0.0], "float32")])
    return model


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def input_gradient(function, x, upstream=None):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x, upstream).numpy()
