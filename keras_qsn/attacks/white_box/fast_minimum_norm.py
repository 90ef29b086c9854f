"""FMN: the nearest adversarial example, by a ball that shrinks and grows."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.white_box import ball_in_box
from keras_qsn.attacks.white_box import hyperplane


class FastMinimumNorm(Attack):
    """FMN: the nearest adversarial example, by a ball that shrinks and grows.

    Each of `nb_iter` steps, at `x' = x + d` with the margin `m = max_{i != y}
    Z_i - Z_y` of the logits, moves the radius, then the point:

        eps <- min((1 - g) * eps, nearest)   where x' is adversarial
        eps <- (1 + g) * eps                 where another point was
        eps <- ||d|| + |m| / ||dm/dx||*      else (`*` the dual norm)
        x' <- x + project(d + a * dm/dx / ||dm/dx||_2)

    with `a` falling from `alpha` to `alpha / 100` and `g` from `gamma` to
    `gamma / 50` along a cosine. The third radius is the distance to the
    linearized boundary inside the range of pixels, and `project` goes to the
    nearest point of the ball and the range at once: with the paper's clipping
    afterwards, most digits have no example in L2. For `norm=0` the radius, a
    whole number, changes by one pixel at least, and grows where no point was
    adversarial. The nearest adversarial point met is the result. With
    `y_target` the margin is the target's.

    Args:
        norm: `np.inf`, `2`, `1` or `0`: what is minimized. Defaults to `2`.
        nb_iter: Integer >= 1. Number of steps, each a forward and a backward
            pass. Defaults to `100`.
        alpha: Float > 0. First step, in units of the largest range of a
            pixel. Defaults to `1.0`.
        gamma: Float above 0 and at most 1, the first change of the radius.
            Defaults to `0.05`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> result = FastMinimumNorm(norm=1, nb_iter=30).run(model, x)
    >>> bool(result.success.all())
    True

    Limitations:
        Follows the gradient, from the image itself: where a layer hides it
        there, nothing is found. The distance is an upper bound: of several
        kinds of attack take the smallest, as `minimal_distances` does.

    Reference:
        - Pintor et al., 2021: https://arxiv.org/abs/2102.12827
        - Croce & Hein, 2021, for the projection in L1:
          https://arxiv.org/abs/2103.01208
    """

    norms = (np.inf, 2, 1, 0)
    follows = "margin"
    counts = ("nb_iter",)

    def __init__(
        self,
        norm=2,
        nb_iter=100,
        alpha=1.0,
        gamma=0.05,
        clip_min=0.0,
        clip_max=1.0,
    ):
        super().__init__(None, norm, clip_min, clip_max, 0)
        self._keep_counts(nb_iter=nb_iter)
        self._keep_positive(alpha=alpha)
        self._keep_shares(gamma=gamma)
        if not self.gamma:
            raise ValueError(
                "`gamma` must be above 0, or the radius stays as it is. "
                f"Received: gamma={gamma}"
            )

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        bounds = self.clip_min, self.clip_max
        largest = float(np.max(np.subtract(*bounds[::-1])))
        room = tf.maximum(self.clip_max - x, x - self.clip_min)
        farthest = norms.size(room, self.norm)

        def step(i, point, radius, nearest, best):
            gradient, logits = losses.gain_gradient(
                logits_fn, point, labels, losses.margin_of, targeted
            )
            margin = losses.margin_of(logits, labels, targeted)
            hit, size = margin > 0, norms.size(point - x, self.norm)
            nearest, best = steps.pick(
                hit & (size < nearest), (size, point), (nearest, best)
            )
            left = steps.cosine(i, self.nb_iter)
            gamma = self.gamma * (0.02 + 0.98 * left)
            if self.norm == 0:
                radius = _fewer_or_more(hit, radius, gamma, nearest)
            else:
                ahead = size + self._ahead(point, gradient, margin)
                found = nearest < np.inf
                radius = tf.where(
                    hit,
                    tf.minimum(radius * (1 - gamma), nearest),
                    tf.where(found, radius * (1 + gamma), ahead),
                )
            radius = tf.minimum(radius, farthest)
            move = self.alpha * largest * (0.01 + 0.99 * left)
            delta = point + move * norms.steepest(gradient, 2) - x
            delta = ball_in_box.project(
                x, delta, steps.per_image(radius, x), self.norm, *bounds
            )
            return x + delta, radius, nearest, best

        nearest = tf.fill(tf.shape(labels), np.inf)
        first = tf.ones_like(nearest) if self.norm == 0 else nearest
        return steps.repeat(step, self.nb_iter, (x, first, nearest, x))[-1]

    def _ahead(self, point, gradient, margin):
        """Distance to the linearized boundary."""
        largest = norms.size(gradient, np.inf)
        w = tf.math.divide_no_nan(gradient, steps.per_image(largest, point))
        gap = tf.math.divide_no_nan(margin, largest)
        bounds = self.clip_min, self.clip_max
        delta = hyperplane.project(point, w, gap, self.norm, *bounds)
        return norms.size(delta, self.norm)


def _fewer_or_more(hit, radius, gamma, nearest):
    """The number of pixels after a step, by one or by a share."""
    fewer = tf.minimum(radius - 1, tf.floor(radius * (1 - gamma)))
    more = tf.maximum(radius + 1, tf.floor(radius * (1 + gamma)))
    return tf.maximum(tf.where(hit, tf.minimum(fewer, nearest), more), 0.0)
