"""The minimal-distance L2 attack of Carlini and Wagner."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack

# Keeps the inverse of tanh finite for black and white pixels.
_EDGE = 0.999999
# Stands for "no upper bound yet" and is the largest constant tried.
_NO_BOUND = 1e10
# An image goes on while its lowest loss falls below this part of what it was
# when last looked at. The lowest: Adam swings, and one bad look must not end
# the search.
_PROGRESS = 0.9999
# Steps at least from one look to the next: Adam takes dozens to turn round.
_PATIENCE = 50


class CarliniWagnerL2(Attack):
    """C&W: the nearest adversarial example in L2, by Adam.

    Minimizes, over `w` with `x' = clip_min + range * (tanh(w) + 1) / 2`,

        `||x' - x||^2 + c * max(Z_y - max_{i != y} Z_i + confidence, 0)`

    where `Z` are the logits of `x'` and distances are in units of `range =
    clip_max - clip_min`. A binary search finds each image's constant `c`. Of
    all `x'` met whose hinge is 0, the nearest is the result. With `y_target`
    the hinge is `max(max_{i != t} Z_i - Z_t + confidence, 0)`.

    Args:
        confidence: Float >= 0. How far the wrong class must lead in the
            logits. Defaults to `0.0`.
        learning_rate: Float > 0, Adam's step in `w`. Defaults to `5e-3`, as
            in Cleverhans; with 100 iterations or fewer take 0.1, since a
            black pixel starts 7 units of `w` from the middle.
        binary_search_steps: Integer >= 1. Values of `c` tried for each image.
            Of 10 or more, the last is the smallest that worked, again.
            Defaults to `5`.
        max_iterations: Integer >= 1. Steps of Adam for one value of `c`.
            Defaults to `1000`.
        abort_early: Whether an image rests until the next `c` when a tenth of
            `max_iterations` has not lowered its loss. Defaults to `True`.
        initial_const: Float > 0. First value of `c`. Defaults to `1e-2`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> attack = CarliniWagnerL2(max_iterations=2, binary_search_steps=1)
    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> result = attack.run(model, x)
    >>> bool((result.x_adv == x)[~result.success].all())
    True

    Limitations:
        Costs `binary_search_steps * max_iterations` gradients, and follows
        them: a layer that hides the gradient defeats it. Success is judged by
        the class alone: an image misclassified from the start for which no
        `confidence` was reached comes back unchanged, as a success.

    Reference:
        - Carlini & Wagner, 2017: https://arxiv.org/abs/1608.04644
    """

    follows = "margin"
    counts = ("binary_search_steps", "max_iterations")

    def __init__(
        self,
        confidence=0.0,
        learning_rate=5e-3,
        binary_search_steps=5,
        max_iterations=1000,
        abort_early=True,
        initial_const=1e-2,
        clip_min=0.0,
        clip_max=1.0,
    ):
        super().__init__(None, 2, clip_min, clip_max, 0)
        self._keep_at_least(0, confidence=confidence)
        self._keep_positive(
            learning_rate=learning_rate,
            initial_const=initial_const,
        )
        self._keep_counts(
            binary_search_steps=binary_search_steps,
            max_iterations=max_iterations,
        )
        self.abort_early = bool(abort_early)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        def search(step, const, lower, upper, nearest, best):
            last = tf.equal(step, self.binary_search_steps - 1)
            last &= self.binary_search_steps >= 10
            const = tf.where(last, upper, const)
            found, nearest, best = self._minimize(
                logits_fn, x, labels, targeted, const, nearest, best
            )
            upper = tf.where(found, tf.minimum(upper, const), upper)
            lower = tf.where(found, lower, tf.maximum(lower, const))
            const = tf.where(
                upper < _NO_BOUND,
                (lower + upper) / 2,
                tf.minimum(10 * const, _NO_BOUND),
            )
            return const, lower, upper, nearest, best

        # An image that needs no attack has distance 0 and stays as it is.
        margin = losses.margin_of(logits_fn(x), labels, targeted)
        nearest = tf.where(self._reached(margin), 0.0, np.inf)
        zeros = tf.zeros_like(margin)
        bounds = zeros + self.initial_const, zeros, zeros + _NO_BOUND
        return steps.repeat(
            search, self.binary_search_steps, (*bounds, nearest, x)
        )[-1]

    def _minimize(self, logits_fn, x, labels, targeted, const, nearest, best):
        """Adam on `w` for one constant per image.

        Returns:
            Which images succeeded, then `nearest` and `best` brought up to
            date.
        """
        scale = self.clip_max - self.clip_min
        check_every = tf.maximum(self.max_iterations // 10, _PATIENCE)

        def step(i, w, m, v, resting, lowest, looked, found, nearest, best):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(w)
                candidate = self.clip_min + scale * _between_0_and_1(w)
                delta = (candidate - x) / scale
                distance = tf.reduce_sum(
                    tf.square(delta), list(range(1, len(x.shape)))
                )
                margin = losses.margin_of(
                    logits_fn(candidate), labels, targeted
                )
                hinge = tf.maximum(self.confidence - margin, 0.0)
                loss = distance + const * hinge
            gradient = tape.gradient(loss, w)

            if self.abort_early:
                check = tf.equal(i % check_every, 0)
                lowest = tf.minimum(lowest, loss)
                resting |= check & (lowest > _PROGRESS * looked)
                looked = tf.where(check, lowest, looked)
            # An image at rest takes nothing more, so that its result does
            # not depend on how long the others of its batch go on.
            success = self._reached(margin) & ~resting
            found |= success
            better = success & (distance < nearest)
            nearest, best = steps.pick(
                better, (distance, candidate), (nearest, best)
            )

            m, v, first, second = steps.moments(i, gradient, m, v)
            rate = self.learning_rate * (second / first)
            w -= rate * m / (tf.sqrt(v) + steps.EPSILON)
            return w, m, v, resting, lowest, looked, found, nearest, best

        start = tf.atanh(_EDGE * (2 * (x - self.clip_min) / scale - 1))
        zeros = tf.zeros_like(x)
        no_loss = tf.fill(tf.shape(nearest), np.inf)
        found = tf.zeros_like(nearest, tf.bool)
        state = start, zeros, zeros, tf.equal(nearest, 0.0), no_loss, no_loss
        return steps.repeat(
            step,
            self.max_iterations,
            (*state, found, nearest, best),
            lambda w, m, v, resting, *_: ~resting,
        )[-3:]

    def _reached(self, margin):
        return (margin > 0) & (margin >= self.confidence)


@tf.custom_gradient
def _between_0_and_1(w):
    """`(tanh(w) + 1) / 2`, with a slope that is right at black and white too.

    As `1 - tanh(w)^2` it would be a difference of equal numbers there, wrong
    by several percent and otherwise in a batch of another size.
    """

    def slope(upstream):
        tail = tf.exp(-2 * tf.abs(w))
        return upstream * 2 * tail / tf.square(1 + tail)

    return (tf.tanh(w) + 1) / 2, slope
