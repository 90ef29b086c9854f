"""What attacks look at in place of a model's own logits."""

import tensorflow as tf

from keras_qsn._core.tracing import replaced
from keras_qsn.classifier.opened import quantizers_of


def backward_through(wrapper, steepness):
    """The model's logits, with another gradient through its quantizers.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        steepness: Float or scalar tensor, that of a soft quantizer whose
            gradient is used; `None` for that of the identity.

    Returns:
        A function from images to logits.
    """
    layers = quantizers_of(wrapper)

    def call(layer, inputs, **_):
        x = tf.cast(inputs, layer.variable_dtype)
        y = tf.stop_gradient(type(layer).call(layer, inputs))
        if steepness is None:
            surrogate = x
        else:
            surrogate = _soft(layer, x, steepness)
        # A zero that carries the gradient: the forward value is exact.
        surrogate -= tf.stop_gradient(surrogate)
        return y + tf.cast(surrogate, y.dtype)

    def logits_fn(x):
        with replaced(layers, "call", call):
            return wrapper.get_logits(x)

    return logits_fn


def surrogate_key(steepness):
    """Hashable, the same for the same `backward_through` of a model."""
    return "surrogate", steepness


def _soft(layer, x, steepness):
    """The soft staircase by plain autodiff, for a steepness that varies."""
    low, high = layer.value_range
    unit = (x - low) / (high - low)
    thresholds = tf.convert_to_tensor(layer.thresholds)
    total = tf.zeros_like(x)
    for k in range(layer.num_thresholds):
        total += tf.sigmoid(steepness * (unit - thresholds[..., k]))
    return low + (high - low) * total / (layer.num_levels - 1)
