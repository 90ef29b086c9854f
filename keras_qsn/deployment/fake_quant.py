"""Fake quantization: the values an integer kernel would compute, as floats."""

import tensorflow as tf

# Of a step: what is nearer to the middle of two levels is a tie.
_PARTS = 4096.0
# Of the larger factor in integer sums, but the first.
_BITS_OF_SUMS = 20


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
    step = _step(low, high, bits)
    step = tf.where(step > 0, step, tf.ones_like(step))
    return step, tf.floor(0.5 - low / step)


def _step(low, high, bits):
    """In float64: of a constant, a graph takes the reciprocal, other writers
    of this step divide."""
    low, high = tf.cast(low, tf.float64), tf.cast(high, tf.float64)
    return tf.cast((high - low) / (2**bits - 1), tf.float32)


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


def requantized(x, steps, low, high, bits):
    """As `activations`, of products of levels, by an integer kernel's rounding.

        q = clip(round(n steps / step) + zero, 0, 2^bits - 1),  n = x / steps

    with `n` whole, and halves rounded to the even level. In float32 each of
    these operations is the kernel's own: the levels are the same, to the bit.

    Args:
        x: Float32 tensor.
        steps: Steps of the products, one for each channel.
        low: Scalar, the smallest value, <= 0.
        high: Scalar, the largest value, >= 0.
        bits: Integer.
    """
    step, zero = file_grid(low, high, bits)
    # Of a channel of zeros there is a bias alone.
    steps = tf.where(steps > 0, steps, step * tf.ones_like(steps))
    q = tf.round(tf.round(tf.stop_gradient(x) / steps) * (steps / step))
    return _on_levels(x, q, step, zero, bits)


def sums(x, parts, steps, low, high, bits):
    """As `activations`, of sums of two tensors' levels, by an integer kernel's
    rounding.

        q = (n_1 m_1 + n_2 m_2 + 2^(s - 1)) >> s,
        m_i = round(2^s step_i / step)

    with `n_i` whole, and `s` so that the larger `m_i` has 21 bits.

    Args:
        x: The sum, or what a ReLU leaves of it.
        parts: The two tensors.
        steps: Their steps.
        low: Scalar, the smallest value, <= 0.
        high: Scalar, the largest value, >= 0.
        bits: Integer.
    """
    step, zero = file_grid(low, high, bits)
    shares = [own / step for own in steps]
    exponent = tf.bitcast(tf.maximum(*shares), tf.int32) // 2**23 - 127
    shift = _BITS_OF_SUMS - exponent
    scale = tf.pow(2.0, tf.cast(shift, tf.float32))
    total = tf.bitwise.left_shift(tf.ones_like(shift), shift - 1)
    for part, own, share in zip(parts, steps, shares):
        number = tf.round(tf.stop_gradient(part) / own)
        total += tf.cast(number, tf.int32) * tf.cast(
            tf.round(share * scale), tf.int32
        )
    q = tf.cast(tf.bitwise.right_shift(total, shift), tf.float32)
    # What a ReLU has cut, the kernel cuts.
    return _on_levels(x, tf.where(x == 0, 0.0, q), step, zero, bits)


def _on_levels(x, q, step, zero, bits):
    """These levels, with the gradient of `x` where they are in the range."""
    low, high = -zero, 2**bits - 1 - zero
    inside = tf.clip_by_value(x, low * step, high * step)
    return _straight_through(inside, step * tf.clip_by_value(q, low, high))


def file_grid(low, high, bits):
    """As `grid`, of the ends that a file's writer is given."""
    low, high = ends(low, high, bits)
    step = _step(low, high, bits)
    return step, tf.round(-low / step)


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
    steps = product_steps(kernel, step, bits)
    safe = tf.where(steps > 0, steps, tf.ones_like(steps))
    rounded = tf.where(steps > 0, safe * tf.round(fixed / safe), fixed)
    return _straight_through(bias, rounded)


def product_steps(kernel, step, bits):
    """Steps of products of a kernel's and of inputs' levels, by channel.

        step_c = step max |w_c| / (2^(bits - 1) - 1)

    Args:
        kernel: Tensor; its last axis are the channels.
        step: Scalar, the step of the product's inputs.
        bits: Integer, of the kernel.
    """
    fixed = tf.stop_gradient(kernel)
    axes = list(range(fixed.shape.rank - 1))
    largest = tf.cast(tf.reduce_max(tf.abs(fixed), axes), tf.float64)
    # In float64, as `_step`.
    return step * tf.cast(largest / (2 ** (bits - 1) - 1), tf.float32)


def whole(x, steps):
    """How many steps these are, rounded; the gradient is straight through.

    Where a step is a point, 0, they are none.
    """
    safe = tf.where(steps > 0, steps, tf.ones_like(steps))
    number = tf.where(steps > 0, x / safe, tf.zeros_like(x))
    return _straight_through(number, tf.round(tf.stop_gradient(number)))


@tf.custom_gradient
def _straight_through(x, rounded):
    """`rounded`, with the gradient of `x`."""
    return tf.identity(rounded), lambda upstream: (upstream, None)
