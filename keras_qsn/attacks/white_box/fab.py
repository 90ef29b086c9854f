"""FAB: the nearest adversarial example, from boundary to boundary."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.white_box import hyperplane

# Part of the largest logit: `fooled` asks for half as much, so that a point on
# the boundary counts as adversarial.
_PUSH = 2e-5
# Of the paper: points tried between the image and its nearest example.
_FINAL_STEPS = 3
# Of a secant step: not all of it, to arrive on the adversarial side.
_FINAL_SHARE = 0.99
_DUAL = {np.inf: 1, 2: 2, 1: np.inf}


class FastAdaptiveBoundary(Attack):
    """FAB: the nearest adversarial example, by projections onto boundaries.

    With `f_k = Z_k - Z_y`, each step takes the boundary `{z: f_k(x_i) +
    f_k'(x_i).(z - x_i) = 0}` nearest to the current point `x_i`, and the
    smallest perturbations `d` and `d_0`, inside the pixel range, that bring
    `x_i` and the image `x` onto it:

        a = min(||d|| / (||d|| + ||d_0||), alpha_max)
        x_{i+1} = clip((1 - a) * (x_i + eta * d) + a * (x + eta * d_0))

    Where `x_{i+1}` is adversarial it is kept if it is the nearest so far, and
    the search goes on from `x + beta * (x_{i+1} - x)`. Restarts begin at a
    random point, at half the distance of the nearest example, or half of
    `eps` if that is less. In the end the nearest of all is moved towards `x`
    by three secant steps. What counts is whether it lies in the ball; take a
    large `eps` to learn its distance.

    With `y_target = t`, the one boundary is that of `Z_t` and the largest
    other logit.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        norm: `np.inf`, `2` or `1`: what is minimized. Defaults to `np.inf`.
        nb_iter: Integer >= 1. Steps of a run. Defaults to `100`.
        nb_restarts: Integer >= 1. Runs, for each class if there are
            `nb_targets`. Defaults to `1`.
        nb_targets: Integer >= 1: FAB-T, a run against each of so many
            classes, the likeliest of the clean image (all others, of a model
            with fewer), with one gradient a step. Defaults to `None`: FAB,
            with the gradients of all classes in each step. Any wrong class
            counts with either.
        alpha_max: Float from 0 to 1, the largest pull towards the image.
            Defaults to `0.1`.
        eta: Float >= 1, how far to step across. Defaults to `1.05`.
        beta: Float from 0 to 1, where to go on from. Defaults to `0.9`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's starts, whatever the batch size.
        early_stop: Whether an image stops at its first example inside the
            ball; for accuracy under attack, where only the existence of an
            example matters. Defaults to `False`.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> attack = FastAdaptiveBoundary(eps=2.0, norm=2, nb_targets=9)
    >>> FastAdaptiveBoundary.from_config(attack.get_config()).nb_targets
    9

    Limitations:
        Follows the gradient: add `SquareAttack` where a layer hides it.
        Linearizes the model, so that its distances are upper bounds, and far
        off where a quantizer bends it: `AutoProjectedGradientDescent` fools
        more there. One boundary at a time, it may miss a `y_target` shut in
        by several other classes. For many classes set `nb_targets`: `None`
        costs a gradient for each.

    Reference:
        - Croce & Hein, 2020, FAB: https://arxiv.org/abs/1907.02044
        - Croce & Hein, 2020, FAB-T: https://arxiv.org/abs/2003.01690
    """

    norms = (np.inf, 2, 1)
    follows = "margin"
    counts = ("nb_iter", "nb_restarts")

    def __init__(
        self,
        eps=0.3,
        norm=np.inf,
        nb_iter=100,
        nb_restarts=1,
        nb_targets=None,
        alpha_max=0.1,
        eta=1.05,
        beta=0.9,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
        early_stop=False,
    ):
        super().__init__(eps, norm, clip_min, clip_max, seed)
        self.nb_targets = nb_targets
        if nb_targets is not None:
            self._keep_counts(nb_targets=nb_targets)
        self._keep_counts(nb_iter=nb_iter, nb_restarts=nb_restarts)
        self._keep_shares(alpha_max=alpha_max, beta=beta)
        self._keep_at_least(1, eta=eta)
        self.early_stop = bool(early_stop)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        logits = logits_fn(x)
        goals = self._goals(logits, labels, targeted)
        runs = 1 if self.nb_targets is None else goals.shape[1]
        enough = eps if self.early_stop else 0.0

        def run(i, nearest, best):
            goal = goals
            if self.nb_targets is not None:
                goal = tf.gather(goals, i % runs, axis=1)[:, None]
            # The first run of each goal starts at the image.
            radius = tf.where(i < runs, 0.0, tf.minimum(nearest, eps) / 2)
            again = steps.restarted(seeds, i)
            start = norms.sample(x.shape[1:], again, max(self.norm, 2))
            start *= steps.per_image(radius / norms.size(start, self.norm), x)

            def step(j, distance, kept, before, _, image, label, aims):
                point = self._move(
                    logits_fn, image, before, label, aims, targeted
                )
                size = norms.size(point - image, self.norm)
                hit = losses.fooled(logits_fn(point), label, targeted)
                distance, kept = steps.pick(
                    hit & (size < distance), (size, point), (distance, kept)
                )
                back = image + self.beta * (point - image)
                point = steps.where(hit, back, point)
                # A point that stays where it is would do so for ever.
                moved = norms.size(point - before, np.inf) > 0
                return distance, kept, point, moved & (distance > enough)

            state = nearest, best, self._clip(x + start), nearest > enough
            given = x, labels, goal
            return steps.search(step, self.nb_iter, state, given)[:2]

        # An image that needs no attack has distance 0 and stays as it is.
        nearest = tf.where(losses.fooled(logits, labels, targeted), 0.0, np.inf)
        _, best = steps.repeat(
            run,
            runs * self.nb_restarts,
            (nearest, x),
            lambda nearest, _: nearest > enough,
        )
        return _toward_image(
            lambda x: losses.margin_of(logits_fn(x), labels, targeted),
            x,
            losses.margin_of(logits, labels, targeted),
            best,
        )

    def _goals(self, logits, labels, targeted):
        """Classes whose boundaries are looked at, `(batch, number)`."""
        if targeted:
            return labels[:, None]
        others = logits.shape[-1] - 1
        count = min(self.nb_targets or others, others)
        return losses.likeliest_others(logits, labels, count)

    def _move(self, logits_fn, image, point, labels, goals, targeted):
        """The paper's step, from `point`."""
        gap, w = self._nearest(logits_fn, point, labels, goals, targeted)
        bounds = self.clip_min, self.clip_max
        d = hyperplane.project(point, w, gap, self.norm, *bounds)
        gap += tf.reduce_sum(
            w * (image - point), list(range(1, len(image.shape)))
        )
        d_0 = hyperplane.project(image, w, gap, self.norm, *bounds)
        size, size_0 = norms.size(d, self.norm), norms.size(d_0, self.norm)
        a = tf.math.divide_no_nan(size, size + size_0)
        a = steps.per_image(tf.minimum(a, self.alpha_max), image)
        return self._clip(
            (1 - a) * (point + self.eta * d) + a * (image + self.eta * d_0)
        )

    def _nearest(self, logits_fn, x, labels, goals, targeted):
        """Value at `x` and gradient of the function of the nearest boundary.

        Both divided by the largest slope, so that the squares of a small
        gradient, which a quantizer leaves, do not vanish.
        """
        logits, pull_back = losses.logits_and_pullback(logits_fn, x)
        rival = labels
        if targeted:
            rival = losses.likeliest_others(logits, labels, 1)[:, 0]
        own = tf.one_hot(rival, tf.shape(logits)[1])
        push = _PUSH * tf.reduce_max(tf.abs(logits), 1)

        def look(k, nearest, value, direction):
            goal = goals[:, k]
            w = pull_back(tf.one_hot(goal, tf.shape(logits)[1]) - own)
            gap = tf.gather(logits, goal, batch_dims=1)
            gap -= tf.gather(logits, rival, batch_dims=1)
            largest = norms.size(w, np.inf)
            w = tf.math.divide_no_nan(w, steps.per_image(largest, x))
            # Without a gradient, the boundary is infinitely far.
            gap = (gap - push) / largest
            distance = tf.abs(gap) / norms.size(w, _DUAL[self.norm])
            new, old = (distance, gap, w), (nearest, value, direction)
            return steps.pick(distance < nearest, new, old)

        nearest = tf.fill(tf.shape(labels), np.inf)
        first = nearest, tf.zeros_like(nearest), tf.zeros_like(x)
        if goals.shape[1] == 1:
            return look(0, *first)[1:]
        return steps.repeat(look, goals.shape[1], first)[1:]

    def _clip(self, x):
        return tf.clip_by_value(x, self.clip_min, self.clip_max)


def _toward_image(margin_fn, image, low, best):
    """Adversarial points `best`, moved to the boundary before `image`.

    By secants: to where the margin would be 0, were it linear between the
    last two points on either side. `low` is the margin of `image`.
    """

    def step(k, inside, low, best, high):
        share = _FINAL_SHARE * tf.math.divide_no_nan(high, high - low)
        point = best + steps.per_image(share, image) * (inside - best)
        margin = margin_fn(point)
        new, old = (inside, low, point, margin), (point, margin, best, high)
        return steps.pick(margin > 0, new, old)

    # The first point is `best` itself: in a batch of another size, rounding
    # may have taken what margin it had, and then it stays.
    state = image, low, best, tf.zeros_like(low)
    return steps.repeat(step, _FINAL_STEPS + 1, state)[2]
