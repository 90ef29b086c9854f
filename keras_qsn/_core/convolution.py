"""A Conv2D whose gradients are matrix products where TensorFlow's are not.

Attacks and adversarial training live on the gradient with respect to the
input, the direction TensorFlow's CPU kernels are slowest in.
"""

import functools

import keras
import tensorflow as tf

from keras_qsn._core.tracing import layers_of
from keras_qsn._core.tracing import replaced


@keras.saving.register_keras_serializable(package="keras_qsn")
class FastConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a faster gradient for its input on a CPU.

    The same function, arguments and weights, results equal to float
    tolerance. Two cases are computed differently:

    - A kernel as large as the unpadded input sees it all at once: a dense
      product, forward and backward.
    - With strides of at least 2 that divide the kernel and few input
      channels, the gradient of the input is that of an equal convolution of
      stride 1 over blocks of pixels (space to depth): 2 to 3 times faster
      here.

    Everything else is left to TensorFlow.

    Args:
        *args: As for `keras.layers.Conv2D`.
        **kwargs: As for `keras.layers.Conv2D`.

    Input shape:
        As for `keras.layers.Conv2D`.

    Output shape:
        As for `keras.layers.Conv2D`.

    Example:

    >>> layer = FastConv2D(4, 8, strides=2, padding="same")
    >>> layer(np.zeros((1, 28, 28, 1), "float32")).shape
    TensorShape([1, 14, 14, 4])

    Limitations:
        On an accelerator, and inside XLA, the stock kernels are as good.
    """

    def convolution_op(self, inputs, kernel):
        return _convolve(self, inputs, kernel)


def fast_convolutions(model, product_dtype=None):
    """A context in which stock `Conv2D` layers compute as `FastConv2D`.

    For functions traced inside it.

    Args:
        model: Keras model; models inside it are reached too.
        product_dtype: Optional dtype, such as `"bfloat16"`, that inputs and
            kernels, `FastConv2D`'s too, are rounded to before they are
            multiplied, and their products after; what comes back has the
            inputs' dtype. Defaults to `None`: no rounding.
    """
    # Of the very class: a subclass may compute something else.
    kinds, function = (keras.layers.Conv2D,), _convolve
    if product_dtype is not None:
        kinds = (keras.layers.Conv2D, FastConv2D)
        function = functools.partial(_convolve_rounded, product_dtype)
    found = [layer for layer in layers_of(model) if type(layer) in kinds]
    return replaced(found, "convolution_op", function)


def _convolve_rounded(dtype, layer, inputs, kernel):
    product = _convolve(
        layer,
        tf.cast(inputs, dtype),
        tf.cast(tf.convert_to_tensor(kernel), dtype),
    )
    return tf.cast(product, inputs.dtype)


def _convolve(layer, inputs, kernel):
    """`layer.convolution_op`, by the faster way where there is one."""
    plain = (
        layer.data_format == "channels_last"
        and layer.dilation_rate == (1, 1)
        and layer.groups == 1
    )
    if plain and _sees_all(layer, inputs):
        size = inputs.shape[1] * inputs.shape[2] * inputs.shape[3]
        flat = tf.reshape(inputs, [-1, size])
        product = flat @ tf.reshape(kernel, [size, layer.filters])
        return product[:, None, None, :]
    if plain and _gains_from_blocks(layer, inputs):
        return _strided(inputs, kernel, layer.strides[0], layer.padding)
    return keras.layers.Conv2D.convolution_op(layer, inputs, kernel)


def _sees_all(layer, inputs):
    whole = tuple(inputs.shape[1:3]) == layer.kernel_size
    return whole and layer.padding == "valid"


def _gains_from_blocks(layer, inputs):
    stride = layer.strides[0]
    return (
        None not in inputs.shape[1:3]
        and layer.padding in ("same", "valid")
        and layer.strides == (stride, stride)
        and stride >= 2
        and all(size % stride == 0 for size in layer.kernel_size)
        # With many channels the stock kernel is a large product already.
        and inputs.shape[3] <= 16
    )


def _strided(inputs, kernel, stride, padding):
    """A strided convolution with its input's gradient taken over blocks."""
    padding = padding.upper()

    @tf.custom_gradient
    def convolve(x, kernel):
        def backward(upstream):
            d_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=x,
                filter_sizes=kernel.shape,
                out_backprop=upstream,
                strides=[1, stride, stride, 1],
                padding=padding,
            )
            return _input_gradient(x, kernel, upstream), d_kernel

        return tf.nn.conv2d(x, kernel, stride, padding), backward

    def _input_gradient(x, kernel, upstream):
        spans = [
            _span(x.shape[i + 1], kernel.shape[i], stride, padding)
            for i in range(2)
        ]
        blocks = [tf.shape(x)[0]] + [seen // stride for _, seen in spans]
        blocks.append(stride * stride * x.shape[3])
        gradient = tf.nn.conv2d_transpose(
            upstream, _blocks_of_kernel(kernel, stride), blocks, 1, "VALID"
        )
        gradient = tf.nn.depth_to_space(gradient, stride)
        # Cut what the padding saw, add back the pixels no kernel saw.
        (top, height), (left, width) = spans
        bottom, right = top + x.shape[1], left + x.shape[2]
        gradient = gradient[:, top:bottom, left:right, :]
        unseen = [[0, 0], [0, max(bottom - height, 0)]]
        unseen += [[0, max(right - width, 0)], [0, 0]]
        return tf.pad(gradient, unseen)

    return convolve(inputs, tf.convert_to_tensor(kernel))


def _span(length, size, stride, padding):
    """Pixels of padding before, and pixels seen from there on."""
    if padding == "VALID":
        return 0, (length - size) // stride * stride + size
    seen = (-(-length // stride) - 1) * stride + size
    return max(seen - length, 0) // 2, seen


def _blocks_of_kernel(kernel, stride):
    """The kernel over blocks: (size/stride)^2 taps of stride^2 channels."""
    height, width, channels, filters = kernel.shape
    rows, columns = height // stride, width // stride
    kernel = tf.reshape(
        kernel, [rows, stride, columns, stride, channels, filters]
    )
    kernel = tf.transpose(kernel, [0, 2, 1, 3, 4, 5])
    return tf.reshape(kernel, [rows, columns, stride**2 * channels, filters])
