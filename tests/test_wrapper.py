"""The contract with a model: what is served, what is refused, what is told."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from keras_qsn._core.tracing import replaced
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper
from keras_qsn.models import cleverhans_cnn
from keras_qsn.training import QuSecNet

layers = keras.layers
RNG = np.random.default_rng(0)


class Subclassed(keras.Model):
    def __init__(self, activation=None, classes=3):
        super().__init__()
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(classes)
        self.last = activation or (lambda z: z)

    def call(self, x):
        return self.last(self.dense(self.flatten(x)))


def built(model, shape=(4, 4, 3)):
    model(np.zeros((2, *shape), "float32"))
    return model


def sequential(*rest, shape=(4, 4, 3), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *rest])


def shared_softmax():
    softmax = layers.Softmax()
    x = keras.Input((4, 4, 3))
    y = softmax(layers.Dense(6)(layers.Flatten()(x)))
    return keras.Model(x, softmax(layers.Dense(4)(y)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: built(Subclassed(tf.nn.softmax)),
        lambda: built(Subclassed(keras.ops.softmax)),
        lambda: sequential(
            layers.Flatten(),
            layers.Dense(3),
            layers.Lambda(lambda z: tf.nn.softmax(z)),
        ),
        shared_softmax,
        lambda: sequential(
            layers.Rescaling(2.0),
            sequential(layers.Flatten(), layers.Dense(3, "softmax")),
        ),
        lambda: sequential(layers.Flatten(), layers.Dense(3, "log_softmax")),
    ],
)
def test_logits_behind_what_hides_them(make):
    model, x = make(), RNG.random((6, 4, 4, 3)).astype("float32")
    wrapper = KerasModelWrapper(model)
    logits, out = wrapper.logits(x), np.asarray(model(x))
    np.testing.assert_allclose(wrapper.get_logits(x), logits, atol=1e-6)
    out = np.exp(out) if (out <= 0).all() else out
    np.testing.assert_allclose(keras.ops.softmax(logits), out, atol=1e-6)
    np.testing.assert_array_equal(wrapper.predict(x), out.argmax(1))
    with tf.GradientTape() as tape:
        images = tf.constant(x)
        tape.watch(images)
        logits = wrapper.get_logits(images)
    assert np.abs(tape.gradient(logits, images)).max() > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: sequential(layers.Flatten(), layers.Dense(1, "sigmoid")),
        lambda: sequential(
            layers.Flatten(), layers.Dense(1), layers.Activation("sigmoid")
        ),
        lambda: built(Subclassed(tf.sigmoid, 1)),
    ],
)
def test_one_sigmoid_is_two_logits(make):
    model, x = make(), RNG.normal(size=(6, 4, 4, 3)).astype("float32")
    wrapper = KerasModelWrapper(model)
    assert wrapper.num_classes == 2
    logits, share = wrapper.logits(x), np.asarray(model(x))[:, 0]
    assert (logits[:, 0] == 0).all()
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 1])), share, 1e-5)
    np.testing.assert_array_equal(wrapper.predict(x), share > 0.5)


@pytest.mark.parametrize("from_logits", [None, True])
def test_one_logit_is_two(from_logits):
    model = sequential(layers.Flatten(), layers.Dense(1))
    x = RNG.normal(size=(5, 4, 4, 3)).astype("float32")
    wrapper = KerasModelWrapper(model, from_logits)
    z = np.asarray(model(x))
    expected = np.concatenate([np.zeros_like(z), z], 1)
    np.testing.assert_array_equal(wrapper.get_logits(x), expected)


def two_inputs():
    a, b = keras.Input((4,)), keras.Input((4,))
    return keras.Model([a, b], layers.Dense(3)(layers.Add()([a, b])))


def two_outputs():
    x = keras.Input((4,))
    return keras.Model(x, [layers.Dense(3)(x), layers.Dense(3)(x)])


def named_output():
    x = keras.Input((4,))
    return keras.Model(x, {"scores": layers.Dense(3)(x)})


def compiled(units, loss):
    model = sequential(layers.Dense(units), shape=(4,))
    model.compile("sgd", loss)
    return model


def averaged(end):
    """Two networks' probabilities, or logits, merged at the end."""
    x = keras.Input((4,))
    parts = [sequential(layers.Dense(3), end, shape=(4,)) for _ in "ab"]
    return keras.Model(x, layers.Average()([part(x) for part in parts]))


