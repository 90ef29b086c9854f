import keras
import numpy as np
import pytest
import tensorflow as tf
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.attacks.momentum_iterative_method import (
    momentum_iterative_method,
)
from cleverhans.tf2.attacks.projected_gradient_descent import (
    projected_gradient_descent,
)

from conftest import small_cnn
from keras_qsn.layers import TrainableQuantization
from keras_qsn.models import KerasModelWrapper
from keras_qsn.models import cleverhans_cnn

layers = keras.layers


def softmax_dense():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(3, "softmax")]
    )


def softmax_layer():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Softmax()]
    )


def softmax_activation():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Activation("softmax")]
    )


def functional():
    x = keras.Input((4,))
    h = layers.Dense(4, "relu")(x)
    h = layers.Add()([h, layers.Dropout(0.5)(h)])
    return keras.Model(x, layers.Dense(3, "softmax", use_bias=False)(h))


def softmax_operation():
    x = keras.Input((4,))
    return keras.Model(x, keras.ops.softmax(layers.Dense(3)(x)))


def model_in_model():
    x = keras.Input((4,))
    return keras.Model(x, softmax_dense()(layers.Dense(4)(x)))


def model_in_sequential():
    return keras.Sequential([keras.Input((4,)), functional()])


def test_the_network_of_the_paper():
    model = cleverhans_cnn(seed=0)
    shapes = [layer.output.shape[1:] for layer in model.layers]
    assert shapes == [(14, 14, 64), (5, 5, 128), (1, 1, 128), (128,), (10,)]
    convolutions = model.layers[:3]
    assert [c.kernel_size for c in convolutions] == [(8, 8), (6, 6), (5, 5)]
    assert [c.strides for c in convolutions] == [(2, 2), (2, 2), (1, 1)]
    assert [c.padding for c in convolutions] == ["same", "valid", "valid"]
    assert all(c.activation is keras.activations.relu for c in convolutions)
    assert model.layers[-1].activation is keras.activations.linear


def test_the_network_for_cifar10_with_a_quantizer():
    model = cleverhans_cnn((32, 32, 3), quantizer=TrainableQuantization())
    assert model.layers[0].output.shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)


def test_the_seed_decides_the_weights():
    a, b, c = (cleverhans_cnn(seed=seed) for seed in (1, 1, 2))
    for u, v in zip(a.get_weights(), b.get_weights()):
        np.testing.assert_array_equal(u, v)
    assert (a.get_weights()[0] != c.get_weights()[0]).any()
    kernels = [w for w in a.get_weights() if w.ndim > 1]
    assert len({float(k.ravel()[0] / k.std()) for k in kernels}) == len(kernels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (28, 28)}, r"\(height, width, channels\)"),
        ({"input_shape": (20, 28, 1)}, "at least 26x26"),
        ({"num_classes": 1}, "`num_classes` must be at least 2"),
    ],
)
def test_network_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        cleverhans_cnn(**arguments)


@pytest.mark.parametrize(
    "build",
    [
        softmax_dense,
        softmax_layer,
        softmax_activation,
        functional,
        softmax_operation,
        model_in_model,
        model_in_sequential,
    ],
)
def test_logits_before_the_softmax(build):
    model = build()
    wrapper = KerasModelWrapper(model)
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    logits = np.asarray(wrapper.get_logits(x))
    assert (np.abs(logits.sum(-1) - 1) > 1e-3).any(), "still probabilities"
    probabilities = np.asarray(model(x))
    np.testing.assert_allclose(
        keras.ops.softmax(logits), probabilities, atol=1e-6
    )
    np.testing.assert_allclose(wrapper.get_probs(x), probabilities, atol=1e-6)
    np.testing.assert_array_equal(
        wrapper.get_predicted_class(x), probabilities.argmax(-1)
    )
    np.testing.assert_array_equal(wrapper(x), logits)
    # The logits follow the weights of the model itself.
    model.set_weights([w + 0.5 for w in model.get_weights()])
    np.testing.assert_allclose(wrapper.get_probs(x), model(x), atol=1e-6)


def test_layers_by_name():
    model = small_cnn(TrainableQuantization(name="quantizer"))
    wrapper = KerasModelWrapper(model)
    names = wrapper.get_layer_names()
    assert names[0] == "quantizer" and names[-2:] == ["logits", "probs"]
    x = np.random.default_rng(0).random((2, 28, 28, 1)).astype("float32")
    np.testing.assert_array_equal(
        wrapper.get_layer(x, "quantizer"), model.layers[0](x)
    )
    for name in names:
        assert wrapper.get_layer(x, name).shape[0] == 2
    with pytest.raises(ValueError, match="`layer` must be one of"):
        wrapper.get_layer(x, "softmax")


def test_model_fn_of_cleverhans_attacks():
    wrapper = KerasModelWrapper(small_cnn())
    x = tf.random.stateless_uniform((3, 28, 28, 1), (0, 0))
    results = [
        fast_gradient_method(wrapper, x, 0.1, np.inf),
        projected_gradient_descent(wrapper, x, 0.1, 0.05, 2, np.inf),
        momentum_iterative_method(wrapper, x, 0.1, 0.05, 2),
    ]
    for x_adv in results:
        assert np.abs(np.asarray(x_adv) - x[: len(x_adv)]).max() <= 0.1001
