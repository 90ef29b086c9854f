"""The cube attack: a search over the levels a quantizer lets through."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.adaptive import corner_search
from keras_qsn.attacks.base import Attack
from keras_qsn.classifier.opened import OpenedModel


class CubeAttack(Attack):
    """PGD over what can come out of the quantizer, not over what goes in.

    A quantizer `q` that maps pixels one by one, and keeps their order, turns
    the L-infinity ball into the box `[q(x - eps), q(x + eps)]`. The attack
    follows the gradient of the network *behind* `q` in this box, rounds to
    the levels of a hard quantizer, searches beside the best levels, and finds
    by bisection an image in the ball that has these. No gradient passes the
    quantizer, so it can mask none.

    Restarts take turns with the cross-entropy and the margin as the loss; the
    first starts in the middle of the box, where one gradient tells more than
    several at the image, the others at random points. In a round of the local
    search, the best of 32 neighbours is taken if it raises the margin: 12
    single pixels flipped, the 2 to 12 of most gain together, the windows of
    most gain, and 10 random windows at their lowest or highest level, as
    Square has them. The gain is the gradient's guess.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        nb_iter: Integer >= 1. Steps of each restart. Defaults to `40`.
        nb_restarts: Integer >= 1. Defaults to `5`.
        nb_polish: Integer >= 0. Rounds of local search after the last
            restart, hard quantizers only: each is one gradient and 32 forward
            passes of what is not fooled yet. Defaults to `10`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's starts and windows, whatever the
            batch size.

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
        - Random windows: Andriushchenko et al., 2020:
          https://arxiv.org/abs/1912.00049
    """

    threat = "adaptive"
    climbs = True
    counts = ("nb_iter", "nb_restarts", "nb_polish")

    def __init__(
        self,
        eps=0.3,
        nb_iter=40,
        nb_restarts=5,
        nb_polish=10,
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
        margin = box.margin_of(opened.behind(clean), labels, targeted)

        def restart(i, old, old_margin, bottom, top, label, seed):
            part = box.of(bottom, top)
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
            lambda levels, margin: (margin <= 0) & box.has_room,
        )
        if opened.hard:
            levels = corner_search.climb(
                *(box, levels, margin, labels, targeted),
                *(self.nb_polish, seeds),
            )
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
            margin = box.margin_of(logits, labels, targeted)
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
        margin = box.margin_of(box.opened.behind(last), labels, targeted)
        return _better((last, margin), best)


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

    def margin_of(self, logits, labels, targeted):
        """The attacker's lead, less what rounding may take of it."""
        rounding = losses.rounding_of(self.opened)
        return losses.margin_of(logits, labels, targeted, rounding)

    def of(self, bottom, top):
        """The box of some of the images."""
        return _Box(self.opened, bottom, top)

    @property
    def has_room(self):
        """Which images have another image in their box."""
        return tf.reduce_any(
            tf.reshape(self.top > self.bottom, [-1, self.pixels]), 1
        )

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

    def flip(self, levels, gradient):
        """Each pixel one level up or down, to where there is another."""
        up = tf.minimum(levels + self.opened.step, self.top)
        down = tf.maximum(levels - self.opened.step, self.bottom)
        upwards = tf.where(gradient > 0, up > levels, down >= levels)
        return tf.where(upwards, up, down)
