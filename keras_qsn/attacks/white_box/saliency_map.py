"""The Jacobian-based saliency map attack, JSMA."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack

# Of a change of theta: what a pixel must have room for.
_LEAST_MOVE = 0.1


class SaliencyMapMethod(Attack):
    """JSMA: change the most salient pair of pixels until the target is hit.

    With `a_p = dZ_t / dx_p` and `b_p = sum_(j != t) dZ_j / dx_p`, each step
    adds `theta` to the two unused pixels with the largest
    `-(a_p + a_q) * (b_p + b_q)`, among those with `a_p + a_q > 0` and
    `b_p + b_q < 0` (the other way round for `theta < 0`). `t` is `y_target`
    or else the likeliest class but `y`; then any class but `y` will do.

    Args:
        theta: Float, not 0. What a step adds to a pixel. Defaults to `1.0`.
        gamma: Float above 0 and at most 1, the largest share of pixels that
            may change; a channel counts as a pixel. Defaults to `1.0`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> attack = SaliencyMapMethod(theta=1.0, gamma=0.02)
    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> x_adv = attack.generate(model, x, y_target=[3, 4])
    >>> int((x_adv != x).sum((1, 2, 3)).max()) <= 0.02 * 784
    True

    Limitations:
        Greedy: neither the fewest pixels nor every success that exists. An
        image fails once no pair has the signs above, which a layer that
        hides its gradient brings about. Untargeted, it aims at one class
        only, where Cleverhans draws one at random.

    Reference:
        - Papernot et al., 2016: https://arxiv.org/abs/1511.07528
    """

    norms = (0,)
    follows = "margin"

    def __init__(self, theta=1.0, gamma=1.0, clip_min=0.0, clip_max=1.0):
        super().__init__(None, 0, clip_min, clip_max, 0)
        if not (np.isfinite(theta) and theta != 0):
            raise ValueError(
                "`theta` must be a finite number other than 0. "
                f"Received: theta={theta}"
            )
        if not 0 < gamma <= 1:
            raise ValueError(
                "`gamma` must be a share of the pixels, above 0 and at most "
                f"1. Received: gamma={gamma}"
            )
        self.theta = float(theta)
        self.gamma = float(gamma)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        pixels = int(np.prod(x.shape[1:]))
        max_iter = int(pixels * self.gamma / 2)
        sign = np.sign(self.theta)
        goals = labels
        if not targeted:
            goals = losses.likeliest_others(logits_fn(x), labels, 1)[:, 0]

        def step(i, image, unused, _, label, goal):
            logits, a, b = _saliency(logits_fn, image, goal)
            pair, found = _best_pair(
                tf.where(unused, sign * a, -np.inf),
                tf.where(unused, -sign * b, -np.inf),
            )
            on = found & ~losses.fooled(logits, label, targeted)
            picked = tf.reduce_any(tf.one_hot(pair, pixels, True, False), 1)
            picked &= on[:, None]
            change = tf.reshape(tf.cast(picked, x.dtype), tf.shape(image))
            image = tf.clip_by_value(
                image + self.theta * change, self.clip_min, self.clip_max
            )
            return image, unused & ~picked, on

        # A pixel at the end of the range, or almost, has nowhere to go.
        room = self.clip_max - x if sign > 0 else x - self.clip_min
        free = room > _LEAST_MOVE * abs(self.theta)
        free = tf.reshape(free, [-1, pixels])
        state = x, free, tf.ones_like(labels, tf.bool)
        return steps.search(step, max_iter, state, (labels, goals))[0]


def _saliency(logits_fn, x, goals):
    """Logits; gradients of the goal's and of all other logits, by pixel."""
    logits, pull_back = losses.logits_and_pullback(logits_fn, x)
    goal = tf.one_hot(goals, tf.shape(logits)[1])
    a, b = tf.unstack(
        tf.map_fn(pull_back, tf.stack([goal, 1 - goal]), parallel_iterations=1),
        2,
    )
    shape = [-1, int(np.prod(x.shape[1:]))]
    return logits, tf.reshape(a, shape), tf.reshape(b, shape)


def _best_pair(up, down):
    """The two pixels with the largest `(up_p + up_q) * (down_p + down_q)`.

    Exact, in memory of the size of the images. Of the pixels sorted by `up`,
    one with two others before it of at least its `down` is not needed: one of
    the two is not its partner, and in its place gives no smaller product.
    Few pixels are left, and all their pairs are tried.

    Returns:
        Pixels of shape `(batch, 2)`, and whether both sums are positive.
    """
    up, order = tf.math.top_k(up, up.shape[1])
    down = tf.gather(down, order, batch_dims=1)
    needed = down > _second_largest_before(down)
    count = tf.reduce_max(tf.math.count_nonzero(needed, 1, dtype=tf.int32))
    needed, kept = tf.math.top_k(
        tf.cast(needed, tf.int32), tf.maximum(count, 1)
    )
    # The product of two small slopes would vanish in float32.
    up, down = (
        tf.where(
            needed > 0,
            tf.cast(tf.gather(t, kept, batch_dims=1), tf.float64),
            -np.inf,
        )
        for t in (up, down)
    )

    def with_pixel(p, best, pair):
        rise, fall = up + up[:, p, None], down + down[:, p, None]
        allowed = (rise > 0) & (fall > 0) & (tf.range(count) > p)
        score = tf.where(allowed, rise * fall, 0)
        q = tf.argmax(score, 1, tf.int32)
        score = tf.reduce_max(score, 1)
        candidate = tf.stack([tf.fill(tf.shape(q), p), q], 1)
        pair = tf.where((score > best)[:, None], candidate, pair)
        return tf.maximum(score, best), pair

    first = tf.zeros_like(up[:, 0]), tf.zeros_like(kept[:, :1]) + [0, 0]
    best, pair = steps.repeat(with_pixel, count - 1, first)
    pair = tf.gather(kept, pair, batch_dims=1)
    return tf.gather(order, pair, batch_dims=1), best > 0


def _second_largest_before(values):
    """The second-largest of the values left of each; -inf if there is none."""

    def shift(t, by):
        return tf.pad(t, [[0, 0], [by, 0]], constant_values=-np.inf)[:, :-by]

    first, width = shift(values, 1), 1
    second = tf.fill(tf.shape(values), -np.inf)
    # Each round merges two neighbouring windows of `width` values.
    while width < values.shape[1]:
        left = shift(first, width)
        second = tf.maximum(
            tf.maximum(second, shift(second, width)), tf.minimum(first, left)
        )
        first = tf.maximum(first, left)
        width *= 2
    return second
