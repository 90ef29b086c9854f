"""HopSkipJump: gradients estimated at the boundary, from classes alone."""

import math

import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_positive
from keras_qsn.attacks import losses
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.decisions.pointwise import CHUNK
from keras_qsn.attacks.decisions.pointwise import decide
from keras_qsn.attacks.decisions.pointwise import distances
from keras_qsn.attacks.decisions.pointwise import draw
from keras_qsn.attacks.decisions.pointwise import first_fooling

# Size of the noise, in distances from the image: the largest that costs
# nothing where the boundary is smooth.
_NOISE = 0.3
# Halvings of an interval or step after which float32 pixels hardly change.
_HALVINGS = 24


class HopSkipJumpAttack(Attack):
    """HopSkipJump: along the boundary, by the classes of noisy copies.

    From a point that fools the model, each of `num_iterations` steps, at the
    last point `x_t` on the line to the image (L2), or inside the box around
    it (L-infinity), that fools it still, estimates the boundary's normal

        `v = mean_b (phi_b - mean(phi)) * u_b`, `b = 1, ..., B_t`

    with `u_b` random unit directions and `phi_b` 1 where `x_t + delta * u_b`
    fools the model, -1 elsewhere. It then goes to `x_t + s * d(v)`, where
    `d(v) = v / ||v||` for L2 and `sign(v)` for L-infinity, and `s` is
    `distance / sqrt(t)`, halved until the point fools the model. `B_t =
    initial_num_evals * sqrt(t)`; `delta = gamma / pixels * distance`, at
    first a tenth of the pixel range. The nearest point met is the result.

    The start is noise of black and white cells, of sides 1, 2, 4, ... in
    turn and of random density: the first of `init_size` that fools the model.

    Args:
        norm: `2` or `np.inf`. Defaults to `2`.
        initial_num_evals: Integer >= 1. Queries of the first estimate.
            Defaults to `100`.
        max_num_evals: Integer >= 1. Most queries of one estimate. Defaults to
            `10000`.
        num_iterations: Integer >= 1. Defaults to `40`; with the other
            defaults, 18000 queries for each image.
        gamma: Float > 0. The paper takes 1. Defaults to `None`: 0.3 times the
            number of pixels. As good where the boundary is smooth; on a hard
            quantizer, where smaller noise leaves pixels on their levels, the
            examples are two to four times nearer.
        init_size: Integer >= 1. Points tried for a start. Defaults to `100`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's noise, whatever the batch size.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> attack = HopSkipJumpAttack(num_iterations=10)
    >>> HopSkipJumpAttack.from_config(attack.get_config()).num_iterations
    10

    Limitations:
        Fails where no start is found, which with `y_target` is common: noise
        does not show every class. A model that is random at each query
        defeats the search along the boundary. On a hard quantizer the
        boundary has no normal, and smaller distances are likely.

    Reference:
        - Chen et al., 2020: https://arxiv.org/abs/1904.02144
    """

    def __init__(
        self,
        norm=2,
        initial_num_evals=100,
        max_num_evals=10000,
        num_iterations=40,
        gamma=None,
        init_size=100,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        super().__init__(None, norm, clip_min, clip_max, seed)
        if gamma is not None:
            hint = f", or None for {_NOISE} times the number of pixels"
            gamma = check_positive("gamma", gamma, hint)
        self.gamma = gamma
        self._keep_counts(
            initial_num_evals=initial_num_evals,
            max_num_evals=max_num_evals,
            num_iterations=num_iterations,
            init_size=init_size,
        )

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        tried = self.init_size + 1
        start, _ = first_fooling(
            logits_fn, self._noise, tried, x, labels, seeds, targeted
        )
        # Neither images without a start nor those that need none go on.
        rows = tf.where(distances(start - x, self.norm) > 0)
        image, label, seed, start = (
            tf.gather_nd(t, rows) for t in (x, labels, seeds, start)
        )

        def ask(points, asked):
            return decide(logits_fn, points, label, targeted, asked)

        def iteration(i, point, jumped, best, least):
            t = i + 1
            direction = tf.map_fn(
                lambda one: self._direction(logits_fn, targeted, t, *one),
                (point, label, seed, self._delta(t, jumped, x)),
                fn_output_signature=tf.float32,
                parallel_iterations=1,
            )
            distance = distances(point - image, self.norm)
            length = distance / tf.sqrt(tf.cast(t, tf.float32))
            moved = self._step(ask, point, direction, length)
            point = self._bisect(ask, image, moved)
            distance = distances(point - image, self.norm)
            jumped = distances(moved - image, self.norm)
            new, old = (point, distance), (best, least)
            return point, jumped, *steps.pick(distance < least, new, old)

        point = self._bisect(ask, image, start)
        far, near = (distances(p - image, self.norm) for p in (start, point))
        best = steps.repeat(
            iteration,
            self.num_iterations,
            (point, far, point, near),
            lambda *_: tf.size(label) > 0,
        )[2]
        return tf.tensor_scatter_nd_update(x, rows, best)

    def _noise(self, k, image, seed):
        """The image; then black and white cells of sides 1, 2, 4, ..."""
        shape = image.shape[1:]
        # Flat images have no sides: each value is a cell.
        height, width = shape[:2] if len(shape) == 3 else (1, 1)
        side = 2 ** ((k - 1) % min(height, width).bit_length())
        cells = draw(tf.random.stateless_uniform, shape, seed, 2 * k)
        if len(shape) == 3:
            cells = tf.gather(cells, tf.range(height) // side, axis=1)
            cells = tf.gather(cells, tf.range(width) // side, axis=2)
        density = draw(tf.random.stateless_uniform, [], seed, 2 * k + 1)
        white = cells < steps.per_image(density, image)
        noise = tf.where(white, self.clip_max, self.clip_min)
        return tf.where(k > 0, noise, image)

    def _delta(self, t, jumped, x):
        """Size of the noise; `jumped` is the distance before bisection."""
        part = _NOISE if self.gamma is None else self.gamma / _pixels(x)
        first = 0.1 * np.max(np.subtract(self.clip_max, self.clip_min))
        return tf.where(t > 1, part * jumped, first)

    def _direction(self, logits_fn, targeted, t, point, label, seed, delta):
        """The steepest unit step of one image, estimated at its boundary."""
        evals = self.initial_num_evals * tf.sqrt(tf.cast(t, tf.float32))
        evals = tf.minimum(tf.cast(evals, tf.int32), self.max_num_evals)
        axes = list(range(1, len(point.shape) + 1))
        seed = tf.random.fold_in(seed, t)

        def chunk(done, fooling, fooling_sum, noise_sum):
            size = tf.minimum(CHUNK, evals - done)
            shape, own = [size, *point.shape], tf.random.fold_in(seed, done)
            if self.norm == 2:
                noise = tf.random.stateless_normal(shape, own)
            else:
                noise = tf.random.stateless_uniform(shape, own, -1.0, 1.0)
            tried = point + delta * tf.math.l2_normalize(noise, axes)
            tried = tf.clip_by_value(tried, self.clip_min, self.clip_max)
            logits = logits_fn(tried)
            hit = losses.fooled(logits, tf.repeat(label, size), targeted)
            hit = tf.cast(hit, tf.float32)
            noise = (tried - point) / delta
            return (
                done + size,
                fooling + tf.reduce_sum(hit),
                fooling_sum
                + tf.reduce_sum(steps.per_image(hit, noise) * noise, 0),
                noise_sum + tf.reduce_sum(noise, 0),
            )

        zeros = tf.zeros_like(point)
        _, fooling, fooling_sum, noise_sum = tf.while_loop(
            lambda done, *_: done < evals,
            chunk,
            (0, 0.0, zeros, zeros),
            parallel_iterations=1,
        )
        # With `phi` -1 and 1 the estimate is twice this; only its direction
        # matters. Where all of the noise agrees, its mean is the best guess.
        share = fooling / tf.cast(evals, tf.float32)
        normal = fooling_sum - share * noise_sum
        normal = tf.where(share == 1, noise_sum, normal)
        normal = tf.where(share == 0, -noise_sum, normal)
        if self.norm == np.inf:
            return tf.sign(normal)
        return tf.math.l2_normalize(normal)

    def _step(self, ask, point, direction, length):
        """The first, of steps halved again and again, that fools."""

        def halve(i, length, moved, active):
            tried = point + steps.per_image(length, point) * direction
            tried = tf.clip_by_value(tried, self.clip_min, self.clip_max)
            hit = ask(tried, active)
            moved = steps.where(hit, tried, moved)
            return length / 2, moved, active & ~hit

        state = length, point, tf.ones_like(length, tf.bool)
        return steps.repeat(halve, _HALVINGS, state, lambda *s: s[-1])[1]

    def _bisect(self, ask, image, point):
        """The nearest point found on the way to the image that fools."""
        # To the paper's precision.
        power = 1.5 if self.norm == 2 else 2
        times = max(math.ceil(power * math.log2(_pixels(image))), 1)
        delta = point - image
        box = distances(delta, np.inf)

        def halve(i, low, high, nearest):
            middle = (low + high) / 2
            if self.norm == 2:
                tried = image + steps.per_image(middle, image) * delta
            else:
                side = steps.per_image(middle * box, image)
                tried = image + tf.clip_by_value(delta, -side, side)
            hit = ask(tried, tf.ones_like(low, tf.bool))
            new, old = (low, middle, tried), (middle, high, nearest)
            return steps.pick(hit, new, old)

        state = tf.zeros_like(box), tf.ones_like(box), point
        return steps.repeat(halve, min(times, _HALVINGS), state)[2]


def _pixels(x):
    return math.prod(x.shape[1:])
