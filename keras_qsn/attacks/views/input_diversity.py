"""The image, shrunk a little and moved about, anew at each step."""

import copy

import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn.attacks.views.base import View

_INTERPOLATIONS = ("nearest", "bilinear")


class InputDiversity(View):
    """Input diversity (DI): each step sees the image in another place.

    With probability `probability`, the logits of the image shrunk to a size
    from `resize_rate` of its own up to one pixel less, somewhere on a ground
    of `fill`; else those of the image itself. An attack overfits its source
    less, so that what it finds transfers better. One draw for each step, of
    all images: results do not depend on the batch.

    Args:
        probability: Float from 0 to 1. Defaults to `0.5`, the paper's.
        resize_rate: Float in `(0, 1)`. Smallest size, as a share of the
            image's. Defaults to `0.9`, about the paper's 299 of 331 pixels.
        interpolation: `"nearest"`, that of the authors' code, or
            `"bilinear"`, as others have it. Defaults to `"nearest"`.
        fill: Float, the pixels around. Defaults to `0.0`.
        seed: Integer. Decides the draws. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of range; when an attack looks, if
            images have no height and width, or are too small to shrink.

    Example:

    >>> attack = MomentumIterativeMethod(eps=0.3, nb_iter=10)
    >>> attack = ViewedAttack(attack, InputDiversity())
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> attack.generate(cleverhans_cnn(seed=0), x, [3, 4]).shape
    (2, 28, 28, 1)

    Limitations:
        For transfer: on the model itself it makes an attack weaker. Draws
        change where an attack says how far it is (BIM, MIM, PGD), alike in
        each restart; any other attack sees one draw throughout.

    Reference:
        - Xie et al., 2019: https://arxiv.org/abs/1803.06978
    """

    # How far the search is.
    _share = 0.0

    def __init__(
        self,
        probability=0.5,
        resize_rate=0.9,
        interpolation="nearest",
        fill=0.0,
        seed=0,
    ):
        self._keep_shares(probability=probability, resize_rate=resize_rate)
        if self.resize_rate in (0, 1):
            raise ValueError(
                "`resize_rate` must lie between 0 and 1. "
                f"Received: resize_rate={resize_rate}"
            )
        if interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f"`interpolation` must be one of {_INTERPOLATIONS}. "
                f"Received: interpolation={interpolation!r}"
            )
        self.interpolation = interpolation
        self.fill = float(fill)
        self._keep(check_count, np.iinfo("int32").min, seed=seed)

    def at(self, share):
        view = copy.copy(self)
        view._share = share
        return view

    def see(self, logits_fn, wrapper):
        def seen(x):
            # The bits of the share: another draw at another step.
            step = tf.bitcast(tf.cast(self._share, tf.float32), tf.int32)
            draws = tf.random.stateless_uniform(
                [4], tf.stack([self.seed, step])
            )
            return logits_fn(self._drawn(x, draws))

        return seen

    def _drawn(self, x, draws):
        """The images, as four numbers in [0, 1) decide."""
        if len(x.shape) != 4:
            raise ValueError(
                "`InputDiversity` needs images of shape (height, width, "
                f"channels). Received: images of shape {tuple(x.shape[1:])}"
            )
        rows, columns = (
            tf.where(
                draws[0] < self.probability,
                self._placing(size, draws[1], draw),
                tf.eye(size),
            )
            for size, draw in zip(x.shape[1:3], (draws[2], draws[3]))
        )
        placed = tf.einsum("ip,bpqc,jq->bijc", rows, x, columns)
        inside = tf.reduce_sum(rows, 1)[:, None] * tf.reduce_sum(columns, 1)
        return placed + self.fill * (1 - inside)[None, :, :, None]

    def _placing(self, size, of_size, of_place):
        """`placing`, of a size and a place that numbers in [0, 1) decide."""
        least = round(self.resize_rate * size)
        if not 0 < least < size:
            raise ValueError(
                "The images must be large enough to shrink by a pixel. "
                f"Received: {size} pixels at resize_rate={self.resize_rate}"
            )
        small = least + tf.floor(of_size * (size - least))
        start = tf.floor(of_place * (size - small + 1))
        return placing(size, small, start, self.interpolation)


def placing(size, small, start, interpolation):
    """A matrix that shrinks one axis and puts it somewhere; 0 elsewhere.

    Args:
        size: Whole number, pixels of the axis.
        small: What they are shrunk to, a whole number or a tensor of one.
        start: Where the first of these is put, likewise.
        interpolation: `"nearest"` or `"bilinear"`.

    Returns:
        Float32 tensor of shape `(size, size)`: a row for each pixel made.
    """
    pixels = tf.range(size, dtype=tf.float32)
    place = pixels - start
    # Middles of pixels lie on one another.
    source = (place + 0.5) * size / small
    if interpolation == "nearest":
        weights = tf.one_hot(tf.cast(tf.floor(source), tf.int32), size)
    else:
        source = tf.clip_by_value(source - 0.5, 0.0, size - 1.0)
        apart = tf.abs(source[:, None] - pixels)
        weights = tf.nn.relu(1 - apart)
    inside = (place >= 0) & (place < small)
    return tf.where(inside[:, None], weights, 0.0)
