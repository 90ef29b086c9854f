"""The nearest point of a hyperplane inside the pixel range.

Tensors are batches; everything is done per image.
"""

import numpy as np
import tensorflow as tf


def project(x, w, gap, norm, low, high):
    """The smallest `d` with `w.d = -gap` and `x + d` inside the range.

    Where the range does not reach so far, the `d` that comes nearest. With
    `u_i` the room of pixel `i` on its way and `g = |gap|`, the sizes are

        min(t, u_i)           with  sum |w_i| * min(t, u_i) = g,          Linf
        min(t * |w_i|, u_i)   with  sum |w_i| * min(t * |w_i|, u_i) = g,  L2

    and for L1 the steepest pixels are used up one after the other.

    Args:
        x: Images inside `[low, high]`.
        w: Tensor like `x`.
        gap: Tensor of shape `(batch,)`.
        norm: `np.inf`, `2` or `1`.
        low: Smallest pixel value, or an array of them.
        high: Largest pixel value, likewise.

    Returns:
        A tensor like `x`.
    """
    above, below, slope = (
        tf.reshape(t, [tf.shape(x)[0], -1]) for t in (high - x, x - low, w)
    )
    sign = -tf.sign(slope) * tf.sign(gap)[:, None]
    room = tf.where(sign > 0, above, below)
    slope, gap = tf.abs(slope), tf.abs(gap)[:, None]
    if norm == 1:
        size = _use_up(slope, room, gap)
    else:
        speed = tf.ones_like(slope) if norm == np.inf else slope
        size = tf.minimum(time_to(gap, slope, speed, room) * speed, room)
    return tf.reshape(sign * size, tf.shape(x))


def time_to(gap, slope, speed, room):
    """The `t` at which `sum slope * min(t * speed, room)` reaches `gap`."""
    end = tf.math.divide_no_nan(room, speed)
    order = tf.argsort(end, axis=1)
    rate, gain = (
        tf.gather(t, order, batch_dims=1) for t in (slope * speed, slope * room)
    )
    # The sum is concave in `t`: the least of the lines of its pieces, and the
    # time wanted the greatest of theirs. Beyond the last end none is left.
    gained = tf.cumsum(gain, axis=1, exclusive=True)
    left = tf.cumsum(rate, axis=1, reverse=True)
    time = tf.math.divide_no_nan(gap - gained, left)
    return tf.reduce_max(time, axis=1, keepdims=True)


def _use_up(slope, room, gap):
    """Sizes that reach `gap` with the steepest pixels."""
    order = tf.argsort(slope, axis=1, direction="DESCENDING")
    steepest, most = (tf.gather(t, order, batch_dims=1) for t in (slope, room))
    gained = tf.cumsum(steepest * most, axis=1, exclusive=True)
    needed = tf.math.divide_no_nan(gap - gained, steepest)
    size = tf.clip_by_value(needed, 0.0, most)
    return tf.gather(size, tf.argsort(order, axis=1), batch_dims=1)