def by_hand(z):
    return tf.exp(z) / tf.reduce_sum(tf.exp(z), 1, keepdims=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras.Sequential([layers.Dense(3)]), "must be built"),
        (Subclassed, "must be built"),
        (two_inputs, "one input"),
        (two_outputs, "one output"),
        (named_output, "one output"),
        (
            lambda: sequential(layers.Dense(3, "sigmoid"), shape=(4,)),
            "multi-label",
        ),
        (lambda: compiled(3, "binary_crossentropy"), "multi-label"),
        (
            lambda: compiled(3, keras.losses.BinaryCrossentropy(True)),
            "multi-label",
        ),
        (lambda: compiled(1, "mse"), "regression"),
        (lambda: compiled(1, keras.losses.Huber()), "regression"),
        (
            lambda: sequential(
                layers.Embedding(9, 4),
                layers.Flatten(),
                layers.Dense(3),
                shape=(4,),
            ),
            "read by Embedding",
        ),
        (
            lambda: sequential(layers.Dense(3), shape=(4,), dtype="int32"),
            "an input of int32",
        ),
        (lambda: sequential(layers.Conv2D(3, 2)), "one vector of class"),
        (lambda: built(Subclassed(by_hand)), "returns probabilities"),
        (
            lambda: sequential(
                layers.Dense(3), layers.Softmax(axis=0), shape=(4,)
            ),
            "over axis 0",
        ),
        (lambda: averaged(layers.Softmax()), "Merge logits"),
        (lambda: averaged(layers.Activation("softmax")), "Merge logits"),
        (
            lambda: sequential(layers.Dense(3, "hard_sigmoid"), shape=(4,)),
            "must not cut its scores",
        ),
    ],
)
def test_refuses_by_name_what_is_no_classifier(make, message):
    model = make()
    with pytest.raises(ValueError, match=message):
        KerasModelWrapper(model)
    with pytest.raises(ValueError, match=message):
        QuSecNet(model)


def test_averaged_logits_are_logits():
    model = averaged(layers.Identity())
    x = np.random.default_rng(0).uniform(size=(2, 4)).astype("float32")
    np.testing.assert_array_equal(KerasModelWrapper(model).logits(x), model(x))


def test_refuses_what_is_no_model():
    with pytest.raises(TypeError, match="must be a Keras model"):
        KerasModelWrapper(lambda x: x)


