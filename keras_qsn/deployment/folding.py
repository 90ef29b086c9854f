"""Products of layers, and batch normalization folded into them."""

import keras
import tensorflow as tf

PRODUCTS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Dense,
)


def product(layer, x, kernel):
    """What a layer computes of another kernel, without bias and activation."""
    if isinstance(layer, keras.layers.Dense):
        return keras.ops.matmul(x, kernel)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return keras.ops.depthwise_conv(
            x,
            kernel,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
        )
    return layer.convolution_op(x, kernel)


def by_channel(layer, kernel):
    """The kernel with one last axis of all output channels."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        height, width, channels, multiplier = kernel.shape
        return tf.reshape(kernel, [height, width, channels * multiplier])
    return tf.convert_to_tensor(kernel)


def folded(kernel, bias, batch_norm):
    """Kernel and bias with batch normalization in inference inside.

        kernel' = s kernel,  bias' = beta + s (bias - mean)
        with s = gamma / sqrt(variance + epsilon), for each channel

    Args:
        kernel: Tensor; its last axis are the channels.
        bias: Tensor of one number for each channel, or `None`.
        batch_norm: Built `keras.layers.BatchNormalization`.
    """
    scale = keras.ops.rsqrt(batch_norm.moving_variance + batch_norm.epsilon)
    if batch_norm.scale:
        scale = scale * batch_norm.gamma
    offset = (
        -batch_norm.moving_mean
        if bias is None
        else (bias - batch_norm.moving_mean)
    )
    offset = offset * scale
    if batch_norm.center:
        offset = offset + batch_norm.beta
    return kernel * scale, offset
