"""APGD in L1: sparse steps, in a ball that shrinks to its radius.

Croce & Hein, 2021: https://arxiv.org/abs/2103.01208
"""

import collections

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.white_box import ball_in_box

# Radii of the three balls, and what share of the steps each of the first two
# gets.
_RADII = (3.0, 2.0, 1.0)
_SHARE = 0.3
# Share of a ball's steps from one look at the sparsity to the next.
_LOOK = 0.04
# Pixels of the best point for one that moves in a step.
_DENSER = 1.5
# A best point of fewer pixels than this share has become sparser: back to it,
# with full steps. Else the steps shrink, down to a tenth.
_SPARSER = 0.95
_SHRINK = 1.5
_LEAST = 0.1
# What is carried from step to step, an entry for each image.
_State = collections.namedtuple(
    "_State", "x best best_loss best_gradient fooled size pixels"
)


def ascend(look, nb_iter, x, given, eps, seeds, done, low, high):
    """Climb from a random point, the last ball's first example kept.

    Args:
        look: Function from points and their rows of `given` to loss, gradient
            and which are adversarial.
        nb_iter: Whole number or scalar tensor, the number of steps.
        x: Images.
        given: Tensors with a row for each image.
        eps: Scalar tensor, the radius.
        seeds: Integers of shape `(batch, 2)`.
        done: Booleans: images left as they are.
        low: Smallest pixel value, or an array of them.
        high: Largest pixel value, likewise.

    Returns:
        Points, their loss, and which are adversarial.
    """
    first = tf.cast(_SHARE * tf.cast(nb_iter, tf.float32), tf.int32)
    begins = tf.stack([0, first, 2 * first])

    def ball_at(i):
        """Of few steps, all are in the last one."""
        return tf.reduce_sum(tf.cast(begins <= i, tf.int32)) - 1

    def inside(image, point, radius):
        return image + ball_in_box.project(
            image, point - image, radius, 1, low, high
        )

    def entered(image, point, radius, fooled):
        """What a ball begins with."""
        point = inside(image, point, radius)
        none = tf.zeros_like(fooled, tf.float32)
        pixels = norms.size(point - image, 0)
        return _State(
            x=point,
            best=point,
            best_loss=none - np.inf,
            best_gradient=tf.zeros_like(point),
            fooled=fooled,
            size=none + radius,
            pixels=pixels,
        )

    def step(i, *rows):
        *state, image = rows[: len(_State._fields) + 1]
        s, others = _State(*state), rows[len(state) + 1 :]
        ball = ball_at(i)
        radius = eps * tf.gather(_RADII, ball)
        begin = tf.gather(begins, ball)
        end = tf.gather(tf.concat([begins, [nb_iter + 1]], 0), ball + 1)
        loss, gradient, hit = look(s.x, *others)
        hit &= tf.equal(ball, len(_RADII) - 1)
        better = hit | (loss > s.best_loss)
        best = steps.where(better, s.x, s.best)
        best_loss = tf.where(better, loss, s.best_loss)
        best_gradient = steps.where(better, gradient, s.best_gradient)

        every = _LOOK * tf.cast(end - begin, tf.float32)
        every = tf.maximum(tf.cast(every, tf.int32), 1)
        check = (i > begin) & tf.equal((i - begin) % every, 0)
        pixels = norms.size(best - image, 0)
        sparser = pixels < _SPARSER * s.pixels
        shrunk = tf.maximum(s.size / _SHRINK, _LEAST * radius)
        size = tf.where(sparser, radius, shrunk)
        size = tf.where(check, size, s.size)
        pixels = tf.where(check, pixels, s.pixels)
        back = check & sparser
        now = steps.where(back, best, s.x)
        gradient = steps.where(back, best_gradient, gradient)
        moved = now + _sparse(gradient, size, pixels / _DENSER)
        here = _State(
            x=inside(image, moved, radius),
            best=best,
            best_loss=best_loss,
            best_gradient=best_gradient,
            fooled=hit,
            size=size,
            pixels=pixels,
        )
        # In the last step there is no ball to come.
        after = eps * tf.gather([*_RADII[1:], 1.0], ball)
        return tf.cond(
            tf.equal(i + 1, end) & (ball < len(_RADII) - 1),
            lambda: entered(image, best, after, hit),
            lambda: here,
        )

    start = tf.map_fn(
        lambda seed: tf.random.stateless_normal(x.shape[1:], seed),
        seeds,
        fn_output_signature=tf.float32,
    )
    start = x + np.subtract(high, low).astype("float32") * start
    state = entered(x, start, eps * tf.gather(_RADII, ball_at(0)), done)
    # The start is a point too: nb_iter + 1 of them.
    s = _State(
        *steps.search(
            step,
            nb_iter + 1,
            state,
            (x, *given),
            lambda *state: ~_State(*state).fooled,
        )
    )
    return s.best, s.best_loss, s.fooled


def _sparse(gradient, size, pixels):
    """A step of this L1 size along so many of the steepest pixels."""
    flat = tf.reshape(gradient, [tf.shape(gradient)[0], -1])
    most = tf.cast(tf.shape(flat)[1], tf.float32)
    pixels = tf.clip_by_value(tf.math.ceil(pixels), 1.0, most)
    kept = tf.sign(norms.project(flat, pixels[:, None], 0))
    count = tf.reduce_sum(tf.abs(kept), 1)
    kept *= tf.math.divide_no_nan(size, count)[:, None]
    return tf.reshape(kept, tf.shape(gradient))
