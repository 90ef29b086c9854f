"""The cube attack: a search over the levels a quantizer lets through."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.classifier.opened import OpenedModel

# Pixels tried at a time, each by itself.
_CANDIDATES = 16


class CubeAttack(Attack):
    """PGD over what can come out of the quantizer, not over what goes in.

    A quantizer `q` that maps pixels one by one, and keeps their order, turns
    the L-infinity ball into the box `[q(x - eps), q(x + eps)]`. The attack
    follows the gradient of the network *behind* `q` in this box, rounds to
    the levels of a hard quantizer, changes single pixels as long as that
    helps, and finds by bisection an image in the ball that has these levels.
    No gradient passes the quantizer, so it can mask none.

    Restarts take turns with the cross-entropy and the margin as the loss; the
    first starts in the middle of the box, where one gradient tells more than
    several at the image, the others at random points.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        nb_iter: Integer >= 1. Steps of each restart. Defaults to `40`.
        nb_restarts: Integer >= 1. Defaults to `5`.
        nb_polish: Integer >= 0. Largest number of single pixels changed after
            the last restart, hard quantizers only. Defaults to `20`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's starts, whatever the batch size.

    Raises:
        ValueError: If a parameter is out of range, or the model attacked has
            no quantizer that maps each pixel of the image by itself.

    Example:

    >>> model = cleverhans_cnn(quantizer=ConstantQuantization(2), seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.4, "float32")
    >>> result = CubeAttack(eps=0.2, nb_iter=5).run(model, x)
    >>> float(np.abs(result.x_adv - x).max()) <= 0.2 + 1e-6
    True

    Limitations:
        Exact in what it searches, not in how: rounding is a heuristic, and
        a network behind the quantizer may mask gradients of its own.

    Reference:
        - The box is that of interval bounds: Gowal et al., 2018:
          https://arxiv.org/abs/1810.12715; attacking behind the transform:
          Athalye et al., 2018: https://arxiv.org/abs/1802.00420
    """

    threat = "adaptive"
    counts = ("nb_iter", "nb_restarts", "nb_polish")

    def __init__(
        self,
        eps=0.3,
        nb_iter=40,
        nb_restarts=5,
        nb_polish=20,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        super().__init__(eps, clip_min=clip_min, clip_max=clip_max, seed=seed)
        self._keep_counts(nb_iter=nb_iter, nb_restarts=nb_restarts)
        self._keep_counts(0, nb_polish=nb_polish)

    def seen(self, wrapper, shape=None):
        seen = super().seen(wrapper, shape)
        return OpenedModel(
            seen.wrapper, self.clip_min, self.clip_max, shape is not None, seen
        )

    def _perturb(self, opened, x, labels, eps, seeds, targeted):
        low = self._project(x, x - eps, eps)
        high = self._project(x, x + eps, eps)
        box = _Box(opened, opened.quantize(low), opened.quantize(high))
        clean = opened.quantize(x)
        margin = losses.margin_of(opened.behind(clean), labels, targeted)

        def restart(i, old, old_margin, bottom, top, label, seed):
            part = _Box(opened, bottom, top)
            start = tf.where(
                tf.equal(i, 0),
                part.middle,
                part.sample(steps.restarted(seed, i)),
            )
            climbed = self._climb(part, start, label, i, targeted)
            return _better(climbed, (old, old_margin))

        levels, margin = steps.search(
            restart,
            self.nb_restarts,
            (clean, margin),
            (box.bottom, box.top, labels, seeds),
            lambda levels, margin: margin <= 0,
        )
        if opened.hard:
            levels = self._polish(box, levels, margin, labels, targeted)
        return opened.invert(levels, x, low, high)

    def _climb(self, box, start, labels, i, targeted):
        """One restart: the best levels on the way, and their margin."""

        def step(k, latent, *best):
            # The first gradient is asked for inside the box: one at a corner
            # tells little of the others.
            inside = tf.equal(k, 0)
            levels = tf.where(inside, latent, box.round(latent))
            gradient, logits = losses.gain_gradient(
                box.opened.behind,
                levels,
                labels,
                tf.not_equal(i % 2, 0),
                targeted,
            )
            margin = losses.margin_of(logits, labels, targeted)
            # Shares of a pixel's width, from all of it to none.
            size = 1 - tf.cast(k, tf.float32) / tf.cast(
                self.nb_iter, tf.float32
            )
            if box.opened.hard:
                # No image of the ball has what lies between levels.
                margin = tf.where(inside, -np.inf, margin)
            latent = box.move(latent, size * tf.sign(gradient))
            return latent, *_better((levels, margin), best)

        worst = tf.fill(tf.shape(labels), -np.inf)
        latent, *best = steps.repeat(step, self.nb_iter, (start, start, worst))
        # Where the last step led, no gradient is asked for.
        last = box.round(latent)
        margin = losses.margin_of(box.opened.behind(last), labels, targeted)
        return _better((last, margin), best)

    def _polish(self, box, levels, margin, labels, targeted):
        """Single pixels changed by one level, as long as the margin grows."""

        def change(i, now, old, skip, bottom, top, label):
            part = _Box(box.opened, bottom, top)
            gradient, _ = losses.gain_gradient(
                box.opened.behind, now, label, losses.margin_of, targeted
            )
            moved, order = part.moves(now, gradient)

            def attempt(k, *best):
                pixel = tf.gather(order, skip + k, batch_dims=1)
                candidate = part.replace(now, moved, pixel)
                new = losses.margin_of(
                    part.opened.behind(candidate), label, targeted
                )
                return _better((candidate, new), best)

            best, best_margin = steps.repeat(attempt, _CANDIDATES, (now, old))
            # Where none helped, the next ones are tried.
            skip = tf.where(best_margin > old, 0, skip + _CANDIDATES)
            return best, best_margin, skip

        return steps.search(
            change,
            self.nb_polish,
            (levels, margin, tf.zeros_like(labels)),
            (box.bottom, box.top, labels),
            lambda _, margin, tried: (margin <= 0) & (tried < box.pixels),
        )[0]


def _better(new, old):
    """Of two levels and their margins, those of the larger margin."""
    return steps.pick(new[1] > old[1], new, old)


class _Box:
    """The levels that can come out of a quantizer, image by image."""

    def __init__(self, opened, bottom, top):
        self.opened = opened
        self.bottom = bottom
        self.top = top
        self.pixels = int(np.prod(bottom.shape[1:]))

    @property
    def middle(self):
        return (self.bottom + self.top) / 2

    def sample(self, seeds):
        share = (1 + norms.sample(self.top.shape[1:], seeds, np.inf)) / 2
        return self.bottom + share * (self.top - self.bottom)

    def move(self, levels, shares):
        """Moved by shares of each pixel's width, and kept inside."""
        moved = levels + shares * (self.top - self.bottom)
        return tf.clip_by_value(moved, self.bottom, self.top)

    def round(self, levels):
        """The nearest ones a hard quantizer gives."""
        if not self.opened.hard:
            return levels
        step = self.opened.step
        return self.bottom + step * tf.round((levels - self.bottom) / step)

    def moves(self, levels, gradient):
        """Each pixel one level up or down, and the order of their gains."""
        up = tf.minimum(levels + self.opened.step, self.top)
        down = tf.maximum(levels - self.opened.step, self.bottom)
        moved = tf.where(gradient > 0, up, down)
        gain = tf.reshape(gradient * (moved - levels), [-1, self.pixels])
        order = tf.argsort(gain, direction="DESCENDING", stable=True)
        # So that the last pixels can be asked for in whole groups.
        return moved, tf.pad(order, [[0, 0], [0, _CANDIDATES]])

    def replace(self, levels, moved, pixel):
        """One pixel of each image taken from `moved`."""
        here = tf.one_hot(pixel, self.pixels, True, False, dtype=tf.bool)
        here = tf.reshape(here, [-1, *levels.shape[1:]])
        return tf.where(here, moved, levels)
