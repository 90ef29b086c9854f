"""The maths of input quantization: thresholds, the staircase, its gradients.

Pure functions of tensors; the Keras layers in `keras_qsn.layers` hold the
weights and call them.
"""

import functools

import numpy as np
import tensorflow as tf

VARIANTS = ("standard", "authors")
GRADIENTS = ("exact", "paper", "straight_through")

# Thresholds summed by one compiled loop body. The body is unrolled, so XLA
# fuses a whole group into a single pass over the pixels; more levels mean
# more passes, never more memory.
_GROUP = 16


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


def reached(x, threshold):
    """Whether a pixel lies in the bin above a threshold: `x >= t`.

    The only place that decides on which side a tie falls.
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

    | `gradient`         | dy/dx              | dy/dt_k                     |
    |--------------------|--------------------|-----------------------------|
    | `exact`            | sum_j S'_j / (n-1) | -S'_k / (n-1)               |
    | `paper` (Eqs. 5-8) | sum_j S'_j / (n-1) | -m * sum_j S'_j / (n-1)     |
    | `straight_through` | 1                  | -S'_k / (n-1)               |

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

    # The kernels see images as rows, `x` (batch, pixels), and thresholds as
    # `levels` (m, pixels) or (m, 1).

    def value(x, levels):
        def step(total, threshold):
            if hard:
                return total + tf.cast(reached(x, threshold), x.dtype)
            return total + tf.sigmoid(steepness * (x - threshold))

        return low + scale * _fold(step, tf.zeros_like(x), levels)

    def d_pixels(x, levels, upstream):
        def step(total, threshold):
            return total + _slope(x, threshold, steepness)

        return scale * upstream * _fold(step, tf.zeros_like(x), levels)

    def d_levels(x, levels, upstream):
        def one(threshold):
            return tf.reduce_sum(
                upstream * _slope(x, threshold, steepness),
                _summed_axis(levels),
            )

        return -scale * _map(one, levels)

    value, d_pixels, d_levels = (
        _compiled(kernel) for kernel in (value, d_pixels, d_levels)
    )

    @tf.custom_gradient
    def staircase(x, thresholds):
        rows = _rows(x)
        levels = _levels(x, thresholds)
        if (low, high) != (0.0, 1.0):
            levels = low + width * levels

        def backward(upstream):
            upstream_rows = _rows(upstream)
            d_x = d_pixels(rows, levels, upstream_rows)
            if gradient == "paper":
                count = thresholds.shape[-1]
                d_t = -count * tf.reduce_sum(d_x, _summed_axis(levels))
                d_t = tf.repeat(d_t[None], count, axis=0)
            else:
                d_t = d_levels(rows, levels, upstream_rows)
            d_t = _like_thresholds(width * d_t, x, thresholds)
            if gradient == "straight_through":
                return upstream, d_t
            return tf.reshape(d_x, tf.shape(x)), d_t

        # Eager tapes would record the kernel itself: they are told not to.
        y = value(tf.stop_gradient(rows), tf.stop_gradient(levels))
        return tf.reshape(y, tf.shape(x)), backward

    return staircase


def _compiled(kernel):
    """Compile a kernel with XLA: one trace for any batch and image size."""

    @functools.cache
    def trace(dtype, levels_shape, num_images):
        images = [tf.TensorSpec([None, None], dtype)] * num_images
        function = tf.function(kernel, autograph=False, jit_compile=True)
        return function.get_concrete_function(
            images[0], tf.TensorSpec(levels_shape, dtype), *images[1:]
        )

    def call(x, levels, *upstream):
        # Pixels are counted at run time, unless one threshold serves them all.
        shape = (levels.shape[0], 1 if levels.shape[1] == 1 else None)
        return trace(x.dtype, shape, 1 + len(upstream))(x, levels, *upstream)

    return call


def _slope(x, threshold, steepness):
    """`z S(u) S(-u)` with `u = z (x - t)`, without cancellation."""
    decay = tf.exp(-steepness * tf.abs(x - threshold))
    return steepness * decay / tf.square(1.0 + decay)


def _rows(x):
    """One row of pixels for each image."""
    return tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])


def _all_shared(thresholds):
    return all(length == 1 for length in thresholds.shape[:-1])


def _levels(x, thresholds):
    """Thresholds as (m, pixels), or (m, 1) when all pixels share them."""
    count = thresholds.shape[-1]
    if not _all_shared(thresholds):
        full = tf.concat([tf.shape(x)[1:], [count]], 0)
        thresholds = tf.broadcast_to(thresholds, full)
    return tf.transpose(tf.reshape(thresholds, [-1, count]))


def _summed_axis(levels):
    """Pixels, when they share a threshold (the batch is left), else batch."""
    return 1 if levels.shape[1] == 1 else 0


def _like_thresholds(d_levels, x, thresholds):
    """Undo `_levels` for a gradient: sum over the pixels that share."""
    if _all_shared(thresholds):
        # (m, batch): the batch is what is left to sum.
        d_levels = tf.reduce_sum(d_levels, 1)
        return tf.reshape(d_levels, thresholds.shape)
    full = tf.concat([tf.shape(x)[1:], [thresholds.shape[-1]]], 0)
    per_pixel = tf.reshape(tf.transpose(d_levels), full)
    shared = [i for i, n in enumerate(thresholds.shape[:-1]) if n == 1]
    return tf.reduce_sum(per_pixel, shared, keepdims=True)


def _fold(step, total, levels):
    """`step` applied to an accumulator for each threshold in turn."""
    count = levels.shape[0]
    size = min(count, _GROUP)
    num_groups = -(-count // size)
    # A threshold at infinity is never reached and has no slope.
    levels = tf.pad(
        levels,
        [[0, num_groups * size - count], [0, 0]],
        constant_values=np.inf,
    )
    groups = tf.reshape(levels, [num_groups, size, tf.shape(levels)[1]])

    def body(index, total):
        for threshold in tf.unstack(groups[index]):
            total = step(total, threshold)
        return index + 1, total

    return _loop(body, num_groups, total)


def _map(function, levels):
    """`function` of each threshold, stacked along the first axis."""
    count = levels.shape[0]
    results = tf.TensorArray(levels.dtype, size=count)

    def body(index, results):
        return index + 1, results.write(index, function(levels[index]))

    return _loop(body, count, results).stack()


def _loop(body, count, state):
    if count == 1:
        return body(0, state)[1]
    return tf.while_loop(
        lambda index, _: index < count,
        body,
        (0, state),
        maximum_iterations=count,
        parallel_iterations=1,
    )[1]
