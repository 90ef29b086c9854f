"""DDN: the nearest adversarial example in L2, its length apart from its way."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack


class DecoupledDirectionNorm(Attack):
    """DDN: the nearest adversarial example in L2, its length on its own.

    Each of `nb_iter` steps, at `x' = x + d`, turns `d` along the gradient of
    the cross-entropy `J` and gives it a length of its own:

        eps <- (1 - gamma) * eps   where x' is adversarial
        eps <- (1 + gamma) * eps   else
        d <- d + a * dJ/dx / ||dJ/dx||
        x' <- clip(x + eps * d / ||d||)

    with `a` falling from 1 to 0.01 along a cosine. The nearest adversarial
    point met is the result. With `y_target` the target's cross-entropy falls.

    Args:
        nb_iter: Integer >= 1. Number of steps, each a forward and a backward
            pass. Defaults to `100`.
        gamma: Float above 0 and below 1, the change of the length. Defaults
            to `0.05`.
        init_norm: Float > 0. First length, in units of the largest range of a
            pixel, as the steps are. Defaults to `1.0`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> result = DecoupledDirectionNorm(nb_iter=50).run(model, x)
    >>> bool(result.success.all())
    True

    Limitations:
        Follows the gradient of the cross-entropy, from the image itself:
        where a layer hides it, or logits are so far apart that it vanishes,
        nothing is found; `FastMinimumNorm` follows the margin. The paper
        rounds to 256 levels in each step, which is not done here.

    Reference:
        - Rony et al., 2019: https://arxiv.org/abs/1811.09600
    """

    follows = "cross_entropy"
    counts = ("nb_iter",)

    def __init__(
        self,
        nb_iter=100,
        gamma=0.05,
        init_norm=1.0,
        clip_min=0.0,
        clip_max=1.0,
    ):
        super().__init__(None, 2, clip_min, clip_max, 0)
        self._keep_counts(nb_iter=nb_iter)
        self._keep_positive(init_norm=init_norm)
        self._keep_shares(gamma=gamma)
        if self.gamma in (0, 1):
            raise ValueError(
                "`gamma` must be above 0 and below 1, a share of the length. "
                f"Received: gamma={gamma}"
            )

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        largest = float(np.max(np.subtract(self.clip_max, self.clip_min)))
        farthest = norms.size(
            tf.maximum(self.clip_max - x, x - self.clip_min), 2
        )

        def step(i, point, length, nearest, best):
            gradient, logits = losses.gain_gradient(
                logits_fn, point, labels, losses.cross_entropy, targeted
            )
            hit = losses.fooled(logits, labels, targeted)
            size = norms.size(point - x, 2)
            nearest, best = steps.pick(
                hit & (size < nearest), (size, point), (nearest, best)
            )
            change = tf.where(hit, 1 - self.gamma, 1 + self.gamma)
            length = tf.minimum(length * change, farthest)
            move = largest * (0.01 + 0.99 * steps.cosine(i, self.nb_iter))
            delta = point + move * norms.steepest(gradient, 2) - x
            delta = steps.per_image(length, x) * norms.steepest(delta, 2)
            point = tf.clip_by_value(x + delta, self.clip_min, self.clip_max)
            return point, length, nearest, best

        nearest = tf.fill(tf.shape(labels), np.inf)
        length = tf.zeros_like(nearest) + self.init_norm * largest
        return steps.repeat(step, self.nb_iter, (x, length, nearest, x))[-1]
