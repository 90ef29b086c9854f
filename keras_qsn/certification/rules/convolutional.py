"""Convolutions."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.convolution import FastConv2D
from keras_qsn.certification.rules.affine import Affine
from keras_qsn.certification.rules.affine import bias_of
from keras_qsn.certification.rules.affine import most_of_an_image
from keras_qsn.certification.rules.affine import weight_of
from keras_qsn.certification.rules.registry import activation_of
from keras_qsn.certification.rules.registry import register_rule


@register_rule(keras.layers.Conv2D, FastConv2D)
def convolution(layer, shape):
    def product(x, absolute=False):
        kernel = weight_of(layer.kernel, x.dtype, absolute)
        return layer.convolution_op(x, kernel)

    def entries(inputs, outputs):
        return _entries(layer, shape, inputs, outputs)

    # The kernel's channels are those of one group.
    height, width, channels, _ = layer.kernel.shape
    affine = Affine(
        product,
        height * width * channels,
        bias_of(layer.bias),
        entries,
        nonzero=_counter(layer, layer.groups),
    )
    return [affine, *activation_of(layer)]


def _counter(layer, groups):
    """How many inputs other than zero a kernel sees, the most in an image."""

    def nonzero(counted):
        shape = tf.shape(counted)
        grouped = tf.reshape(counted, [*tf.unstack(shape)[:3], groups, -1])
        most = tf.reduce_max(tf.reduce_sum(grouped, -1), -1, keepdims=True)
        ones = tf.ones([*layer.kernel_size, 1, 1], counted.dtype)
        return most_of_an_image(
            keras.ops.conv(
                most,
                ones,
                strides=layer.strides,
                padding=layer.padding,
                data_format="channels_last",
                dilation_rate=layer.dilation_rate,
            )
        )

    return nonzero


def _entries(layer, shape, inputs, outputs):
    """Weights of a convolution between entries, 0 where there is none."""
    kernel = layer.kernel.numpy().astype("float64")
    made = layer.compute_output_shape((1, *shape))[1:]
    *reads, channel = np.unravel_index(inputs, shape)
    *writes, filters = (i[:, None] for i in np.unravel_index(outputs, made))
    group = filters // (made[-1] // layer.groups)
    channel = channel - group * kernel.shape[2]
    weighs = (channel >= 0) & (channel < kernel.shape[2])
    taps = []
    for axis, (read, write) in enumerate(zip(reads, writes)):
        stride, dilation = layer.strides[axis], layer.dilation_rate[axis]
        size = kernel.shape[axis]
        first = write * stride
        if layer.padding == "same":
            last = (made[axis] - 1) * stride + (size - 1) * dilation + 1
            first = first - max(last - shape[axis], 0) // 2
        tap, between = np.divmod(read - first, dilation)
        weighs &= (between == 0) & (tap >= 0) & (tap < size)
        taps.append(tap)
    index = (np.where(weighs, part, 0) for part in (*taps, channel))
    return np.where(weighs, kernel[(*index, filters)], 0.0)


@register_rule(keras.layers.DepthwiseConv2D)
def _depthwise_convolution(layer, shape):
    affine = _depthwise(layer, layer.kernel, shape, bias_of(layer.bias))
    return [affine, *activation_of(layer)]


@register_rule(keras.layers.SeparableConv2D)
def _separable_convolution(layer, shape):
    """A depthwise convolution, and a product with the channels it made."""
    depthwise = _depthwise(layer, layer.depthwise_kernel, shape)

    def product(x, absolute=False):
        kernel = weight_of(layer.pointwise_kernel, x.dtype, absolute)
        return keras.ops.conv(x, kernel, data_format="channels_last")

    pointwise = Affine(
        product,
        layer.pointwise_kernel.shape[2],
        bias_of(layer.bias),
        nonzero=most_of_an_image,
    )
    return [depthwise, pointwise, *activation_of(layer)]


def _depthwise(layer, variable, shape, bias=None):
    def product(x, absolute=False):
        return keras.ops.depthwise_conv(
            x,
            weight_of(variable, x.dtype, absolute),
            strides=layer.strides,
            padding=layer.padding,
            data_format="channels_last",
            dilation_rate=layer.dilation_rate,
        )

    height, width, channels, multiplier = variable.shape
    made = layer.compute_output_shape((1, *shape))[1:3]
    return Affine(
        product,
        height * width,
        bias,
        # At least as many as of one channel.
        nonzero=_counter(layer, channels),
        shape=(*made, channels * multiplier),
    )
