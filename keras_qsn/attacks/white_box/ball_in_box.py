"""The nearest point of a ball inside the pixel range.

Of two projections one after the other, onto the ball and onto the range, the
second leaves the border of the ball, and with it much of what a step can do
(Croce & Hein, 2021: https://arxiv.org/abs/2103.01208). Tensors are batches;
everything is done per image.
"""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import norms
from keras_qsn.attacks.white_box import hyperplane


def project(x, delta, eps, norm, low, high):
    """The `d` nearest to `delta` with `||d|| <= eps` and `x + d` in range.

    With `a_i = |delta_i|` and `u_i` the room of pixel `i` on its way, the
    sizes are

        min(a_i, eps, u_i)                                       Linf
        min(s * a_i, u_i)           for the largest s <= 1,      L2
        min(max(a_i - t, 0), u_i)   for the smallest t >= 0,     L1

    at which their norm is at most `eps`. For L0 the `eps` pixels that go
    farthest, `min(a_i, u_i)`, do so, the others stay.

    Args:
        x: Images inside `[low, high]`.
        delta: Tensor like `x`.
        eps: Scalar tensor, or one that broadcasts, one for each image.
        norm: `np.inf`, `2`, `1` or `0`.
        low: Smallest pixel value, or an array of them.
        high: Largest pixel value, likewise.

    Returns:
        A tensor like `x`.
    """
    inside = tf.clip_by_value(delta, low - x, high - x)
    if norm in (np.inf, 0):
        return norms.project(inside, eps, norm)
    room, size = (
        tf.reshape(t, [tf.shape(x)[0], -1])
        for t in (tf.where(delta > 0, high - x, x - low), tf.abs(delta))
    )
    solve = _scaled if norm == 2 else _lowered
    size = solve(size, room, tf.reshape(eps, [-1, 1]))
    return tf.sign(delta) * tf.reshape(size, tf.shape(x))


def _scaled(size, room, eps):
    """Sums of squares are of straight pieces in the square of the scale."""
    share = hyperplane.time_to(
        tf.square(eps), tf.sign(size), tf.square(size), tf.square(room)
    )
    size = tf.minimum(tf.sqrt(tf.clip_by_value(share, 0.0, 1.0)) * size, room)
    return norms.project(size, eps, 2)


def _lowered(size, room, eps):
    """The sum falls in straight pieces between the `2 n` levels at which a
    pixel begins to move, or comes to the end of its room."""
    ends = tf.concat([size, size - room], 1)
    turn = tf.concat([tf.ones_like(size), -tf.ones_like(size)], 1)
    order = tf.argsort(ends, 1, "DESCENDING")
    ends, turn = (tf.gather(t, order, batch_dims=1) for t in (ends, turn))
    ends, moving = tf.maximum(ends, 0.0), tf.cumsum(turn, 1)
    gained = moving[:, :-1] * (ends[:, :-1] - ends[:, 1:])
    total = tf.pad(tf.cumsum(gained, 1), [[0, 0], [1, 0]])
    last = tf.reduce_sum(tf.cast(total <= eps, tf.int32), 1) - 1
    end, rate, there = (
        tf.gather(t, last, batch_dims=1)[:, None] for t in (ends, moving, total)
    )
    level = tf.maximum(end - tf.math.divide_no_nan(eps - there, rate), 0.0)
    size = tf.minimum(tf.maximum(size - level, 0.0), room)
    # The running sum rounds: what it leaves outside is scaled back.
    total = tf.reduce_sum(size, 1, keepdims=True)
    return size * tf.minimum(1.0, tf.math.divide_no_nan(eps, total))
