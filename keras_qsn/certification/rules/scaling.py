"""Layers that scale and shift each number by itself."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.affine import Affine
from keras_qsn.certification.rules.affine import weight_of
from keras_qsn.certification.rules.registry import register_rule

# Rounding steps on the way through a normalization, its inverse square root
# (a few units off on some devices) included: half as many for each number.
_NORMALIZATION_TERMS = 32


def _scaling(parts, terms):
    """`s x + b` with factors that each number has of its own.

    Args:
        parts: Function of a dtype that returns `s`, `b`, and the size of all
            that `b` was computed from.
        terms: Rounding steps on the way.
    """

    def product(x, absolute=False):
        factor, _, _ = parts(x.dtype)
        return x * (tf.abs(factor) if absolute else factor)

    return Affine(product, terms, lambda dtype: parts(dtype)[1:], mixes=False)


@register_rule(keras.layers.Rescaling)
def _rescaling(layer, shape):
    """`scale x + offset`, as float32 sees them."""
    scale, offset = (
        np.asarray(part, "float32") for part in (layer.scale, layer.offset)
    )
    if scale.ndim and keras.config.image_data_format() != "channels_last":
        raise ValueError("its scale is for channels first")
    made = np.broadcast_shapes(shape, scale.shape, offset.shape)
    if made != tuple(shape):
        raise ValueError(f"it makes images of {shape} ones of {made}")

    def parts(dtype):
        shift = tf.cast(offset, dtype)
        return tf.cast(scale, dtype), shift, tf.abs(shift)

    return _scaling(parts, terms=1)


@register_rule(keras.layers.Normalization)
def _normalization(layer, shape):
    """`(x - mean) / d` or, inverted, `mean + d x`, `d` the deviation."""

    def stored(constant, dtype):
        constant = weight_of(constant, dtype)
        return tf.reshape(constant, constant.shape[-len(shape) :])

    def parts(dtype):
        mean = stored(layer.mean, dtype)
        deviation = tf.maximum(
            tf.sqrt(stored(layer.variance, dtype)),
            float(np.float32(keras.config.epsilon())),
        )
        if layer.invert:
            return deviation, mean, tf.abs(mean)
        shift = -mean / deviation
        return 1 / deviation, shift, tf.abs(shift)

    return _scaling(parts, _NORMALIZATION_TERMS)


@register_rule(keras.layers.BatchNormalization)
def _batch_normalization(layer, shape):
    """`s x + (beta - s mean)`, `s = gamma / sqrt(variance + epsilon)`."""
    if layer.axis in (0, None) or not isinstance(layer.axis, int):
        raise ValueError(f"its axis is {layer.axis}")
    along = [1] * len(shape)
    along[layer.axis % (len(shape) + 1) - 1] = -1

    def stored(variable, dtype):
        return tf.reshape(weight_of(variable, dtype), along)

    def parts(dtype):
        variance = stored(layer.moving_variance, dtype)
        # The layer adds its epsilon in float32.
        factor = tf.math.rsqrt(variance + float(np.float32(layer.epsilon)))
        if layer.scale:
            factor = factor * stored(layer.gamma, dtype)
        shift = factor * stored(layer.moving_mean, dtype)
        beta = tf.zeros_like(shift)
        if layer.center:
            beta = stored(layer.beta, dtype)
        return factor, beta - shift, tf.abs(beta) + tf.abs(shift)

    return _scaling(parts, _NORMALIZATION_TERMS)
