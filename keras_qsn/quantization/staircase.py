"""The maths of input quantization: thresholds, the staircase, its gradients.

Pure functions of tensors; the Keras layers in `keras_qsn.layers` hold the
weights and call them.
"""

import numpy as np
import tensorflow as tf

from keras_qsn.quantization import kernels

VARIANTS = ("standard", "authors")
GRADIENTS = ("exact", "paper", "straight_through")

# The smallest normal float32. Processors that flush smaller numbers to zero
# would move a tie.
_TINY = np.float64(np.finfo("float32").tiny)


def equally_spaced_thresholds(num_levels, variant="standard"):
    """Thresholds that cut `[0, 1]` into `num_levels` equal bins.

    `t_k = k / n` for `k = 1..n-1` (`variant="standard"`) or for `k = 1..n`
    (`variant="authors"`, whose last threshold sits at 1).

    Args:
        num_levels: Integer >= 2, the paper's `n`.
        variant: `"standard"` or `"authors"`.

    Returns:
        A float64 NumPy array of `n - 1` or `n` increasing values in `[0, 1]`.

    Raises:
        ValueError: If `num_levels` is not an integer of at least 2, or
            `variant` is unknown.

    Example:

    >>> equally_spaced_thresholds(4).tolist()
    [0.25, 0.5, 0.75]

    Reference:
        - Ali et al., 2018, text below Eq. 1: https://arxiv.org/abs/1811.01437
    """
    if (
        isinstance(num_levels, bool)
        or not isinstance(num_levels, (int, np.integer))
        or num_levels < 2
    ):
        raise ValueError(
            "`num_levels` must be an integer of at least 2. "
            f"Received: num_levels={num_levels!r}"
        )
    if variant not in VARIANTS:
        raise ValueError(
            f"`variant` must be one of {', '.join(map(repr, VARIANTS))}. "
            f"Received: variant={variant!r}"
        )
    count = num_levels if variant == "authors" else num_levels - 1
    return np.arange(1, count + 1) / num_levels


def in_pixels(thresholds, value_range=(0.0, 1.0)):
    """Thresholds in the units of the pixels, the same however compiled.

    `low + (high - low) t`, with `low` and `high - low` rounded to float32,
    computed in float64 and rounded once. The product of two float32 is exact
    in float64: a compiler that fuses it with the sum changes nothing.
    Numbers closer to zero than `2^-126`, the smallest normal float32, count
    as zero before, and as `-2^-126` after, so that a processor that takes
    smaller pixels for zero decides as one that does not.

    Args:
        thresholds: Tensor in units of `value_range`.
        value_range: The smallest and largest pixel value.

    Returns:
        A tensor with the shape and dtype of `thresholds`.

    Example:

    >>> float(in_pixels(tf.constant(0.25), (-1.0, 1.0)))
    -0.5

    Limitations:
        Float64 thresholds have products that are not exact: there, fusing may
        move the last bit.
    """
    low, high = value_range
    t = tf.where(tf.abs(thresholds) < float(_TINY), 0.0, thresholds)
    t = tf.cast(t, tf.float64) * np.float64(np.float32(high - low))
    t += np.float64(np.float32(low))
    t = tf.where(tf.abs(t) < _TINY, -_TINY, t)
    return tf.cast(t, thresholds.dtype)


def reached(x, threshold):
    """Whether a pixel lies in the bin above a threshold: `x >= t`.

    The only place that decides on which side a tie falls; `t` is made by
    `in_pixels`.
    """
    return x >= threshold


