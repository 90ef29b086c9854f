"""sigma-zero: the fewest pixels, by a smooth count of them."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack

# Of the rate: the change of the threshold.
_CHANGE = 0.01


class SigmaZero(Attack):
    """sigma-zero: the fewest pixels that fool the model, by a smooth count.

    Minimizes, over `d = x' - x` in units of the range of each pixel, with the
    margin `m = max_{i != y} Z_i - Z_y` of the logits,

        `max(-m, 0) + mean_i d_i^2 / (d_i^2 + sigma)`

    by `nb_iter` steps of Adam on the gradient over its largest entry, with a
    rate that falls from `learning_rate` to a tenth of it along a cosine.
    After each step `x'` is clipped, and the pixels that have moved by less
    than `t` of their range go back. Adversarial points raise each image's
    `t`, which starts at `threshold`, by a hundredth of the rate, others lower
    it. The adversarial point met with the fewest changed pixels is the
    result. With `y_target` the margin is the target's.

    A pixel of each channel counts for itself.

    Args:
        nb_iter: Integer >= 1. Number of steps, each a forward and a backward
            pass. Defaults to `100`; the paper takes 1000.
        sigma: Float > 0. Where the count is half of a pixel. Defaults to
            `1e-3`.
        learning_rate: Float > 0. First rate of Adam. Defaults to `1.0`.
        threshold: Float from 0 to 1. Defaults to `0.3`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> result = SigmaZero().run(model, x)
    >>> bool(result.success.all())
    True

    Limitations:
        Follows the gradient: `PointwiseAttack` does without. The count is an
        upper bound of the smallest one.

    Reference:
        - Cina et al., 2024: https://arxiv.org/abs/2402.01879
    """

    norms = (0,)
    follows = "margin"
    counts = ("nb_iter",)

    def __init__(
        self,
        nb_iter=100,
        sigma=1e-3,
        learning_rate=1.0,
        threshold=0.3,
        clip_min=0.0,
        clip_max=1.0,
    ):
        super().__init__(None, 0, clip_min, clip_max, 0)
        self._keep_counts(nb_iter=nb_iter)
        self._keep_positive(sigma=sigma, learning_rate=learning_rate)
        self._keep_shares(threshold=threshold)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        width = np.subtract(self.clip_max, self.clip_min).astype("float32")
        pixels = float(np.prod(x.shape[1:]))

        def hinge(logits, labels, targeted):
            return tf.minimum(losses.margin_of(logits, labels, targeted), 0.0)

        def step(i, point, mean, square, threshold, fewest, best):
            gradient, logits = losses.gain_gradient(
                logits_fn, point, labels, hinge, targeted
            )
            hit = losses.fooled(logits, labels, targeted)
            count = norms.size(point - x, 0)
            fewest, best = steps.pick(
                hit & (count < fewest), (count, point), (fewest, best)
            )
            delta = (point - x) / width
            counted = tf.square(tf.square(delta) + self.sigma) * pixels
            downhill = 2 * self.sigma * delta / counted - width * gradient
            largest = steps.per_image(norms.size(downhill, np.inf), x)
            downhill = tf.math.divide_no_nan(downhill, largest)
            mean, square, first, second = steps.moments(
                i, downhill, mean, square
            )
            move = mean / first / (tf.sqrt(square) / second + steps.EPSILON)
            left = steps.cosine(tf.maximum(i - 1, 0), self.nb_iter)
            rate = self.learning_rate * (0.1 + 0.9 * left)
            moved = tf.clip_by_value(
                point - rate * width * move, self.clip_min, self.clip_max
            )
            change = _CHANGE * rate * tf.where(hit, 1.0, -1.0)
            threshold = tf.clip_by_value(threshold + change, 0.0, 1.0)
            near = tf.abs(moved - x) < steps.per_image(threshold, x) * width
            return (
                tf.where(near, x, moved),
                mean,
                square,
                threshold,
                fewest,
                best,
            )

        zeros, fewest = tf.zeros_like(x), tf.fill(tf.shape(labels), np.inf)
        threshold = tf.zeros_like(fewest) + self.threshold
        state = x, zeros, zeros, threshold, fewest, x
        return steps.repeat(step, self.nb_iter, state)[-1]
