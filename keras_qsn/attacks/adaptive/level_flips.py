"""The fewest or nearest pixels to push over a quantizer's thresholds."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.classifier.opened import OpenedModel

# Steps after which one pixel more is changed at a time.
_STEPS_PER_PIXEL = 8

# How far over a threshold a soft quantizer is pushed, of a level.
_SOFT_MARGIN = 0.02


class LevelFlipAttack(Attack):
    """Pixels pushed over a threshold one after another, dearest last.

    The cube attack's relative for L2 and L0, the roles of CW-L2 and JSMA.
    Behind a quantizer only crossed thresholds count, so the price of a change
    is known: `c_i`, the distance of pixel `i` to the nearest threshold above
    or below. Each step changes the pixel (after 8 steps two, after 16 three,
    and so on) with the most gain for its price,

        argmax_i  (dM / du_i) (u_i' - u_i) / c_i^p,

    with `M` the attacker's margin as a function of the levels `u`, `u'` the
    next level, and `p` 2 (L2) or 0 (L0). Once the image is fooled, changes
    that it does not need are taken back, the dearest first.

    Args:
        norm: `2`, or `0` for the number of changed values. Defaults to `2`.
        max_iter: Integer >= 1. Largest number of steps. Defaults to `60`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.

    Raises:
        ValueError: If a parameter is out of range, or the model attacked has
            no quantizer that maps each pixel of the image by itself.

    Example:

    >>> model = cleverhans_cnn(quantizer=ConstantQuantization(2), seed=0)
    >>> x = np.full((1, 28, 28, 1), 0.4, "float32")
    >>> LevelFlipAttack(max_iter=3).generate(model, x).shape
    (1, 28, 28, 1)

    Limitations:
        Greedy: the distance is an upper bound of the smallest one. Counts the
        values of colour pixels one by one.

    Reference:
        - Papernot et al., 2016 (JSMA), whose greedy search this puts behind
          the quantizer: https://arxiv.org/abs/1511.07528
    """

    norms = (2, 0)
    threat = "adaptive"
    counts = ("max_iter",)

    def __init__(self, norm=2, max_iter=60, clip_min=0.0, clip_max=1.0):
        super().__init__(None, norm, clip_min, clip_max, 0)
        self._keep_counts(max_iter=max_iter)

    def seen(self, wrapper, shape=None):
        seen = super().seen(wrapper, shape)
        return OpenedModel(
            seen.wrapper, self.clip_min, self.clip_max, shape is not None, seen
        )

    def _perturb(self, opened, x, labels, eps, seeds, targeted):
        pixels = int(np.prod(x.shape[1:]))
        flat = [-1, pixels]
        logits = opened.behind(opened.quantize(x))
        fooled = losses.margin_of(logits, labels, targeted) > 0

        def change(i, now, _, image, label):
            levels = opened.quantize(now)
            gradient, _ = losses.gain_gradient(
                opened.behind, levels, label, losses.margin_of, targeted
            )
            moved = self._next(opened, now, levels, gradient)
            gain = gradient * (opened.quantize(moved) - levels)
            price = tf.abs(moved - image) if self.norm == 2 else 1.0
            worth = tf.reshape(
                tf.math.divide_no_nan(gain, tf.square(price)), flat
            )
            count = tf.minimum(1 + i // _STEPS_PER_PIXEL, pixels)
            least = tf.math.top_k(worth, count).values[:, -1:]
            best = tf.reshape((worth >= least) & (worth > 0), tf.shape(now))
            now = tf.where(best, moved, now)
            hit = losses.margin_of(opened(now), label, targeted) > 0
            return now, hit

        x_adv, _ = steps.search(
            change,
            self.max_iter,
            (x, fooled),
            (x, labels),
            lambda x_adv, fooled: ~fooled,
        )
        return self._prune(opened, x, x_adv, labels, targeted)

    def _next(self, opened, x, levels, gradient):
        """Each pixel just over the threshold its gradient points to."""
        step = opened.step * (1.0 if opened.hard else 1 - _SOFT_MARGIN)
        wanted = levels + step * tf.sign(gradient)
        low = tf.zeros_like(x) + self.clip_min
        high = tf.zeros_like(x) + self.clip_max
        return opened.invert(wanted, x, low, high)

    def _prune(self, opened, x, x_adv, labels, targeted):
        """Changes taken back, as long as the image stays fooled."""
        pixels = int(np.prod(x.shape[1:]))
        distance = tf.reshape(tf.abs(x_adv - x), [-1, pixels])
        order = tf.argsort(distance, direction="DESCENDING", stable=True)
        count = tf.math.count_nonzero(distance, 1, dtype=tf.int32)

        def undo(i, x_adv):
            here = tf.one_hot(order[:, i], pixels, True, False, dtype=tf.bool)
            tried = tf.where(tf.reshape(here, tf.shape(x)), x, x_adv)
            still = losses.margin_of(opened(tried), labels, targeted) > 0
            return (steps.where(still, tried, x_adv),)

        return steps.repeat(undo, tf.reduce_max(count), (x_adv,))[0]
