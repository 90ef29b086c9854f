"""Hashed layers, against loops over their weights."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn.certification import certify
from keras_qsn.defenses import DynamicQuantizationActivation
from keras_qsn.defenses import HashedConv2D
from keras_qsn.defenses import HashedDense
from keras_qsn.defenses import inhibit_gradients
from keras_qsn.defenses import with_hashed_layers
from keras_qsn.defenses.hashing import hashes
from keras_qsn.initializers import initialize_for_intervals
from keras_qsn.layers import ConstantQuantization
from keras_qsn.models import KerasModelWrapper

layers = keras.layers
IMAGES = (9, 8, 3)


def made(kind, seed=3, **kwargs):
    """A built layer, and inputs for it."""
    rng = np.random.default_rng(0)
    if kind is HashedDense:
        layer = HashedDense(4, compression=0.3, seed=seed, **kwargs)
        x = rng.random((5, 6), "float32")
    else:
        layer = HashedConv2D(
            4, (3, 2), compression=0.3, seed=seed, strides=2, **kwargs
        )
        x = rng.random((2, *IMAGES), "float32")
    layer.build(x.shape)
    layer.bias.assign(rng.normal(size=4))
    return layer, x


def plain(layer, x):
    """The layer of Keras with the same kernel."""
    config = layer.get_config()
    del config["compression"], config["seed"]
    again = type(layer).__mro__[2].from_config(config)
    again.build(x.shape)
    again.set_weights([layer.kernel, layer.bias])
    return again


def network(last="linear"):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input(IMAGES),
            layers.Conv2D(4, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(6, activation="relu"),
            layers.Dense(3, activation=last),
        ]
    )


def split_mix(place):
    """The finalizer of SplitMix64, in whole numbers of any size."""
    most = 2**64 - 1
    place = (place ^ (place >> 30)) * 0xBF58476D1CE4E5B9 & most
    place = (place ^ (place >> 27)) * 0x94D049BB133111EB & most
    return place ^ (place >> 31)


def test_hashes_are_those_of_whole_numbers():
    buckets, signs = hashes(50, seed=7, num_buckets=11)
    starts = split_mix(8), split_mix(9)
    for place in range(50):
        step = place * 0x9E3779B97F4A7C15
        first, second = (split_mix((s + step) % 2**64) for s in starts)
        assert buckets[place] == first % 11
        assert signs[place] == (1 if second >= 2**63 else -1)


def test_hashes_are_even_and_independent():
    buckets, signs = hashes(100_000, seed=0, num_buckets=10)
    others, _ = hashes(100_000, seed=1, num_buckets=10)
    for chosen in (signs > 0, signs < 0):
        counts = np.bincount(buckets[chosen], minlength=10)
        assert np.abs(counts - 5000).max() < 300
    assert abs((buckets == others).mean() - 0.1) < 0.01


@pytest.mark.parametrize("kind", [HashedDense, HashedConv2D])
class TestLayers:
    def test_kernel_by_loops(self, kind):
        layer, _ = made(kind)
        shape = layer.kernel.shape
        index, signs = hashes(np.prod(shape), 3, layer.buckets.shape[0])
        w = layer.buckets.numpy()
        assert len(w) == np.ceil(0.3 * np.prod(shape))
        expected = np.empty(shape, "float32")
        for place, where in enumerate(np.ndindex(*shape)):
            expected[where] = signs[place] * w[index[place]]
        np.testing.assert_array_equal(layer.kernel, expected)

    def test_computes_as_the_plain_layer(self, kind):
        layer, x = made(kind, activation="tanh")
        np.testing.assert_allclose(layer(x), plain(layer, x)(x), atol=1e-6)

    def test_gradient_of_a_bucket_is_the_signed_sum(self, kind):
        layer, x = made(kind)
        other = plain(layer, x)
        with tf.GradientTape(persistent=True) as tape:
            loss, same = (tf.reduce_sum(q(x) ** 3) for q in (layer, other))
        of_kernel = tape.gradient(same, other.kernel.value).numpy().ravel()
        index, signs = hashes(of_kernel.size, 3, layer.buckets.shape[0])
        expected = np.zeros(layer.buckets.shape[0])
        np.add.at(expected, index, signs * of_kernel)
        found = tape.gradient(loss, layer.buckets.value)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    def test_starts_at_the_scale_of_the_whole_kernel(self, kind):
        layer = made(kind)[0]
        again = type(layer).from_config(
            {**layer.get_config(), "kernel_initializer": "he_normal"}
        )
        channels = 4000 if kind is HashedDense else 700
        again.build((1, channels) if kind is HashedDense else (1, 9, 8, 700))
        fan_in = np.prod(again.kernel.shape[:-1])
        found = again.buckets.numpy().std()
        assert found == pytest.approx(np.sqrt(2 / fan_in), rel=0.1)

    def test_seeds_decide(self, kind):
        kernels = []
        for seed in (1, 1, 2):
            layer, _ = made(kind, seed=seed, kernel_initializer="ones")
            kernels.append(layer.kernel.numpy())
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert not np.array_equal(kernels[0], kernels[2])

    def test_mixed_precision(self, kind):
        layer, x = made(kind)
        mixed, _ = made(kind, dtype="mixed_float16")
        mixed.set_weights(layer.get_weights())
        assert mixed(x).dtype == tf.float16
        np.testing.assert_allclose(mixed(x), layer(x), atol=1e-2)

    def test_refuses(self, kind):
        for compression in (0, -0.1, 1.1, np.nan):
            with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
                kind(4, 3, compression=compression) if (
                    kind is HashedConv2D
                ) else kind(4, compression=compression)
        layer, _ = made(kind)
        for refused in (
            lambda: layer.enable_lora(2),
            lambda: layer.quantize("int8"),
            lambda: made(kind, lora_rank=2),
        ):
            with pytest.raises(NotImplementedError, match="no kernel of its"):
                refused()


class TestModels:
    def hashed(self, last="linear"):
        return with_hashed_layers(network(last), 0.5, True, seed=5)

    def test_every_layer_has_its_hashes(self):
        model = self.hashed()
        kinds = [type(layer).__name__ for layer in model.layers]
        dense = ["Flatten", "HashedDense", "HashedDense"]
        assert kinds == ["HashedConv2D", *dense]
        found = [q.seed for q in model.layers if hasattr(q, "seed")]
        assert found == [5, 6, 7]
        assert model.layers[0].activation is keras.activations.relu

    def test_models_inside_and_shares_of_their_own(self):
        inner = network()
        model = keras.Sequential(
            [keras.Input(IMAGES), ConstantQuantization(2), inner]
        )
        hashed = with_hashed_layers(model, [0.5, 1.0])
        assert type(hashed.layers[0]) is ConstantQuantization
        shares = [
            layer.compression
            for layer in hashed.layers[1].layers
            if isinstance(layer, HashedDense)
        ]
        assert shares == [0.5, 1.0]
        assert type(inner.layers[-1]) is layers.Dense

    def test_learns(self):
        rng = np.random.default_rng(0)
        y = rng.integers(3, size=60)
        x = rng.random((60, *IMAGES), "float32") + y[:, None, None, None]
        model = self.hashed("softmax")
        model.compile("adam", "sparse_categorical_crossentropy")
        losses = model.fit(x, y, epochs=15, verbose=0).history["loss"]
        assert losses[-1] < 0.6 * losses[0]

    def test_logits_behind_a_softmax(self):
        x = np.random.default_rng(0).random((3, *IMAGES), "float32")
        logits = KerasModelWrapper(self.hashed("softmax")).logits(x)
        expected = self.hashed("softmax")(x)
        np.testing.assert_allclose(
            keras.ops.softmax(logits), expected, atol=1e-6
        )
        assert KerasModelWrapper(self.hashed()).logits_model is not None

    def test_certified_as_the_kernels_they_make(self):
        hashed = self.hashed()
        twin = network()
        twin.set_weights(
            [w for q in hashed.layers if q.weights for w in (q.kernel, q.bias)]
        )
        x = np.random.default_rng(0).random((4, *IMAGES), "float32")
        y = KerasModelWrapper(twin).predict(x)
        for method in ("interval", "crown"):
            found, expected = (
                certify(m, x, y, 0.003, methods=[method], verbose=0).margin
                for m in (hashed, twin)
            )
            np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_initial_buckets_for_intervals(self):
        model = self.hashed()
        head = model.layers[-1].buckets.numpy()
        initialize_for_intervals(model, seed=1)
        kernel = np.asarray(model.layers[0].kernel)
        assert 1.2 < np.abs(kernel).sum((0, 1, 2)).mean() < 2.8
        np.testing.assert_array_equal(model.layers[-1].buckets, head)

    def test_export(self, tmp_path):
        model = self.hashed()
        x = np.random.default_rng(0).random((2, *IMAGES), "float32")
        model.export(tmp_path / "served", verbose=False)
        served = tf.saved_model.load(tmp_path / "served")
        np.testing.assert_allclose(served.serve(x), model(x), atol=1e-5)

    def test_loads_in_a_fresh_process(self, tmp_path):
        x = keras.Input(IMAGES)
        y = DynamicQuantizationActivation(2)(HashedConv2D(4, 3)(x))
        y = HashedDense(3, name="head")(layers.Flatten()(y))
        # One draw, so that the answer is one.
        model = inhibit_gradients(keras.Model(x, y), 0.3, spread=1e-9)
        images = np.random.default_rng(0).random((2, *IMAGES), "float32")
        np.save(tmp_path / "x.npy", images)
        model.save(tmp_path / "model.keras")
        script = (
            "import sys, keras, numpy as np, keras_qsn\n"
            "folder = sys.argv[1]\n"
            "model = keras.models.load_model(folder + '/model.keras')\n"
            "y = model(np.load(folder + '/x.npy'))\n"
            "np.save(folder + '/y.npy', y)\n"
        )
        subprocess.run([sys.executable, "-c", script, tmp_path], check=True)
        found = np.load(tmp_path / "y.npy")
        np.testing.assert_allclose(found, model(images), atol=1e-5)

    def test_refuses(self):
        flat = keras.Sequential([keras.Input(IMAGES), layers.Flatten()])
        with pytest.raises(ValueError, match="a layer to be hashed, Dense"):
            with_hashed_layers(flat)
        with pytest.raises(ValueError, match="one for each layer that is"):
            with_hashed_layers(network(), [0.5])
        with pytest.raises(TypeError, match="must be a Keras model"):
            with_hashed_layers("model")


def branch(name, units):
    """A model of one dense layer, which has the same name in each."""
    dense = layers.Dense(units, name="dense")
    return keras.Sequential([keras.Input((4,)), dense], name=name)


def test_layers_of_one_name_in_two_models_are_two():
    given = keras.Input((4,))
    model = keras.Model(given, branch("b", 3)(branch("a", 4)(given)))
    hashed = with_hashed_layers(model, [1 / 2, 1 / 3], seed=5)
    first, second = (inner.layers[-1] for inner in hashed.layers[1:])
    assert (first.compression, first.seed) == (1 / 2, 5)
    assert (second.compression, second.seed) == (1 / 3, 6)
    drawn = inhibit_gradients(model, 0.1, 0.5, seed=5)
    assert [part.layers[-1].seed for part in drawn.layers[1:]] == [5, 6]


@keras.saving.register_keras_serializable(package="test_hashing")
class Block(layers.Layer):
    """Makes a layer that its configuration does not tell."""

    def build(self, input_shape):
        self.inner = layers.Dense(4, name="inner")
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)


def test_layers_that_cannot_be_replaced_are_refused():
    model = keras.Sequential([keras.Input((4,)), Block(), layers.Dense(2)])
    for refused in (
        lambda: with_hashed_layers(model),
        lambda: inhibit_gradients(model, 0.1, 0.5),
    ):
        with pytest.raises(ValueError, match="'inner' is made by the code"):
            refused()


def test_kernels_that_are_not_a_layers_own_are_refused():
    int8, lora = dense_network(), dense_network()
    int8.layers[0].quantize("int8")
    lora.layers[0].enable_lora(2)
    for model, said in (int8, "quantized"), (lora, "adapted by LoRA"):
        for change in with_hashed_layers, inhibit_gradients:
            with pytest.raises(ValueError, match=f"kernel of floats.*{said}"):
                change(model)


def dense_network():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)])
