"""Fake quantization: the values an integer kernel would compute, as floats."""

import tensorflow as tf

# Of a step: what is nearer to the middle of two levels is a tie.
_PARTS = 4096.0


def grid(low, high, bits):
    """Step and zero point of a range, moved so that zero is a level.

        step = (high - low) / (2^bits - 1),  zero = round(-low / step)

    A range that is a single point, 0, has steps of 1.

    Args:
        low: Scalar tensor <= 0.
        high: Scalar tensor >= 0.
        bits: Integer.

    Returns:
        The step, and the level of zero, from 0 to `2^bits - 1`.
    """
    step = (high - low) / (2**bits - 1)
    step = tf.where(step > 0, step, tf.ones_like(step))
    return step, tf.floor(0.5 - low / step)


def ends(low, high, bits):
    """The lowest and the highest level of a range.

    Where zero is midway between two levels, as of -1 to 1, kernels move it up
    or down, each as it likes: of these ends they all make the same levels.
    """
    step, zero = grid(low, high, bits)
    return -zero * step, (2**bits - 1 - zero) * step


def activations(x, low, high, bits, ties=False):
    """Per-tensor affine: the nearest of `2^bits` levels of a range.

        q = clip(round(x / step) + zero, 0, 2^bits - 1)
        y = step (q - zero)

    The gradient is straight through where `x` is in the range, else 0.

    Args:
        x: Float32 tensor.
        low: Scalar, the smallest value, <= 0.
        high: Scalar, the largest value, >= 0.
        bits: Integer from 2 to 16.
        ties: Whether values halfway between levels are no accident: they go
            up, as `nearest` has them.
    """
    low, high = ends(low, high, bits)
    if ties:
        x = _straight_through(x, nearest(tf.stop_gradient(x), low, high, bits))
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high, bits)


def nearest(x, low, high, bits):
    """The nearest multiple of a range's step, in operations of floats.

    Ties go up. They are no accident: a byte scaled to -1 to 1 is one, and so
    are levels of a quantizer. In float32 a half is hardly met, and one order
    of operations would round it otherwise than another.
    """
    step = (high - low) / (2**bits - 1)
    return step * tf.floor(tf.round(x / step * _PARTS) / _PARTS + 0.5)


def averages(x, low, high, bits):
    """As `activations`, of averages of levels, by an integer kernel's rounding.

    Half a step is no accident where levels are averaged. Kernels round it
    away from zero, where zero is the middle of the `2^bits` levels.
    """
    step, zero = grid(low, high, bits)
    middle = 2.0 ** (bits - 1)
    q = tf.stop_gradient(x) / step + zero - middle
    q = tf.round(q * _PARTS) / _PARTS
    q = tf.sign(q) * tf.floor(tf.abs(q) + 0.5)
    return _straight_through(x, step * (q + middle - zero))


def weights(kernel, bits):
    """Per-channel symmetric: `2^bits - 1` levels around 0 for each channel.

        step_c = max |w_c| / (2^(bits - 1) - 1),  y = step_c round(w / step_c)

    The gradient is straight through.

    Args:
        kernel: Float32 tensor; its last axis are the channels.
        bits: Integer from 2 to 8.
    """
    fixed = tf.stop_gradient(kernel)
    axes = list(range(fixed.shape.rank - 1))
    ends = tf.reduce_max(tf.abs(fixed), axes)
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        fixed, -ends, ends, bits, narrow_range=True
    )
    return _straight_through(kernel, rounded)


def biases(bias, kernel, step, bits):
    """Biases as integer kernels add them up: on the grid of the products.

        step_c = step max |w_c| / (2^(bits - 1) - 1),
        y = step_c round(bias_c / step_c)

    The gradient is straight through. Where the grid is a point, 0, the bias
    stays.

    Args:
        bias: Tensor of one number for each channel.
        kernel: Tensor; its last axis are the channels.
        step: Scalar, the step of the product's inputs.
        bits: Integer, of the kernel.
    """
    fixed, kernel = tf.stop_gradient(bias), tf.stop_gradient(kernel)
    largest = tf.reduce_max(tf.abs(kernel), list(range(kernel.shape.rank - 1)))
    steps = step * largest / (2 ** (bits - 1) - 1)
    safe = tf.where(steps > 0, steps, tf.ones_like(steps))
    rounded = tf.where(steps > 0, safe * tf.round(fixed / safe), fixed)
    return _straight_through(bias, rounded)


@tf.custom_gradient
def _straight_through(x, rounded):
    """`rounded`, with the gradient of `x`."""
    return tf.identity(rounded), lambda upstream: (upstream, None)
