"""Layers of products and sums, and those that only move numbers."""

import keras
import tensorflow as tf

from keras_qsn.certification.rules.affine import Affine
from keras_qsn.certification.rules.affine import bias_of
from keras_qsn.certification.rules.affine import most_of_an_image
from keras_qsn.certification.rules.affine import weight_of
from keras_qsn.certification.rules.registry import activation_of
from keras_qsn.certification.rules.registry import check_numbers
from keras_qsn.certification.rules.registry import register_rule
from keras_qsn.classifier.heads import LinearHead
from keras_qsn.classifier.heads import TwoLogits

_LAYERS = keras.layers


@register_rule(_LAYERS.Dropout, _LAYERS.Identity)
def _nothing(layer, *shapes):
    return []


@register_rule(_LAYERS.Dense)
def dense(layer, shape):
    return [_product(layer, shape), *activation_of(layer)]


@register_rule(LinearHead)
def _linear_head(layer, shape):
    check_numbers(layer.dense)
    return _product(layer.dense, shape)


def _product(layer, shape):
    def product(x, absolute=False):
        return keras.ops.matmul(x, weight_of(layer.kernel, x.dtype, absolute))

    return Affine(
        product, shape[-1], bias_of(layer.bias), nonzero=most_of_an_image
    )


@register_rule(
    _LAYERS.Flatten, _LAYERS.Reshape, _LAYERS.ZeroPadding2D, TwoLogits
)
def _rearrangement(layer, shape, terms=0):
    """A layer without weights, whose `W` holds nothing below zero."""

    def product(x, absolute=False):
        return type(layer).call(layer, x)

    return Affine(product, terms, mixes=terms > 0)


@register_rule(_LAYERS.AveragePooling2D)
def _average_pooling(layer, shape):
    height, width = layer.pool_size
    return _rearrangement(layer, shape, terms=height * width + 1)


@register_rule(_LAYERS.GlobalAveragePooling2D)
def _global_average_pooling(layer, shape):
    height, width, _ = shape
    return _rearrangement(layer, shape, terms=height * width + 1)


@register_rule(_LAYERS.Add)
def _addition(layer, *shapes):
    if len(set(shapes)) > 1:
        raise ValueError(f"inputs of different shapes, {shapes}")

    def product(*inputs, absolute=False):
        return tf.add_n(inputs)

    return Affine(product, terms=len(shapes))


@register_rule(_LAYERS.Concatenate)
def _concatenation(layer, *shapes):
    axis = layer.axis
    if axis == 0:
        raise ValueError("it joins images, its axis is 0")

    def product(*inputs, absolute=False):
        return tf.concat(inputs, axis)

    return Affine(product, mixes=False)