def test_takes_the_word_for_logits():
    model = built(Subclassed(by_hand))
    wrapper = KerasModelWrapper(model, from_logits=True)
    x = RNG.random((2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(wrapper.logits(x), model(x), atol=1e-6)


def test_a_training_wrapper_stands_for_the_model_inside():
    model = small_cnn()
    assert KerasModelWrapper(QuSecNet(model)).model is model


def test_bytes_before_a_rescaling():
    model = sequential(
        layers.Rescaling(1 / 255),
        layers.Flatten(),
        layers.Dense(3),
        dtype="uint8",
    )
    wrapper = KerasModelWrapper(model)
    x = RNG.integers(256, size=(5, 4, 4, 3)).astype("uint8")
    np.testing.assert_allclose(wrapper.logits(x), model(x), atol=1e-6)
    assert wrapper.gradient_cut((4, 4, 3)) is None
    assert wrapper.value_range == (0.0, 255.0)


def test_a_model_of_any_size_is_traced_for_the_data():
    model = sequential(
        layers.Conv2D(4, 3),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3),
        shape=(None, None, 3),
    )
    wrapper = KerasModelWrapper(model)
    assert wrapper.input_shape == (None, None, 3)
    for size in (8, 11):
        x = RNG.random((3, size, size, 3)).astype("float32")
        np.testing.assert_allclose(wrapper.logits(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([layers.Rescaling(1 / 255)], (0, 255)),
        ([layers.Rescaling(1 / 127.5, -1)], (0, 255)),
        ([layers.Rescaling(1 / 128, -1)], (0, 255)),
        ([layers.Rescaling(2.0, -1)], (0, 1)),
        ([layers.Rescaling(0.5, 0.5)], (-1, 1)),
        ([ConstantQuantization(value_range=(-1, 2))], (-1, 2)),
        ([layers.Rescaling(1 / 255), ConstantQuantization()], (0, 255)),
        ([layers.Rescaling(3.0)], None),
        ([layers.Dense(3)], None),
    ],
)
def test_the_range_of_pixels_that_a_model_declares(first, expected):
    model = sequential(*first, layers.Flatten(), layers.Dense(3))
    assert KerasModelWrapper(model).value_range == expected
    inside = sequential(model)
    assert KerasModelWrapper(inside).value_range == expected


def noisy():
    class Noise(layers.Layer):
        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x))

    return sequential(Noise(), layers.Flatten(), layers.Dense(3))


def test_whether_answers_depend_on_chance():
    shape = (4, 4, 3)
    assert KerasModelWrapper(noisy()).is_random(shape)
    still = sequential(layers.Dropout(0.5), layers.Flatten(), layers.Dense(3))
    assert not KerasModelWrapper(still).is_random(shape)
    assert not KerasModelWrapper(small_cnn(QuantLayer(2, 5.0))).is_random(
        (28, 28, 1)
    )


def test_where_the_gradient_is_cut():
    cut = sequential(
        layers.Lambda(lambda x: tf.round(x), name="rounder"),
        layers.Flatten(),
        layers.Dense(3),
    )
    found = KerasModelWrapper(cut).gradient_cut((4, 4, 3))
    assert "Round" in found and "rounder" in found
    thermometer = sequential(
        layers.Lambda(lambda x: tf.cast(x > 0.5, tf.float32)),
        layers.Flatten(),
        layers.Dense(3),
    )
    assert KerasModelWrapper(thermometer).gradient_cut((4, 4, 3))
    quantized = small_cnn(ConstantQuantization(hard=True))
    assert KerasModelWrapper(quantized).gradient_cut((28, 28, 1)) is None


def normalized():
    normalization = layers.Normalization()
    normalization.adapt(RNG.random((20, 8)))
    model = sequential(normalization, layers.Dense(3), shape=(8,))
    return model, normalization


class TestFingerprint:
    shape = (28, 28, 1)

    def of(self, model):
        return KerasModelWrapper(model).fingerprint(self.shape)

    def test_names_do_not_count(self):
        assert self.of(cleverhans_cnn(seed=0)) == self.of(
            cleverhans_cnn(seed=0)
        )

    def test_weights_count(self):
        model = cleverhans_cnn(seed=0)
        before = self.of(model)
        model.layers[-1].bias.assign_add(np.eye(10, dtype="float32")[0])
        assert self.of(model) != before

    def test_activations_count(self):
        model = cleverhans_cnn(seed=0)
        before = self.of(model)
        model.layers[1].activation = keras.activations.leaky_relu
        assert self.of(model) != before

    @pytest.mark.parametrize(
        "change", [{"hard": True}, {"steepness": 9.0}, {"gradient": "paper"}]
    )
    def test_settings_of_a_quantizer_count(self, change):
        keras.utils.set_random_seed(0)
        plain = small_cnn(QuantLayer(**{"num_levels": 2, "steepness": 5.0}))
        other = small_cnn(
            QuantLayer(**{"num_levels": 2, "steepness": 5.0, **change})
        )
        other.set_weights(plain.get_weights())
        assert self.of(other) != self.of(plain)

    def test_what_a_normalization_has_adapted_counts(self):
        model, normalization = normalized()
        wrapper = KerasModelWrapper(model)
        before = wrapper.fingerprint((8,))
        normalization.adapt(RNG.random((20, 8)) + 5)
        assert wrapper.fingerprint((8,)) != before

    def test_a_saved_model_keeps_it(self, tmp_path):
        model = small_cnn(QuantLayer(2, 5.0))
        model.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras")
        assert self.of(loaded) == self.of(model)


