"""The attack on a single pixel, and what attacks on few pixels share."""

import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack


class SinglePixelAttack(Attack):
    """Set one pixel, in all its channels, to the lowest or highest value.

    The pixels come in random order, each with `clip_min` and then `clip_max`;
    the first that fools the model is the result. A value that the pixel has
    already costs no query.

    Args:
        max_pixels: Integer >= 1. Pixels tried for each image. Defaults to
            `1000`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides the order of each image's pixels, whatever the
            batch size.

    Raises:
        ValueError: If a parameter is out of range, or the images are not of
            shape `(height, width, channels)`.

    Example:

    >>> attack = SinglePixelAttack(max_pixels=5)
    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> x_adv = attack.generate(model, x)
    >>> int((x_adv != x).sum((1, 2, 3)).max()) <= 1
    True

    Limitations:
        Most images have no such pixel: a measure of how brittle a model is,
        not of how robust. `LocalSearchAttack` changes more of them.

    Reference:
        - Narodytska & Kasiviswanathan, 2016:
          https://arxiv.org/abs/1612.06299
    """

    norms = (0,)

    def __init__(self, max_pixels=1000, clip_min=0.0, clip_max=1.0, seed=0):
        super().__init__(None, 0, clip_min, clip_max, seed)
        self._keep_counts(max_pixels=max_pixels)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        height, width = check_size(x)
        count = min(self.max_pixels, height * width)
        keys = draw(seeds, 0, height * width)
        order = tf.math.top_k(keys, count).indices
        # Queries 2 * i and 2 * i + 1 are of the i-th pixel; those that change
        # it come first.
        low, high = (
            tf.zeros_like(x[:1]) + end for end in (self.clip_min, self.clip_max)
        )
        values = tf.stack([low, high], -1)
        changes = tf.reduce_any(x[..., None] != values, 3)
        changes = tf.reshape(changes, [-1, height * width, 2])
        changes = tf.gather(changes, order, batch_dims=1)
        changes = tf.cast(tf.reshape(changes, [-1, 2 * count]), tf.int32)
        queries = tf.argsort(changes, 1, "DESCENDING", stable=True)
        places = tf.gather(order, queries // 2, batch_dims=1)
        to_high = tf.equal(queries % 2, 1)
        left = tf.reduce_sum(changes, 1)

        def attempt(_, left, image, label, place, up):
            mask = mask_of(place[:, None], image)
            value = steps.where(up, high, low)
            tried = tf.where(mask, value, image)
            hit = losses.fooled(logits_fn(tried), label, targeted)
            image = steps.where(hit, tried, image)
            return image, tf.where(hit, 0, left)

        def query(k, *state):
            given = x, labels, places[:, k], to_high[:, k]
            return k + 1, *steps.at_work(state[-1] > k, attempt, state, given)

        left = tf.where(losses.fooled(logits_fn(x), labels, targeted), 0, left)
        return tf.while_loop(
            lambda k, x_adv, left: tf.reduce_any(left > k),
            query,
            (0, x, left),
            parallel_iterations=1,
        )[1]


def check_size(x):
    """Height and width of the images, or what is wrong with their shape."""
    if len(x.shape) != 4:
        raise ValueError(
            "`x` must be images of shape (height, width, channels). "
            f"Received: images of shape {tuple(x.shape[1:])}"
        )
    return x.shape[1:3]


def draw(seeds, i, count):
    """Uniform numbers `(batch, count)`; round `i` of each image's seed."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform(
            [count], tf.random.fold_in(seed, i)
        ),
        seeds,
        fn_output_signature=tf.float32,
    )


def mask_of(places, x):
    """Where `places`, `(batch, n)`, are: booleans `(batch, height, width, 1)`.

    Places count the pixels row by row.
    """
    height, width = x.shape[1:3]
    mask = tf.one_hot(places, height * width, True, False)
    return tf.reshape(tf.reduce_any(mask, 1), [-1, height, width, 1])
