"""DeepFool: steps to the nearest boundary of the linearized model."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack

# Cleverhans' push across a boundary, in logits: a tie is no success. Where all
# logits of the image are below 1, of the largest: it must not be a leap.
_MARGIN = 1e-5


class DeepFool(Attack):
    """DeepFool: steps to the nearest boundary of the linearized model.

    With `f_k = Z_k - Z_y` and `w_k = df_k / dx`, each step goes to the
    boundary `k` of least distance `|f_k| / ||w_k||*` (`*` the dual norm):
    `x <- clip(x + |f_k| / ||w_k||* . d(w_k))`, with `d` the steepest step as
    in `FastGradientMethod`. An image is done as soon as its perturbation
    times `1 + overshoot` is misclassified.

    Args:
        norm: `2` or `np.inf`. Defaults to `2`.
        overshoot: Float >= 0. Defaults to `0.02`.
        max_iter: Integer >= 1. Largest number of steps. Defaults to `50`.
        nb_candidate: Integer >= 2. The classes looked at: `y` and the
            likeliest others of the clean image; all, of a model with fewer.
            Defaults to `10`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.

    Raises:
        ValueError: If a parameter is out of range, or there is a `y_target`.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> result = DeepFool(nb_candidate=3).run(model, x)
    >>> bool(result.success.all())
    True

    Limitations:
        Untargeted only. Follows the gradient and is greedy: the distance is
        an upper bound of the smallest one, and far off, or none at all,
        where a layer hides the gradient.

    Reference:
        - Moosavi-Dezfooli et al., 2016: https://arxiv.org/abs/1511.04599
    """

    follows = "margin"
    counts = ("max_iter",)

    def __init__(
        self,
        norm=2,
        overshoot=0.02,
        max_iter=50,
        nb_candidate=10,
        clip_min=0.0,
        clip_max=1.0,
    ):
        super().__init__(None, norm, clip_min, clip_max, 0)
        self._keep_at_least(0, overshoot=overshoot)
        self._keep_counts(max_iter=max_iter)
        self._keep_counts(2, nb_candidate=nb_candidate)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        if targeted:
            raise ValueError(
                "`DeepFool` is untargeted: give it `y`, or no labels, instead "
                "of `y_target`."
            )
        logits = logits_fn(x)
        others = min(self.nb_candidate, logits.shape[-1]) - 1
        candidates = losses.likeliest_others(logits, labels, others)
        largest = tf.reduce_max(tf.abs(tf.cast(logits, tf.float32)), 1)
        pushes = _MARGIN * tf.minimum(largest, 1.0)

        def overshot(start, point):
            point = start + (1 + self.overshoot) * (point - start)
            return tf.clip_by_value(point, self.clip_min, self.clip_max)

        def step(i, point, _, start, label, others, push):
            logits, distance, w = self._nearest(
                logits_fn, overshot(start, point), label, others, push
            )
            on = tf.math.is_finite(distance) & ~losses.fooled(
                logits, label, False
            )
            moved = point + steps.per_image(distance, x) * norms.steepest(
                w, self.norm
            )
            moved = tf.clip_by_value(moved, self.clip_min, self.clip_max)
            return steps.where(on, moved, point), on

        state = x, tf.ones_like(labels, tf.bool)
        given = x, labels, candidates, pushes
        points, _ = steps.search(step, self.max_iter, state, given)
        return overshot(x, points)

    def _nearest(self, logits_fn, x, labels, candidates, push):
        """Logits; distance to the nearest boundary, and its `w_k`."""
        logits, pull_back = losses.logits_and_pullback(logits_fn, x)
        own = tf.one_hot(labels, tf.shape(logits)[1])
        largest = tf.reduce_max(tf.abs(logits), 1)

        def look(k, nearest, direction):
            other = candidates[:, k]
            w = pull_back(tf.one_hot(other, tf.shape(logits)[1]) - own)
            gap = tf.gather(logits, other, batch_dims=1)
            gap -= tf.gather(logits, labels, batch_dims=1)
            length = norms.size(w, 1 if self.norm == np.inf else 2)
            # A gap that rounding may hide is crossed with room to spare: of
            # large logits the push alone would never do.
            hidden = tf.abs(gap) <= losses.ROUNDING * largest
            ahead = tf.where(hidden, 2 * losses.ROUNDING * largest, push)
            distance = (tf.abs(gap) + ahead) / length
            nearer = distance < nearest
            return steps.pick(nearer, (distance, w), (nearest, direction))

        first = tf.fill(tf.shape(labels), np.inf), tf.zeros_like(x)
        return logits, *steps.repeat(look, candidates.shape[1], first)
