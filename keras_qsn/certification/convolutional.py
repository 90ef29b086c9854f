"""Convolutions as affine rules."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.certification.affine import Affine
from keras_qsn.certification.affine import bias_of
from keras_qsn.certification.affine import weight_of
from keras_qsn.certification.bounds import UNDERFLOW


def convolution(layer, shape):
    def product(x, absolute=False):
        kernel = weight_of(layer.kernel, x.dtype, absolute)
        return layer.convolution_op(x, kernel)

    def entries(inputs, outputs):
        return _entries(layer, shape, inputs, outputs)

    # The kernel's channels are those of one group.
    height, width, channels, _ = layer.kernel.shape
    terms = height * width * channels
    return Affine(product, terms, bias_of(layer.bias), entries)


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


def depthwise_convolution(layer, shape):
    def product(x, absolute=False):
        return keras.ops.depthwise_conv(
            x,
            weight_of(layer.kernel, x.dtype, absolute),
            strides=layer.strides,
            padding=layer.padding,
            data_format="channels_last",
            dilation_rate=layer.dilation_rate,
        )

    height, width = layer.kernel_size
    return Affine(product, height * width, bias_of(layer.bias))


def separable_convolution(layer, shape):
    """A depthwise convolution and a product with what it made, in one.

    Two sums of products, one of the other's results, are off by no more than
    a sum of as many as both have (Higham, 2002, lemma 3.3).
    """

    def product(x, absolute=False):
        depthwise, pointwise = (
            weight_of(kernel, x.dtype, absolute)
            for kernel in (layer.depthwise_kernel, layer.pointwise_kernel)
        )
        return keras.ops.separable_conv(
            x,
            depthwise,
            pointwise,
            strides=layer.strides,
            padding=layer.padding,
            data_format="channels_last",
            dilation_rate=layer.dilation_rate,
        )

    def bias(dtype):
        pointwise = weight_of(layer.pointwise_kernel, dtype, absolute=True)
        # What the depthwise sums may lose to underflow.
        size = UNDERFLOW * tf.reduce_sum(pointwise, [0, 1, 2])
        if layer.bias is None:
            return tf.zeros_like(size), size
        value = weight_of(layer.bias, dtype)
        return value, size + tf.abs(value)

    height, width, _, _ = layer.depthwise_kernel.shape
    terms = height * width + layer.pointwise_kernel.shape[2]
    return Affine(product, terms, bias)
