"""The Square Attack: random search on the model's scores, no gradients."""

import functools

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.scores.square_proposals import MovedWindows
from keras_qsn.attacks.scores.square_proposals import RecoloredSquares

# Queries, of 10 000, after which the share of changed pixels is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# What changes by less, of the logits' size, may be rounding, and that depends
# on the batch.
_ROUNDING = 1e-6


class SquareAttack(Attack):
    """Square Attack: random squares, kept where they bring the class down.

    In L-infinity, `x_adv` starts as `x` with vertical stripes of `-eps` or
    `eps`, and each query sets one square, at a random place, to `-eps` or
    `eps` in each channel. In L2 it starts as 5x5 tiles, each of two bumps of
    opposite sign, and each query takes what one random square holds of the
    perturbation, and what is left of `eps`, to such bumps in another.

    A query is kept if the loss falls or the image is fooled. The loss is
    `z[y] - max_{i != y} z[i]`; with `y_target`, the cross-entropy of the
    target. The squares cover a share `p_init` of the image at first, and
    less by halves later on.

    A vector, or a sequence of shape `(length, features)`, is an image one
    pixel high: segments take the place of squares.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        norm: `np.inf` or `2`. Defaults to `np.inf`.
        nb_queries: Integer >= 1. Forward passes of each start, its own one
            included. Defaults to `5000`.
        p_init: Float in (0, 1]. Defaults to `0.8`, as in AutoAttack; in L2
            the paper takes `0.1`.
        nb_restarts: Integer >= 1. Random starts. Defaults to `1`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's squares, whatever the batch size.

    Raises:
        ValueError: If a parameter is out of range, or the images have more
            than three axes.

    Example:

    >>> SquareAttack(eps=0.1, nb_queries=300).norm
    inf

    Limitations:
        Slow, and weaker than a gradient attack where gradients are sound.
        Cannot search on a model whose scores do not change, such as one that
        rounds them.

    Reference:
        - Andriushchenko et al., 2020: https://arxiv.org/abs/1912.00049
    """

    def __init__(
        self,
        eps=0.3,
        norm=np.inf,
        nb_queries=5000,
        p_init=0.8,
        nb_restarts=1,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        super().__init__(eps, norm, clip_min, clip_max, seed)
        if not 0 < p_init <= 1:
            raise ValueError(
                "`p_init` must be a number above 0, at most 1. "
                f"Received: p_init={p_init}"
            )
        self.p_init = float(p_init)
        self._keep_counts(nb_queries=nb_queries, nb_restarts=nb_restarts)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        own, shape = x.shape[1:], _as_image(x.shape[1:])
        proposals = RecoloredSquares if self.norm == np.inf else MovedWindows
        squares = proposals(
            shape, _sides(self.nb_queries, self.p_init, *shape[:2])
        )

        def seen(x):
            return logits_fn(tf.reshape(x, [-1, *own]))

        def put(image, perturbation):
            moved = image + perturbation
            put = self._project(
                *(tf.reshape(t, [-1, *own]) for t in (image, moved)), eps
            )
            return tf.reshape(put, [-1, *shape])

        def attempt(k, before, old_loss, _, image, label, drawn):
            tried = squares.propose(k, image, before, drawn, eps, put)
            logits = tf.cast(seen(tried), tf.float32)
            new_loss = _loss(logits, label, targeted)
            hit = losses.fooled(logits, label, targeted)
            noise = _ROUNDING * tf.reduce_max(tf.abs(logits), -1)
            better = hit | (new_loss < old_loss - noise)
            new, old = (tried, new_loss), (before, old_loss)
            return *steps.pick(better, new, old), hit

        x = tf.reshape(x, [-1, *shape])
        worst = tf.fill(tf.shape(labels), np.inf)

        def restart(i, kept, kept_loss, done):
            first, numbers = _draw(
                steps.restarted(seeds, i), self.nb_queries, squares
            )
            start = put(x, eps * squares.start(first))

            def query(k, *state):
                attempt_k = functools.partial(attempt, k)
                given = x, labels, numbers[:, k]
                return steps.at_work(~state[-1], attempt_k, state, given)

            best, loss, now_done = steps.repeat(
                query, self.nb_queries, (start, worst, done), left
            )
            better = ~done & (now_done | (loss < kept_loss))
            new, old = (best, loss), (kept, kept_loss)
            return *steps.pick(better, new, old), now_done

        def left(best, loss, done):
            return ~done

        state = x, worst, tf.zeros_like(labels, tf.bool)
        best, *_ = steps.repeat(restart, self.nb_restarts, state, left)
        return tf.reshape(best, [-1, *own])


def _as_image(shape):
    """A vector or a sequence as an image one pixel high."""
    if len(shape) == 1:
        return 1, shape[0], 1
    if len(shape) == 2:
        return 1, *shape
    if len(shape) == 3:
        return tuple(shape)
    raise ValueError(
        "`x` must hold images of shape (height, width, channels), sequences "
        "of shape (length, features) or vectors. "
        f"Received: x of shape {tuple(shape)}"
    )


def _loss(logits, labels, targeted):
    """What the attack brings down, per image."""
    if targeted:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return -losses.lead(logits, labels)


def _sides(nb_queries, p_init, height, width):
    """Side of each query's square, by the paper's schedule.

    Of an image one pixel high, the length of a segment of as large a share.
    """
    # An empty square first: that query is of the stripes.
    sides = [0]
    for k in range(1, nb_queries):
        passed = sum(k * 10000 // nb_queries > step for step in _HALVINGS)
        share = p_init / 2**passed
        if height == 1:
            sides.append(min(max(round(share * width), 1), width))
            continue
        side = round((share * height * width) ** 0.5)
        sides.append(min(max(side, 1), height, width))
    return sides


def _draw(seeds, nb_queries, squares):
    """Every random number of a start, from each image's own seed.

    All at once, since drawing image by image is slow: at most 32 bytes for a
    query of a colour image.

    Returns:
        Numbers for the start and for the queries, `(batch, start_size)` and
        `(batch, nb_queries, query_size)`.
    """
    sizes = [squares.start_size, nb_queries * squares.query_size]
    drawn = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([sum(sizes)], seed),
        seeds,
        fn_output_signature=tf.float32,
    )
    first, numbers = tf.split(drawn, sizes, 1)
    return first, tf.reshape(numbers, [-1, nb_queries, squares.query_size])