def make_staircase(
    num_levels,
    steepness,
    hard=False,
    gradient="exact",
    value_range=(0.0, 1.0),
):
    """Build the quantization function `y(x, t)` of Eq. 1 with its gradient.

    Forward, with `n = num_levels`, `z = steepness` and `S` the logistic
    function, for pixels in `[0, 1]`:

        soft:  y = 1/(n-1) * sum_k S(z (x - t_k))
        hard:  y = 1/(n-1) * sum_k [x >= t_k]

    Backward, for soft and hard alike, with `S'_k = z S(u_k) S(-u_k)` and
    `u_k = z (x - t_k)`:

        gradient             dy/dx                dy/dt_k
        "exact"              sum_j S'_j / (n-1)   -S'_k / (n-1)
        "paper" (Eqs. 5-8)   sum_j S'_j / (n-1)   -m * sum_j S'_j / (n-1)
        "straight_through"   1                    -S'_k / (n-1)

    where `m` is the number of thresholds: Eq. 7 multiplies the sum of the
    sensitivities by the sum of the slopes. The slope is never formed as
    `y (1 - y)`: in float32 that is exactly zero once `y` rounds to one, which
    would hide bright pixels from every gradient-based attack.

    Neither direction stores one value per level: memory does not grow with
    `num_levels`.

    Args:
        num_levels: Integer >= 2, the paper's `n`.
        steepness: Positive float, the paper's `z`, per width of
            `value_range`.
        hard: Whether the output is the exact level.
        gradient: `"exact"`, `"paper"` or `"straight_through"`.
        value_range: The smallest and largest value of `x` and of the result.

    Returns:
        A function of `x`, float32 or float64 of shape `(batch, *pixels)` in
        `value_range`, and `thresholds`, same dtype, in `[0, 1]`, of shape
        `(*pixels, m)` where any pixel axis may have length 1 to share
        thresholds along it. It returns a tensor with the shape and dtype of
        `x`, in `value_range`.

    Example:

    >>> quantize = make_staircase(3, steepness=50.0, hard=True)
    >>> pixels, thresholds = [[0.1, 0.5, 0.9]], [[0.3, 0.7]]
    >>> quantize(tf.constant(pixels), tf.constant(thresholds)).numpy().tolist()
    [[0.0, 0.5, 1.0]]

    Limitations:
        The soft slope falls off as `exp(-z |x - t|)`: gradients survive, but
        are tiny away from a threshold, so magnitude-based attacks see little
        (Athalye et al., 2018). Use `"straight_through"` to attack.

    Reference:
        - Ali et al., 2018, Eqs. 1 and 4-8: https://arxiv.org/abs/1811.01437
        - Athalye et al., 2018 (straight-through, BPDA):
          https://arxiv.org/abs/1802.00420
    """
    low, high = value_range
    width = high - low
    # Thresholds and steepness go to the units of the pixels, never the pixels
    # to units of the range: a rescaled pixel could land across a threshold.
    steepness = steepness / width
    scale = width / (num_levels - 1)

    def value(x, levels, group):
        def term(threshold):
            if hard:
                return tf.cast(reached(x, threshold), x.dtype)
            return tf.sigmoid(steepness * (x - threshold))

        y = kernels.total(term, x, levels, group)
        # Each is a pass over the pixels, most often for nothing.
        y = y if scale == 1.0 else scale * y
        return y if low == 0.0 else low + y

    def d_pixels(x, levels, upstream):
        def term(threshold):
            return _slope(x, threshold, steepness)

        return scale * upstream * kernels.total(term, x, levels)

    def d_levels(x, levels, upstream):
        def one(threshold):
            return tf.reduce_sum(
                upstream * _slope(x, threshold, steepness),
                kernels.summed_axis(levels),
            )

        return -scale * kernels.map_levels(one, levels)

    value = kernels.forward(value)
    d_pixels = kernels.compile_kernel(d_pixels)
    d_levels = kernels.compile_kernel(d_levels)

    @tf.custom_gradient
    def staircase(x, thresholds):
        t = in_pixels(thresholds, value_range)

        def backward(upstream):
            rows, levels = kernels.rows(x), kernels.levels_of(x, t)
            upstream_rows = kernels.rows(upstream)
            d_x = d_pixels(rows, levels, upstream_rows)
            if gradient == "paper":
                count = thresholds.shape[-1]
                d_t = -count * tf.reduce_sum(d_x, kernels.summed_axis(levels))
                d_t = tf.repeat(d_t[None], count, axis=0)
            else:
                d_t = d_levels(rows, levels, upstream_rows)
            d_t = kernels.like_thresholds(width * d_t, x, thresholds)
            if gradient == "straight_through":
                return upstream, d_t
            return tf.reshape(d_x, tf.shape(x)), d_t

        # Eager tapes would record the kernel itself: they are told not to.
        return value(tf.stop_gradient(x), tf.stop_gradient(t)), backward

    return staircase


def _slope(x, threshold, steepness):
    """`z S(u) S(-u)` with `u = z (x - t)`, without cancellation."""
    decay = tf.exp(-steepness * tf.abs(x - threshold))
    return steepness * decay / tf.square(1.0 + decay)
