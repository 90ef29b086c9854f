"""Sparse-RS: random search for the pixels to change, and to which end."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.scores.single_pixel import draw

# Of 10,000 queries, after how many the share of pixels swapped changes, and
# by what it is divided from there on.
_AFTER = np.array([0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000])
_DIVISORS = np.array([2, 4, 5, 6, 8, 10, 12, 15, 20], "float32")
_SCHEDULE = 10000


class SparseRandomSearch(Attack):
    """Sparse-RS: which `eps` pixels to change, by random search.

    Starts with `eps` pixels drawn at random, each at an end of its range.
    Each query takes some of them back, as many as `share * eps / s`, at least
    one, puts as many others in their place, and is kept if the margin of the
    attacker does not fall. `s` grows from 2 to 20 in the course of the search.
    A pixel goes to one of the ends that it is not at, drawn at random. An
    image is done as soon as the model is fooled.

    A pixel of each channel counts for itself; in the paper all channels of a
    pixel change as one.

    Args:
        eps: Integer >= 0. How many pixels change. Defaults to `10`.
        nb_queries: Integer >= 1. Queries of each start. Defaults to `5000`;
            the paper takes 10,000.
        share: Float from 0 to 1, the paper's `alpha_init`. Defaults to `0.3`.
        nb_restarts: Integer >= 1. Defaults to `1`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's pixels, whatever the batch size.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> attack = SparseRandomSearch(eps=5, nb_queries=20)
    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> int((attack.generate(model, x) != x).sum((1, 2, 3)).max())
    5

    Limitations:
        Needs scores, and many queries: `SigmaZero` needs fewer where there is
        a gradient. A model that is random at each query misleads it.

    Reference:
        - Croce et al., 2022: https://arxiv.org/abs/2006.12834
    """

    norms = (0,)
    counts = ("nb_queries", "nb_restarts")

    def __init__(
        self,
        eps=10,
        nb_queries=5000,
        share=0.3,
        nb_restarts=1,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        super().__init__(eps, 0, clip_min, clip_max, seed)
        norms.check_radius(self.eps, 0)
        self._keep_counts(nb_queries=nb_queries, nb_restarts=nb_restarts)
        self._keep_shares(share=share)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        size = int(np.prod(x.shape[1:]))
        count = tf.cast(eps, tf.int32)

        def margin_at(changed, ends, image, label):
            flat = tf.where(changed, ends, tf.reshape(image, [-1, size]))
            point = tf.reshape(flat, tf.shape(image))
            margin = losses.margin_of(logits_fn(point), label, targeted)
            return point, margin

        def query(i, changed, ends, best, margin, image, label, seed):
            swapped = self._swapped(i, eps)
            swapped = tf.minimum(swapped, tf.minimum(count, size - count))
            leave, enter, side = (draw(seed, 3 * i + k, size) for k in range(3))
            leave = _picked(leave, changed, swapped)
            enter = _picked(enter, ~changed, swapped)
            tried = (changed & ~leave) | enter
            to = tf.where(enter, self._ends(image, side), ends)
            point, reached = margin_at(tried, to, image, label)
            better = reached >= margin
            return steps.pick(
                better,
                (tried, to, point, reached),
                (changed, ends, best, margin),
            )

        def restart(i, kept, kept_margin):
            own = steps.restarted(seeds, i)
            where, side = (draw(own, k, size) for k in range(2))
            changed = _picked(where, where >= 0, count)
            ends = self._ends(x, side)
            point, margin = margin_at(changed, ends, x, labels)
            margin = tf.where(kept_margin > 0, kept_margin, margin)
            # The start is a query too.
            _, _, point, margin = steps.search(
                lambda i, *state: query(i + 1, *state),
                self.nb_queries - 1,
                (changed, ends, point, margin),
                (x, labels, own),
                lambda *state: state[-1] <= 0,
            )
            better = (margin > kept_margin) & (kept_margin <= 0)
            return steps.pick(better, (point, margin), (kept, kept_margin))

        margin = losses.margin_of(logits_fn(x), labels, targeted)
        # What is fooled as it is stays; else any start is better than none.
        margin = tf.where(margin > 0, margin, -np.inf)
        return steps.repeat(
            restart,
            self.nb_restarts,
            (x, margin),
            lambda kept, margin: margin <= 0,
        )[0]

    def _swapped(self, i, eps):
        """How many pixels query `i` swaps."""
        done = tf.cast(i, tf.float32) * _SCHEDULE
        done /= tf.cast(self.nb_queries, tf.float32)
        phase = tf.reduce_sum(tf.cast(done > _AFTER, tf.int32)) - 1
        share = self.share / tf.gather(_DIVISORS, tf.maximum(phase, 0))
        return tf.maximum(tf.cast(share * eps, tf.int32), 1)

    def _ends(self, image, side):
        """Ends of the range, by chance, but none that a pixel is at."""
        low, high = (
            tf.zeros_like(image) + end for end in (self.clip_min, self.clip_max)
        )
        side = tf.reshape(side, tf.shape(image))
        up = tf.where(image == low, True, (image < high) & (side < 0.5))
        return tf.reshape(tf.where(up, high, low), [tf.shape(image)[0], -1])


def _picked(keys, allowed, count):
    """The `count` pixels with the largest keys, of those allowed."""
    keys = tf.where(allowed, keys, -1.0)
    picked = tf.math.top_k(keys, count).indices
    rows = tf.one_hot(picked, keys.shape[1], True, False)
    return tf.reduce_any(rows, 1)
