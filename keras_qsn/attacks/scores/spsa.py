"""SPSA: a gradient from the model's scores at random points near by."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.scores.local_search import in_chunks

# An integer drawn for each pixel holds its sign in as many directions.
_BITS = 32

# What changes by less, of the logits' size, may be rounding, and Adam would
# make a full step of it.
_ROUNDING = 1e-6


class SPSA(Attack):
    """SPSA: Adam on a gradient estimated from random directions.

    From a random point of the ball, `nb_iter` steps of Adam raise the margin
    `M(x) = max_{i != y} z[i] - z[y]` (with `y_target`, the other way round)
    along the mean, over random signs `s`, one for each pixel, of

        `(M(x + delta * s) - M(x - delta * s)) / (2 * delta) * s`

    Each step ends in the ball. An image stops at its first adversarial
    example; one that has none keeps the point of the largest margin.

    Args:
        eps: Float >= 0. Radius of the L-infinity ball. Defaults to `0.3`.
        nb_iter: Integer >= 1. Number of steps. Defaults to `100`.
        learning_rate: Float > 0. Adam's step, in pixel units. Defaults to
            `0.01`.
        delta: Float > 0. How far away the scores are looked at, in pixel
            units. Defaults to `0.01`; on a quantized model take more, such as
            `eps`, so that pixels cross a threshold.
        spsa_samples: Even integer >= 2. Queries of one estimate, two for each
            direction. Defaults to `128`.
        spsa_iters: Integer >= 1. Estimates averaged for a step. Defaults to
            `1`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's start and directions, whatever the
            batch size.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> SPSA(eps=0.1, spsa_samples=32).nb_iter
    100

    Limitations:
        Needs `nb_iter * (spsa_samples * spsa_iters + 1)` queries, and finds
        at best what PGD finds where gradients are sound. Where a quantizer
        gives all points within `delta` the same scores it stays at its start;
        even with a large `delta`, `SquareAttack` finds more. Queries leave
        the pixel range by up to `delta`.

    Reference:
        - Uesato et al., 2018: https://arxiv.org/abs/1802.05666
    """

    norms = (np.inf,)
    counts = ("nb_iter",)

    def __init__(
        self,
        eps=0.3,
        nb_iter=100,
        learning_rate=0.01,
        delta=0.01,
        spsa_samples=128,
        spsa_iters=1,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        super().__init__(eps, np.inf, clip_min, clip_max, seed)
        self._keep_positive(learning_rate=learning_rate, delta=delta)
        self._keep_counts(nb_iter=nb_iter, spsa_iters=spsa_iters)
        self._keep_counts(2, spsa_samples=spsa_samples)
        if self.spsa_samples % 2:
            raise ValueError(
                "`spsa_samples` must be even: each direction is tried both "
                f"ways. Received: spsa_samples={spsa_samples}"
            )

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        def step(i, point, mean, square, kept, reached, image, label, seed):
            gradient = self._estimate(
                logits_fn, point, label, seed, i, targeted, tf.shape(x)[0]
            )
            mean, square, first, second = steps.moments(
                i, gradient, mean, square
            )
            rate = self.learning_rate * second / first
            point += rate * mean / (tf.sqrt(square) + steps.EPSILON)
            point = self._project(image, point, eps)
            now = losses.margin_of(logits_fn(point), label, targeted)
            kept = steps.where(now > reached, point, kept)
            return point, mean, square, kept, tf.maximum(reached, now)

        start = x + eps * norms.sample(x.shape[1:], seeds, self.norm)
        start = self._project(x, start, eps)
        zeros = tf.zeros_like(x)
        margin = losses.margin_of(logits_fn(x), labels, targeted)
        return steps.search(
            step,
            self.nb_iter,
            (start, zeros, zeros, x, margin),
            (x, labels, seeds),
            lambda *state: state[-1] <= 0,
        )[-2]

    def _estimate(self, logits_fn, x, labels, seeds, i, targeted, size):
        """The gradient of the margin in step `i`, `size` queries at a time."""
        directions = self.spsa_samples // 2 * self.spsa_iters
        num_images = tf.shape(x)[0]

        def block(first, total):
            bits = _draw_bits(x.shape[1:], seeds, i * directions + first)
            count = tf.minimum(_BITS, directions - first)

            def change(indices):
                row, k = indices // count, indices % count
                signs = _signs(tf.gather(bits, row), steps.per_image(k, x))
                point, label = tf.gather(x, row), tf.gather(labels, row)
                ways = [point + self.delta * signs, point - self.delta * signs]
                logits = tf.cast(logits_fn(tf.concat(ways, 0)), tf.float32)
                label = tf.concat([label, label], 0)
                largest = tf.reduce_max(tf.abs(logits), 1)
                up, down = tf.split(
                    losses.margin_of(logits, label, targeted), 2
                )
                noise = _ROUNDING * tf.maximum(*tf.split(largest, 2))
                return tf.where(tf.abs(up - down) > noise, up - down, 0.0)

            changes = in_chunks(
                change, num_images * count, tf.maximum(size // 2, 1)
            )
            changes = tf.reshape(changes, [num_images, count])

            def add(k, total):
                change = steps.per_image(changes[:, k], x)
                return (total + _signs(bits, k) * change,)

            return first + count, *steps.repeat(add, count, (total,))

        _, total = tf.while_loop(
            lambda first, total: first < directions,
            block,
            (0, tf.zeros_like(x)),
            parallel_iterations=1,
        )
        return total / (2 * self.delta * directions)


def _draw_bits(shape, seeds, i):
    """Random integers `(batch, *shape)` of 32 bits; others for each `i`."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform(
            shape, tf.random.fold_in(seed, i), None, None, tf.int32
        ),
        seeds,
    )


def _signs(bits, k):
    """The signs, -1 or 1, in direction `k` of 32."""
    bit = tf.bitwise.right_shift(bits, k) & 1
    return tf.cast(1 - 2 * bit, tf.float32)
