"""Squeezers of the value and of the neighbourhood of a pixel."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn.layers import QuantLayer


@keras.saving.register_keras_serializable(package="keras_qsn")
class BitDepthReduction(QuantLayer):
    """Rounds each pixel to the grey levels that a few bits can tell apart.

    With `i = bits` and pixels scaled to `[0, 1]`:

        y = round(x (2^i - 1)) / (2^i - 1)

    which is a hard `QuantLayer` of `2^i` levels whose thresholds, shared by
    all pixels, lie halfway between levels:
    `t_k = (2k - 1) / (2 (2^i - 1))` for `k = 1..2^i - 1`. So attacks, checks
    and certificates treat it as the quantizer it is.

    A pixel halfway between two levels goes up. `np.round` takes the even
    neighbour there: at 0.5 and one bit it returns 0, this layer 1. None of
    the 256 grey levels `g / 255` lies halfway, for any number of bits.

    Args:
        bits: Integer from 1 to 8, the paper's `i`. The paper uses 1 on MNIST
            and 5 on CIFAR-10.
        steepness: Float > 0. Steepness of the sigmoids whose slope
            `gradient="exact"` returns. Defaults to `50.0`.
        gradient: As for `QuantLayer`; rounding has none, each is a surrogate.
            Defaults to `"straight_through"`: ordinary attacks are BPDA.
        value_range: Pair of floats, the smallest and largest pixel value.
            Defaults to `(0, 1)`.
        **kwargs: Base `Layer` arguments. `trainable` defaults to `False`.

    Call arguments:
        inputs: Floating-point tensor of pixels in `value_range`.

    Input shape:
        `(batch, ...)`, any rank of at least 2.

    Output shape:
        Same as the input.

    Raises:
        ValueError: If an argument is out of range, or a call receives pixels
            far outside `value_range`.
        TypeError: If the inputs are integers.

    Example:

    >>> squeeze = BitDepthReduction(bits=2)
    >>> squeeze(np.array([[0.1, 0.4, 0.9]], "float32")).numpy().round(3)
    array([[0.   , 0.333, 1.   ]], dtype=float32)

    Limitations:
        A masked gradient and little else. BPDA (Athalye et al., 2018) and
        `CubeAttack` go through it; He et al. (2017) defeat it, alone and in a
        detector, with an attack that knows of it.

    Reference:
        - Xu et al., 2018 (feature squeezing): https://arxiv.org/abs/1704.01155
        - He et al., 2017: https://arxiv.org/abs/1706.04701
        - Athalye et al., 2018 (BPDA): https://arxiv.org/abs/1802.00420
    """

    def __init__(
        self,
        bits,
        steepness=50.0,
        gradient="straight_through",
        value_range=(0.0, 1.0),
        **kwargs,
    ):
        bits = _check_bits(bits)
        steps = 2**bits - 1
        kwargs.setdefault("trainable", False)
        super().__init__(
            num_levels=steps + 1,
            steepness=steepness,
            hard=True,
            gradient=gradient,
            value_range=value_range,
            threshold_initializer=[
                (2 * k - 1) / (2 * steps) for k in range(1, steps + 1)
            ],
            **kwargs,
        )
        self.bits = bits

    def build(self, input_shape):
        self.shared_axes = list(range(1, len(input_shape)))
        super().build(input_shape)

    def get_config(self):
        config = super().get_config()
        for fixed in (
            "num_levels",
            "shared_axes",
            "hard",
            "variant",
            "threshold_initializer",
            "threshold_constraint",
        ):
            del config[fixed]
        return {**config, "bits": self.bits}


@keras.saving.register_keras_serializable(package="keras_qsn")
class MedianSmoothing(keras.layers.Layer):
    """Replaces each pixel by the median of the window around it.

    `y(p) = median of x(q), q in the height x width window around p`, for each
    channel by itself. Beyond its edge the image is reflected, the outermost
    pixel included. As `scipy.ndimage.median_filter(mode="reflect")`, bit by
    bit: the window reaches `size // 2` pixels up and left and
    `(size - 1) // 2` down and right, and of an even number of values the
    upper of the two in the middle is taken.

    The gradient goes to the one pixel selected.

    Args:
        size: Integer >= 1, or a pair `(height, width)`. Defaults to `2`, the
            paper's choice for MNIST and CIFAR-10; it also uses 3.
        **kwargs: Base `Layer` arguments: `name`, `dtype`.

    Call arguments:
        inputs: Tensor of images, channels last.

    Input shape:
        `(batch, height, width, channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: If `size` is out of range, the inputs are not images, or
            they are smaller than half the window.

    Example:

    >>> image = np.zeros((1, 5, 5, 1), "float32")
    >>> image[0, 2, 2] = 1.0
    >>> float(keras.ops.max(MedianSmoothing(3)(image)))
    0.0

    Limitations:
        Removes single changed pixels (JSMA, CW-L0), not a perturbation spread
        over the image. It is differentiable almost everywhere and hides no
        gradient: PGD and CW through it are adaptive attacks, and He et al.
        (2017) defeat it with one. The window is sorted by comparing
        neighbours, which suits windows of some 25 pixels, not of hundreds.

    Reference:
        - Xu et al., 2018 (feature squeezing): https://arxiv.org/abs/1704.01155
        - He et al., 2017: https://arxiv.org/abs/1706.04701
    """

    def __init__(self, size=2, **kwargs):
        super().__init__(**kwargs)
        self.size = _check_size(size)

    def build(self, input_shape):
        check_image_shape(
            self, input_shape, [length // 2 for length in self.size]
        )

    def call(self, inputs):
        return _order_statistic(
            _windows(inputs, *self.size), self.size[0] * self.size[1] // 2
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def check_image_shape(layer, input_shape, least):
    """Refuse inputs that are no images, or too small to be reflected."""
    if len(input_shape) != 4:
        raise ValueError(
            f"{type(layer).__name__} expects images of shape (batch, height, "
            f"width, channels). Received: input_shape={tuple(input_shape)}. "
            "Put it before the layer that flattens them."
        )
    for length, smallest in zip(input_shape[1:3], least):
        if length is not None and length < smallest:
            raise ValueError(
                f"{type(layer).__name__} expects images of at least "
                f"{least[0]}x{least[1]} pixels, to reflect them at their "
                f"edges. Received: input_shape={tuple(input_shape)}. Use a "
                "smaller window."
            )


def _windows(x, height, width):
    """The images shifted to each place of the window."""
    down, right = (height - 1) // 2, (width - 1) // 2
    padded = tf.pad(
        x,
        [[0, 0], [height // 2, down], [width // 2, right], [0, 0]],
        "SYMMETRIC",
    )
    return [
        padded[:, i : i - height + 1 or None, j : j - width + 1 or None]
        for i in range(height)
        for j in range(width)
    ]


def _order_statistic(values, rank):
    """The value with `rank` smaller ones, by comparing neighbours.

    Each round carries the largest value left to the end, as in bubble sort.
    For windows of a few pixels this is 10 times faster than sorting.
    """
    values = list(values)
    for last in range(len(values) - 1, rank - 1, -1):
        for i in range(last):
            a, b = values[i : i + 2]
            values[i : i + 2] = tf.minimum(a, b), tf.maximum(a, b)
    return values[rank]


def _check_bits(bits):
    if check_count("bits", bits) > 8:
        raise ValueError(
            "`bits` must be a whole number from 1 to 8: images have 8 bits "
            f"per pixel. Received: bits={bits}"
        )
    return int(bits)


def _check_size(size):
    pair = (size, size) if np.ndim(size) == 0 else tuple(size)
    if len(pair) != 2:
        raise ValueError(
            "`size` must be an integer or a pair (height, width). "
            f"Received: size={size}"
        )
    return tuple(check_count("size", length) for length in pair)
