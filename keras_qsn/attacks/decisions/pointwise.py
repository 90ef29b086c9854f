"""Attacks that see the predicted class alone: noise, and pixel by pixel."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack

# Images the model sees at once, always as many: in a batch of another size
# logits are rounded otherwise, and a search along the boundary would end
# elsewhere.
CHUNK = 32

# Amounts of salt and pepper tried by PointwiseAttack.
_AMOUNTS = 100
# Parts of the way back to the image by which a pixel is moved, for L2.
_PARTS = (1 / 2, 1 / 4, 1 / 8, 1 / 16)


class AdditiveGaussianNoiseAttack(Attack):
    """Gaussian noise of growing size, up to the first that fools the model.

    `x_adv = clip(x + s_k * n_k)` for `k = 0, 1, ..., epsilons`, each `n_k`
    drawn anew from the standard normal distribution, with

        `s_k = (k / epsilons)^2 * (clip_max - clip_min) / sqrt(3)`

    as in Foolbox 1 and 2, which multiply by `k / epsilons` twice. The first
    `k` that fools is kept. Levels are not bisected: more noise is not always
    better, and a finer scale also means more draws near the smallest level.

    Args:
        epsilons: Integer >= 1. Number of noise levels; also the largest
            number of queries, but for the clean image. Defaults to `1000`, as
            in Foolbox.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's noise, whatever the batch size.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> AdditiveGaussianNoiseAttack(epsilons=100).get_config()["epsilons"]
    100

    Limitations:
        Not an attack to judge robustness by: its examples are several times
        as far away as those of `HopSkipJumpAttack`, which knows no more of
        the model. Training with noise defeats it; images of the class that a
        model sees in noise survive it.

    Reference:
        - Rauber et al., 2017 (Foolbox): https://arxiv.org/abs/1707.04131
    """

    def __init__(self, epsilons=1000, clip_min=0.0, clip_max=1.0, seed=0):
        super().__init__(None, 2, clip_min, clip_max, seed)
        self._keep_counts(epsilons=epsilons)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        largest = (self.clip_max - self.clip_min) / np.sqrt(3)

        def noisy(k, image, seed):
            level = (tf.cast(k, tf.float32) / self.epsilons) ** 2
            noise = draw(tf.random.stateless_normal, x.shape[1:], seed, k)
            noisy = image + largest * level * noise
            return tf.clip_by_value(noisy, self.clip_min, self.clip_max)

        count = self.epsilons + 1
        return first_fooling(
            logits_fn, noisy, count, x, labels, seeds, targeted
        )[0]


class PointwiseAttack(Attack):
    """Salt and pepper, taken back pixel by pixel while the model is fooled.

    Starts at the smallest amount of salt-and-pepper noise, of 100, that
    fools the model. Then pixels go back to the image in a random order, each
    if the model stays fooled, until none can: a greedy minimum of the number
    of pixels changed. Groups of pixels, halved from pass to pass, are tried
    before single ones: a fifth fewer queries on digits, about 170 for each
    image, for as few pixels. For `norm=2`, pixels then move 1/2 of the way,
    and 1/4, 1/8 and 1/16 of what is left, likewise.

    A pixel of each channel counts for itself.

    Args:
        norm: `0` or `2`: whether to change few pixels, or also little.
            Defaults to `0`.
        nb_restarts: Integer >= 1. Starts and orders tried; the best result
            is kept. Defaults to `1`; the paper takes 10.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's noise and order, whatever the
            batch size.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> PointwiseAttack(nb_restarts=10).norm
    0

    Limitations:
        Greedy: the number of pixels is an upper bound, often far from the
        smallest, and `norm=2` helps little but on a hard quantizer. Fails
        without a start: on images of the class that a model sees in noise,
        if there are few restarts, and with most of the `y_target`.

    Reference:
        - Schott et al., 2018: https://arxiv.org/abs/1805.09190
    """

    norms = (0, 2)

    def __init__(
        self, norm=0, nb_restarts=1, clip_min=0.0, clip_max=1.0, seed=0
    ):
        super().__init__(None, norm, clip_min, clip_max, seed)
        self._keep_counts(nb_restarts=nb_restarts)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        def salted(k, image, seed):
            amount = tf.cast(k, tf.float32) / _AMOUNTS
            # The same numbers for each amount: pixels are only added.
            u = draw(tf.random.stateless_uniform, x.shape[1:], seed, 0)
            image = tf.where(u < amount / 2, self.clip_min, image)
            return tf.where(u > 1 - amount / 2, self.clip_max, image)

        def restart(i, kept, least):
            own = steps.restarted(folded, i)
            start, found = first_fooling(
                logits_fn, salted, _AMOUNTS + 1, x, labels, own, targeted
            )
            order = draw(tf.random.stateless_uniform, x.shape[1:], own, 1)
            point = self._take_back(
                logits_fn, x, labels, start, _ranks(order), targeted
            )
            size = tf.where(found, _size(point - x, self.norm), np.inf)
            return steps.pick(size < least, (point, size), (kept, least))

        folded = tf.map_fn(lambda seed: tf.random.fold_in(seed, 0), seeds)
        state = x, tf.fill(tf.shape(labels), np.inf)
        return steps.repeat(restart, self.nb_restarts, state)[0]

    def _take_back(self, logits_fn, x, labels, start, ranks, targeted):
        """The greedy search from `start`, in the order of `ranks`."""
        pixels = int(np.prod(x.shape[1:]))
        stages = [(pixels >> k, 1.0) for k in range(1, pixels.bit_length())]
        stages = stages or [(1, 1.0)]
        if self.norm == 2:
            stages += [(1, part) for part in _PARTS]
        widths, parts = (tf.constant(column) for column in zip(*stages))
        zeros = tf.zeros_like(labels)

        def following(point, position):
            """Rank of the next pixel that is changed, or `pixels`."""
            ahead = (point != x) & (ranks >= steps.per_image(position, x))
            ranked = tf.where(ahead, ranks, pixels)
            return tf.reduce_min(ranked, list(range(1, len(x.shape))))

        def query(point, position, stage, progress):
            width, part = tf.gather(widths, stage), tf.gather(parts, stage)
            end = position + width
            inside = ranks >= steps.per_image(position, x)
            inside &= ranks < steps.per_image(end, x)
            left = steps.per_image(1 - part, x)
            tried = tf.where(inside, x + left * (point - x), point)
            active = position < pixels
            hit = decide(logits_fn, tried, labels, targeted, active)
            point = steps.where(hit, tried, point)
            position = following(point, end)
            # At the end of a pass, single pixels are tried again if one went
            # back; else comes the next stage, or the end.
            progress |= hit & (width == 1) & (part == 1)
            over = active & (position == pixels)
            stage += tf.cast(over & ~progress, tf.int32)
            done = stage == len(stages)
            first = following(point, zeros)
            return (
                point,
                tf.where(over & ~done, first, position),
                tf.where(done, 0, stage),
                progress & ~over,
            )

        return tf.while_loop(
            lambda point, position, *_: tf.reduce_any(position < pixels),
            query,
            (start, following(start, zeros), zeros, zeros > 0),
            parallel_iterations=1,
        )[0]


def decide(logits_fn, points, labels, targeted, asked):
    """Which of the images asked about fool the model; `False` for others."""
    rows = tf.where(asked)
    count = tf.shape(rows)[0]
    # Filled up with the first image.
    filled = tf.pad(rows[:, 0], [[0, -count % CHUNK]])

    def chunk(rows):
        logits = logits_fn(tf.gather(points, rows))
        return losses.fooled(logits, tf.gather(labels, rows), targeted)

    hits = tf.map_fn(
        chunk,
        tf.reshape(filled, [-1, CHUNK]),
        fn_output_signature=tf.bool,
        parallel_iterations=1,
    )
    hits = tf.reshape(hits, [-1])[:count]
    return tf.tensor_scatter_nd_update(tf.zeros_like(asked), rows, hits)


def first_fooling(logits_fn, candidate, count, x, labels, seeds, targeted):
    """The first candidate that fools the model, and whether there is one.

    Args:
        candidate: Function from a number below `count`, images and their
            seeds to as many images.

    Returns:
        A tensor like `x`, `x` itself where none fools, and booleans.
    """

    def attempt(k, points, active):
        rows = tf.where(active)
        tried = candidate(k, tf.gather_nd(x, rows), tf.gather_nd(seeds, rows))
        tried = tf.tensor_scatter_nd_update(points, rows, tried)
        hit = decide(logits_fn, tried, labels, targeted, active)
        return steps.where(hit, tried, points), active & ~hit

    state = x, tf.ones_like(labels, tf.bool)
    points, active = steps.repeat(attempt, count, state, lambda *s: s[-1])
    return points, ~active


def draw(sampler, shape, seeds, number):
    """For each image, the sample of that number, from its own seed."""
    return tf.map_fn(
        lambda seed: sampler(shape, tf.random.fold_in(seed, number)),
        seeds,
        fn_output_signature=tf.float32,
    )


def distances(delta, norm):
    """Like `norms.size`, to the same bit whatever the batch size."""
    return tf.cast(norms.size(tf.cast(delta, tf.float64), norm), tf.float32)


def _size(delta, norm):
    if norm == 2:
        return distances(delta, 2)
    return distances(tf.cast(delta != 0, tf.float32), 1)


def _ranks(order):
    """Place of each pixel when the image's pixels are sorted by `order`."""
    flat = tf.reshape(order, [tf.shape(order)[0], -1])
    ranks = tf.argsort(tf.argsort(flat, stable=True))
    return tf.reshape(ranks, tf.shape(order))
