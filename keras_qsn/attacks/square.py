"""The Square Attack: random search on the model's scores, no gradients."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.objectives import fooled
from keras_qsn.attacks.objectives import per_image
from keras_qsn.inputs import check_count

# Queries, of 10 000, after which the share of changed pixels is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# What changes by less, of the logits' size, may be rounding, and that depends
# on the batch.
_ROUNDING = 1e-6


class SquareAttack(Attack):
    """Square Attack: random squares, kept where they bring the class down.

    `x_adv` starts as `x` with vertical stripes of `-eps` or `eps`. Each query
    sets one square, at a random place, to `-eps` or `eps` in each channel,
    and keeps it if the loss falls or the image is fooled. The loss is
    `z[y] - max_{i != y} z[i]`; with `y_target`, the cross-entropy of the
    target. The squares cover a share `p_init` of the image at first, and
    less by halves later on.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        norm: `np.inf`. Defaults to `np.inf`.
        nb_queries: Integer >= 1. Forward passes of each start, the one of
            the stripes included. Defaults to `5000`.
        p_init: Float in (0, 1]. Defaults to `0.8`.
        nb_restarts: Integer >= 1. Random starts. Defaults to `1`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's squares, whatever the batch size.

    Raises:
        ValueError: If a parameter is out of range, or the images are not of
            shape `(height, width, channels)`.

    Example:

    >>> SquareAttack(eps=0.1, nb_queries=300).norm
    inf

    Limitations:
        Slow, and weaker than a gradient attack where gradients are sound.
        Cannot search on a model whose scores do not change, such as one that
        rounds them.

    Reference:
        - Andriushchenko et al., 2020: https://arxiv.org/abs/1912.00049
    """

    norms = (np.inf,)

    def __init__(
        self,
        eps=0.3,
        norm=np.inf,
        nb_queries=5000,
        p_init=0.8,
        nb_restarts=1,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        super().__init__(eps, norm, clip_min, clip_max, seed)
        if not 0 < p_init <= 1:
            raise ValueError(
                "`p_init` must be a number above 0, at most 1. "
                f"Received: p_init={p_init}"
            )
        self.nb_queries = check_count("nb_queries", nb_queries)
        self.p_init = float(p_init)
        self.nb_restarts = check_count("nb_restarts", nb_restarts)

    def get_config(self):
        return {
            **super().get_config(),
            "nb_queries": self.nb_queries,
            "p_init": self.p_init,
            "nb_restarts": self.nb_restarts,
        }

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        if len(x.shape) != 4:
            raise ValueError(
                "`x` must be images of shape (height, width, channels). "
                f"Received: images of shape {tuple(x.shape[1:])}"
            )
        height, width, _ = x.shape[1:]
        sides = _sides(self.nb_queries, self.p_init, height, width)
        sides = tf.constant(sides, tf.float32)

        def corner(image, signs):
            return self._project(image, image + eps * signs, eps)

        def query(k, best, loss, done, places, signs):
            # Only the images still at work go through the model.
            rows = tf.where(~done)
            image, label, before, old_loss, place, drawn = (
                tf.gather_nd(t, rows)
                for t in (x, labels, best, loss, places[:, k], signs[:, k])
            )
            inside = _square(place, sides[k], height, width)
            drawn = drawn[:, None, None]
            tried = tf.where(inside, corner(image, drawn), before)
            # A square that is there already would waste the query.
            same = tf.reduce_all(tf.equal(tried, before), [1, 2, 3])
            drawn = tf.where(per_image(same, x), -drawn, drawn)
            tried = tf.where(inside, corner(image, drawn), before)
            logits = tf.cast(logits_fn(tried), tf.float32)
            new_loss = _loss(logits, label, targeted)
            hit = fooled(logits, label, targeted)
            noise = _ROUNDING * tf.reduce_max(tf.abs(logits), -1)
            better = hit | (new_loss < old_loss - noise)
            after = tf.where(per_image(better, x), tried, before)
            new_loss = tf.where(better, new_loss, old_loss)
            return (
                k + 1,
                tf.tensor_scatter_nd_update(best, rows, after),
                tf.tensor_scatter_nd_update(loss, rows, new_loss),
                tf.tensor_scatter_nd_update(done, rows, hit),
                places,
                signs,
            )

        worst = tf.fill(tf.shape(labels), np.inf)

        def restart(i, kept, kept_loss, done):
            stripes, places, signs = _draw(
                seeds + i, self.nb_queries, x.shape[1:]
            )
            _, best, loss, now_done, _, _ = tf.while_loop(
                lambda k, best, loss, done, *_: (
                    (k < self.nb_queries) & ~tf.reduce_all(done)
                ),
                query,
                (0, corner(x, stripes), worst, done, places, signs),
                parallel_iterations=1,
            )
            better = ~done & (now_done | (loss < kept_loss))
            return (
                i + 1,
                tf.where(per_image(better, x), best, kept),
                tf.where(better, loss, kept_loss),
                now_done,
            )

        return tf.while_loop(
            lambda i, kept, loss, done: (
                (i < self.nb_restarts) & ~tf.reduce_all(done)
            ),
            restart,
            (0, x, worst, tf.zeros_like(labels, tf.bool)),
            parallel_iterations=1,
        )[1]


def _loss(logits, labels, targeted):
    """What the attack brings down, per image."""
    if targeted:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    label = tf.one_hot(labels, logits.shape[-1], True, False, dtype=tf.bool)
    own = tf.gather(logits, labels, batch_dims=1)
    return own - tf.reduce_max(tf.where(label, -np.inf, logits), -1)


def _sides(nb_queries, p_init, height, width):
    """Side of each query's square, by the paper's schedule."""
    # An empty square first: that query is of the stripes.
    sides = [0]
    for k in range(1, nb_queries):
        passed = sum(k * 10000 // nb_queries > step for step in _HALVINGS)
        side = round((p_init / 2**passed * height * width) ** 0.5)
        sides.append(min(max(side, 1), height, width))
    return sides


def _square(place, side, height, width):
    """Where the squares are: booleans of shape `(batch, height, width, 1)`."""

    def span(where, length):
        first = tf.floor(where[:, None] * (length - side + 1))
        index = tf.range(length, dtype=tf.float32)
        return (index >= first) & (index < first + side)

    rows, columns = span(place[:, 0], height), span(place[:, 1], width)
    return rows[:, :, None, None] & columns[:, None, :, None]


def _draw(seeds, nb_queries, shape):
    """Every random number of a start, from each image's own seed.

    All at once, since drawing image by image is slow: 20 bytes for a query
    of a colour image.

    Returns:
        Signs of the stripes, places of the squares as parts of the image,
        and signs of the squares, `(batch, 1, width, channels)`,
        `(batch, nb_queries, 2)` and `(batch, nb_queries, channels)`.
    """
    _, width, channels = shape
    sizes = [width * channels, 2 * nb_queries, channels * nb_queries]
    drawn = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([sum(sizes)], seed),
        seeds,
        fn_output_signature=tf.float32,
    )
    stripes, places, signs = tf.split(drawn, sizes, 1)
    return (
        _signs(tf.reshape(stripes, [-1, 1, width, channels])),
        tf.reshape(places, [-1, nb_queries, 2]),
        _signs(tf.reshape(signs, [-1, nb_queries, channels])),
    )


def _signs(uniform):
    return tf.where(uniform < 0.5, -1.0, 1.0)
