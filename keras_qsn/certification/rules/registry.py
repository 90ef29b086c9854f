"""Which layers can be certified, and what each of them computes."""

import keras

from keras_qsn._core.convolution import FastConv2D
from keras_qsn.certification.rules import affine
from keras_qsn.certification.rules import convolutional
from keras_qsn.certification.rules import piecewise
from keras_qsn.certification.rules import pooling
from keras_qsn.certification.rules import scaling
from keras_qsn.certification.rules import smooth
from keras_qsn.classifier.heads import LinearHead
from keras_qsn.classifier.heads import TwoLogits

_LAYERS = keras.layers


def rules_of(layer, *shapes):
    """What a layer computes, as a chain of affine and nonlinear rules.

    Args:
        layer: Keras layer, of a very class that has a rule: a subclass may
            compute something else.
        *shapes: Shapes of its inputs, without the batch.

    Returns:
        A list of rules, empty for a layer that changes nothing in inference.

    Raises:
        ValueError: If there is no sound rule for the layer.
    """
    rule = _RULES.get(type(layer))
    if rule is None:
        raise refusal(layer, "there is no sound rule for this class")
    try:
        _check(layer)
        rules = rule(layer, *shapes)
    except ValueError as error:
        raise refusal(layer, str(error)) from error
    return rules + _activation_of(layer)


def refusal(layer, reason):
    """The error that names a layer and why it cannot be certified."""
    known = ", ".join(sorted({kind.__name__ for kind in _RULES}))
    return ValueError(
        "A certificate needs a sound rule for every layer. Received: layer "
        f"'{layer.name}' ({type(layer).__name__}), which is refused: {reason}. "
        f"Known layers: {known}, and QuantLayer at the input or behind what "
        "rescales it."
    )


def _check(layer):
    if layer.compute_dtype != "float32" or layer.variable_dtype != "float32":
        raise ValueError(f"its dtype policy is {layer.dtype_policy.name}")
    if getattr(layer, "quantization_mode", None) is not None:
        raise ValueError("its weights are quantized")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise ValueError(f"its data format is {layer.data_format}")


def _activation_of(layer):
    activation = getattr(layer, "activation", None)
    if activation is None or activation is keras.activations.linear:
        return []
    make = _ACTIVATIONS.get(activation)
    if make is None:
        name = getattr(activation, "__name__", activation)
        raise refusal(layer, f"its activation is {name}")
    return [make()]


def _one(make):
    return lambda layer, *shapes: [make(layer, *shapes)]


def _nothing(layer, *shapes):
    return []


def _relu_layer(layer, shape):
    return [
        piecewise.relu(layer.max_value, layer.negative_slope, layer.threshold)
    ]


def _leaky_relu_layer(layer, shape):
    return [piecewise.relu(negative_slope=layer.negative_slope)]


def _linear_head(layer, shape):
    _check(layer.dense)
    return [affine.dense(layer.dense, shape)]


def _elu_layer(layer, shape):
    return [smooth.elu(layer.alpha)]


def _prelu_layer(layer, shape):
    return [piecewise.prelu(layer.alpha)]


def _batch_normalization(layer, shape):
    if layer.axis in (0, None) or not isinstance(layer.axis, int):
        raise ValueError(f"its axis is {layer.axis}")
    return [scaling.batch_normalization(layer, shape)]


_RULES = {
    _LAYERS.Activation: _nothing,
    _LAYERS.Add: _one(affine.addition),
    _LAYERS.AveragePooling2D: _one(affine.average_pooling),
    _LAYERS.BatchNormalization: _batch_normalization,
    _LAYERS.Concatenate: _one(affine.concatenation),
    _LAYERS.Conv2D: _one(convolutional.convolution),
    _LAYERS.Dense: _one(affine.dense),
    _LAYERS.DepthwiseConv2D: _one(convolutional.depthwise_convolution),
    _LAYERS.Dropout: _nothing,
    _LAYERS.ELU: _elu_layer,
    _LAYERS.Flatten: _one(affine.rearrangement),
    _LAYERS.GlobalAveragePooling2D: _one(affine.global_average_pooling),
    _LAYERS.GlobalMaxPooling2D: _one(pooling.global_max_pooling),
    _LAYERS.Identity: _nothing,
    _LAYERS.LeakyReLU: _leaky_relu_layer,
    _LAYERS.MaxPooling2D: _one(pooling.max_pooling),
    _LAYERS.Normalization: _one(scaling.normalization),
    _LAYERS.PReLU: _prelu_layer,
    _LAYERS.ReLU: _relu_layer,
    _LAYERS.Rescaling: _one(scaling.rescaling),
    _LAYERS.Reshape: _one(affine.rearrangement),
    _LAYERS.SeparableConv2D: convolutional.separable_convolution,
    _LAYERS.ZeroPadding2D: _one(affine.rearrangement),
    FastConv2D: _one(convolutional.convolution),
    LinearHead: _linear_head,
    TwoLogits: _one(affine.rearrangement),
}

_ACTIVATIONS = {
    keras.activations.relu: piecewise.relu,
    keras.activations.relu6: lambda: piecewise.relu(max_value=6.0),
    keras.activations.leaky_relu: lambda: piecewise.relu(negative_slope=0.2),
    keras.activations.elu: smooth.elu,
    keras.activations.sigmoid: smooth.sigmoid,
    keras.activations.tanh: smooth.tanh,
}
