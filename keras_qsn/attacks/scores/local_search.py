"""Greedy local search, by the model's scores, for a few pixels to change."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.scores.single_pixel import check_size
from keras_qsn.attacks.scores.single_pixel import draw
from keras_qsn.attacks.scores.single_pixel import mask_of

# Most pixels tried in a round; Foolbox has the same limit.
_MOST_TRIED = 128

# What changes by less, of the logits' size, may be rounding, and that depends
# on the batch.
_ROUNDING = 1e-6
# Keeps a ratio finite.
_TINY = 1e-30


class LocalSearchAttack(Attack):
    """Greedy local search for a few pixels that bring the class down.

    Each of `nb_iter` rounds tries, one at a time, at most 128 pixels, and
    then changes the `pixels_per_iter` of them that lowered the probability of
    `y` most, or raised that of `y_target`. Pixels of the first round are a
    random tenth of all; later ones lie within `neighborhood` rows and columns
    of a pixel changed in the round before. A change, in all channels, is

        `v <- scale * v`, then `v - 1` if `v > 1/2`, `v + 1` if `v < -1/2`

    where `v` is the pixel in units of the range, from -1/2 to 1/2.

    The paper tries a pixel at `p` times the sign of `v`, in Foolbox 10 times:
    far outside of the pixel range, where a quantization layer refuses it.
    Here what is tried is the change itself, so there is no `p`.

    Args:
        scale: Float from 0 to 2, not 1; the paper's `r`. Defaults to `1.5`;
            `2` needs fewer pixels on images of low contrast.
        neighborhood: Integer >= 1, the paper's `d`. Defaults to `5`.
        pixels_per_iter: Integer >= 1, the paper's `t`. Defaults to `5`.
        nb_iter: Integer >= 1, the paper's `R`. Defaults to `150`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides which pixels are tried, image by image,
            whatever the batch size.

    Raises:
        ValueError: If a parameter is out of range, or the images are not of
            shape `(height, width, channels)`.

    Example:

    >>> attack = LocalSearchAttack(nb_iter=3)
    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.4, "float32")
    >>> x_adv = attack.generate(model, x)
    >>> int((x_adv != x).sum((1, 2, 3)).max()) <= 3 * 5
    True

    Limitations:
        Greedy: neither the fewest pixels nor every success that exists. A
        pixel in the middle of the range never changes. On a model whose
        scores do not change, such as one that rounds them, it is a random
        walk; nor does it see that a second change would take a grey pixel
        across a quantizer's threshold.

    Reference:
        - Narodytska & Kasiviswanathan, 2016, LocSearchAdv:
          https://arxiv.org/abs/1612.06299
    """

    norms = (0,)

    def __init__(
        self,
        scale=1.5,
        neighborhood=5,
        pixels_per_iter=5,
        nb_iter=150,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        super().__init__(None, 0, clip_min, clip_max, seed)
        if not (0 <= scale <= 2 and scale != 1):
            raise ValueError(
                "`scale` must be a number from 0 to 2 other than 1. "
                f"Received: scale={scale}"
            )
        self.scale = float(scale)
        self._keep_counts(
            neighborhood=neighborhood,
            pixels_per_iter=pixels_per_iter,
            nb_iter=nb_iter,
        )

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        height, width = check_size(x)
        window = 2 * self.neighborhood + 1
        tried = min(_MOST_TRIED, height * width)
        changed = min(self.pixels_per_iter, tried)

        def step(i, image, around, _, label, seed):
            keys = draw(seed, i + 1, height * width)
            keys = tf.where(tf.reshape(around, tf.shape(keys)), keys, -1.0)
            keys, places = tf.math.top_k(keys, tried)
            gains = self._gains(
                logits_fn,
                image,
                label,
                targeted,
                places,
                keys >= 0,
                tf.shape(x)[0],
            )
            gains, best = tf.math.top_k(gains, changed)
            # Rather one pixel twice than one outside of the neighborhood.
            best = tf.where(tf.math.is_finite(gains), best, best[:, :1])
            picked = mask_of(tf.gather(places, best, batch_dims=1), image)
            image = tf.where(picked, self._changed(image), image)
            around = tf.nn.max_pool2d(
                tf.cast(picked, tf.float32), window, 1, "SAME"
            )
            on = ~losses.fooled(logits_fn(image), label, targeted)
            return image, around > 0, on

        keys = draw(seeds, 0, height * width)
        first = tf.math.top_k(keys, max(height * width // 10, 1)).values
        near = tf.reshape(keys >= first[:, -1:], [-1, height, width, 1])
        state = x, near, ~losses.fooled(logits_fn(x), labels, targeted)
        return steps.search(step, self.nb_iter, state, (labels, seeds))[0]

    def _gains(self, logits_fn, x, labels, targeted, places, valid, size):
        """What changing each place alone gives, -inf if it is not valid.

        `size` images go through the model at a time.
        """
        logits = tf.cast(logits_fn(x), tf.float32)
        before = _log_odds(logits, labels, targeted)
        unit = _ROUNDING * tf.reduce_max(tf.abs(logits), 1)
        pairs = tf.where(valid)

        def gain(indices):
            pair = tf.gather(pairs, indices)
            image, label, score, noise = (
                tf.gather(t, pair[:, 0]) for t in (x, labels, before, unit)
            )
            mask = mask_of(tf.gather_nd(places, pair)[:, None], image)
            tried = tf.where(mask, self._changed(image), image)
            logits = tf.cast(logits_fn(tried), tf.float32)
            rise = _log_odds(logits, label, targeted) - score
            # In whole units, so that those without effect are equal.
            return tf.round(rise / tf.maximum(noise, _TINY))

        values = in_chunks(gain, tf.shape(pairs)[0], size)
        gains = tf.fill(tf.shape(places), -np.inf)
        return tf.tensor_scatter_nd_update(gains, pairs, values)

    def _changed(self, x):
        middle = (self.clip_min + self.clip_max) / 2
        size = self.clip_max - self.clip_min
        value = self.scale * (x - middle) / size
        value -= tf.cast(value > 0.5, x.dtype)
        value += tf.cast(value < -0.5, x.dtype)
        return tf.clip_by_value(
            middle + size * value, self.clip_min, self.clip_max
        )


def in_chunks(function, count, size):
    """`function` of the indices `0 .. count - 1`, `size` of them at a time.

    Returns:
        A float32 tensor of shape `(count,)`.
    """

    def chunk(start, values):
        indices = tf.range(start, tf.minimum(start + size, count))
        return start + size, tf.tensor_scatter_nd_update(
            values, indices[:, None], function(indices)
        )

    return tf.while_loop(
        lambda start, values: start < count,
        chunk,
        (0, tf.zeros([count])),
        parallel_iterations=1,
    )[1]


def _log_odds(logits, labels, targeted):
    """Log-odds that the attacker wants to raise.

    They rank images as the class's probability does, and do not saturate.
    """
    own = tf.gather(logits, labels, batch_dims=1)
    rest = tf.reduce_logsumexp(losses.others(logits, labels), 1)
    return own - rest if targeted else rest - own