def edit_activation(model):
    model.layers[0].activation = keras.activations.tanh


def edit_last(model):
    model.pop()
    model.add(layers.Dense(3))


def edit_lora(model):
    model.layers[-1].enable_lora(2)
    model.layers[-1].lora_kernel_b.assign_add(
        np.ones(model.layers[-1].lora_kernel_b.shape, "float32")
    )


def edit_call(model):
    model.layers[0].call = lambda x: layers.Conv2D.call(model.layers[0], -x)


@pytest.mark.parametrize(
    "edit", [edit_activation, edit_last, edit_lora, edit_call]
)
def test_functions_are_made_anew_for_an_edited_model(edit):
    model, x = small_cnn(), RNG.random((40, 28, 28, 1)).astype("float32")
    wrapper = KerasModelWrapper(model)
    before = wrapper.logits(x)
    edit(model)
    after = wrapper.logits(x)
    assert after.shape != before.shape or np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model(x), rtol=1e-4, atol=1e-5)
    assert wrapper.num_classes == model.output_shape[-1]


def test_a_normalization_adapted_again():
    model, normalization = normalized()
    wrapper, x = KerasModelWrapper(model), RNG.random((4, 8), "float32")
    wrapper.logits(x)
    normalization.adapt(RNG.random((20, 8)) + 5)
    np.testing.assert_allclose(wrapper.logits(x), model(x), rtol=1e-4)


def test_a_function_where_another_one_was_freed():
    dense = layers.Dense(3)
    model = sequential(dense, shape=(8,))
    wrapper, x = KerasModelWrapper(model), RNG.random((4, 8), "float32")
    for factor in (1.0, 2.0, 3.0, 4.0):
        dense.activation = None
        dense.activation = lambda z, factor=factor: factor * z
        np.testing.assert_allclose(wrapper.logits(x), model(x), rtol=1e-4)


def test_no_image_has_no_class():
    assert KerasModelWrapper(small_cnn()).predict(
        np.zeros((0, 28, 28, 1))
    ).shape == (0,)


def test_a_replaced_layer_is_seen_and_not_kept():
    model, x = small_cnn(), RNG.random((4, 28, 28, 1)).astype("float32")
    wrapper = KerasModelWrapper(model)
    before, structure = wrapper.logits(x), wrapper.structure
    with replaced(
        [model.layers[-1]], "call", lambda layer, z, **_: z[:, :10] * 0
    ):
        assert (wrapper.logits(x) == 0).all()
        assert wrapper.structure == structure
    np.testing.assert_array_equal(wrapper.logits(x), before)


def test_training_and_predicting_keep_functions():
    model, x = small_cnn(), RNG.random((8, 28, 28, 1)).astype("float32")
    wrapper, made = KerasModelWrapper(model), []
    for _ in range(2):
        wrapper.compiled("thing", lambda: made.append(1))
        model.compile(
            "sgd",
            keras.losses.SparseCategoricalCrossentropy(True),
            metrics=["accuracy"],
        )
        model.fit(x, np.arange(8), verbose=0)
        model.evaluate(x, np.arange(8), verbose=0)
        model.predict(x, verbose=0)
    assert made == [1]


def test_functions_do_not_keep_a_model_alive():
    model = small_cnn()
    wrapper = KerasModelWrapper(model)
    wrapper.logits(np.zeros((1, 28, 28, 1), "float32"))
    wrapper.fingerprint((28, 28, 1))
    gone = weakref.ref(model)
    del model, wrapper
    gc.collect()
    assert gone() is None
