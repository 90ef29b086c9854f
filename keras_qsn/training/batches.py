"""What a training step is given: checks in its graph, classes, numbers."""

import contextlib

import numpy as np
import tensorflow as tf

from keras_qsn.inputs import check_images
from keras_qsn.inputs import check_labels

# How far from 1 the float32 sum of smoothed labels may be.
_SUM_TOLERANCE = 1e-3
_NO_LABELS = (
    "`y` must hold the true classes. Received: images alone. Give both, as "
    "two arrays or as batches of pairs."
)


class BatchCheck:
    """Refuses images and labels that are not for a classifier.

    Whole arrays before any work; batches inside the step that takes them,
    whatever they come from, by comparisons in its graph. A batch that fails
    them goes to the checks of arrays, for the message.

    Args:
        wrapper: `KerasModelWrapper` of the classifier.
        value_range: Smallest and largest pixel, or `None`: any finite one.
    """

    def __init__(self, wrapper, value_range):
        self._model = wrapper.model
        self._shape = wrapper.model.input_shape[1:]
        self.num_classes = wrapper.model.output_shape[-1]
        self._low, self._high = value_range or (-np.inf, np.inf)
        self._refusal = None

    def arrays(self, x, y):
        """Refuse arrays that do not fit.

        Raises:
            TypeError: If the images are not floating-point numbers.
            ValueError: If shapes or values do not fit.
        """
        if y is None:
            raise ValueError(_NO_LABELS)
        images = check_images(x, self._low, self._high, self._model)
        check_targets(y, len(images), self.num_classes)

    def __call__(self, x, y):
        """A batch's images as float32, in a step that stops if they are bad.

        Args:
            x: Tensor of images.
            y: Tensor of labels.
        """
        if y is None:
            raise ValueError(_NO_LABELS)
        self._check_signature(x)
        images = tf.cast(x, tf.float32)
        limit = tf.float32.max
        inside = (images >= np.maximum(self._low, -limit)) & (
            images <= np.minimum(self._high, limit)
        )
        fits = tf.reduce_all(inside) & targets_fit(
            y, tf.shape(x)[0], self.num_classes
        )
        checked = tf.cond(
            fits,
            lambda: True,
            lambda: tf.py_function(self._refuse, [x, y], tf.bool),
        )
        with tf.control_dependencies([checked]):
            return tf.identity(images)

    @contextlib.contextmanager
    def readable(self):
        """Raises what was refused inside as it is, without TensorFlow's."""
        self._refusal = None
        try:
            yield
        except tf.errors.OpError:
            if self._refusal is None:
                raise
            raise self._refusal from None

    def _refuse(self, x, y):
        try:
            self.arrays(x.numpy(), y.numpy())
        except (TypeError, ValueError) as refusal:
            self._refusal = refusal
            raise
        return True

    def _check_signature(self, x):
        """Refuse a type or a shape while tracing, by one image like it."""
        shape = self._shape
        if x.shape.rank is not None:
            expected = [*shape, *[1] * x.shape.rank]
            shape = [a or b for a, b in zip(x.shape[1:], expected)]
        shape = [size or 1 for size in shape]
        pixel = np.where(np.isfinite(self._low), self._low, 0.0)
        image = np.broadcast_to(pixel, [1, *shape])
        image = image.astype(x.dtype.as_numpy_dtype)
        check_images(image, self._low, self._high, self._model)


def is_rows(shape, num_classes):
    """Whether labels of this shape are a row of probabilities each.

    Raises:
        ValueError: If they are no class numbers either.
    """
    shape = tuple(shape)
    if len(shape) == 2 and shape[1] == num_classes:
        return True
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return False
    raise ValueError(
        "`y` must be integers of shape (images,) or one-hot rows of shape "
        f"(images, {num_classes}). Received: y.shape={shape}"
    )


def targets_fit(y, num_images, num_classes):
    """Whether each image has one class: a scalar boolean tensor.

    Args:
        y: Class numbers of shape `(images,)` or `(images, 1)`; or rows of
            `num_classes` numbers >= 0 that sum to 1: one-hot, or smoothed.
        num_images: Number of images.
        num_classes: Number of classes.
    """
    y = tf.convert_to_tensor(y)
    if is_rows(y.shape, num_classes):
        rows = tf.cast(y, tf.float32)
        off = tf.abs(tf.reduce_sum(rows, 1) - 1)
        good = tf.reduce_all(rows >= 0) & tf.reduce_all(off <= _SUM_TOLERANCE)
    else:
        whole = tf.cast(y, tf.int64)
        good = tf.reduce_all(
            (tf.cast(whole, y.dtype) == y)
            & (whole >= 0)
            & (whole < num_classes)
        )
    return good & tf.equal(tf.shape(y)[0], num_images)


def check_targets(y, num_images, num_classes):
    """Refuse labels that `targets_fit` does not hold for.

    Raises:
        ValueError: Saying what is wrong with them.
    """
    y = np.asarray(y)
    if not is_rows(y.shape, num_classes):
        check_labels(y, num_images, num_classes)
    elif len(y) != num_images:
        raise ValueError(
            f"`y` must have one label for each of the {num_images} images. "
            f"Received: {len(y)} labels."
        )
    elif not targets_fit(y, num_images, num_classes):
        sums = y.astype("float64").sum(1)
        worst = np.abs(sums - 1).argmax()
        raise ValueError(
            "`y` must have one class for each image: rows of numbers >= 0 "
            f"that sum to 1. Received: row {worst} sums to {sums[worst]:.6g}, "
            f"numbers from {y.min():.6g} to {y.max():.6g}. For images of "
            "several classes at once (multi-label) there is no adversarial "
            "training here; give each its main class."
        )


def class_numbers(y, num_classes):
    """Class numbers as an int32 vector, of what `targets_fit` holds for."""
    y = tf.convert_to_tensor(y)
    if is_rows(y.shape, num_classes):
        return tf.argmax(y, -1, output_type=tf.int32)
    return tf.cast(tf.reshape(y, [-1]), tf.int32)


def num_clean(count, share):
    """How many of `count` images are `share` of them, rounded down.

    In float64, and with room for its rounding: 0.29 of 100 are 29.
    """
    exact = tf.cast(count, tf.float64) * tf.constant(share, tf.float64)
    return tf.cast(tf.floor(exact + 1e-9), tf.int32)


def numbered(seen, count):
    """The numbers of a batch's images among all, and how many are seen then.

    Replicas of a distribution strategy number theirs one after the other, as
    the data come.

    Args:
        seen: Integer tensor: how many images came before.
        count: Integer tensor: how many this replica has of the batch.

    Returns:
        Integer tensor of shape `(count,)`, and an integer tensor.
    """
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return seen + tf.range(count), seen + count
    counts = replica.all_gather(count[None], axis=0)
    before = tf.reduce_sum(counts[: replica.replica_id_in_sync_group])
    return seen + before + tf.range(count), seen + tf.reduce_sum(counts)


def seeds_of_images(seed, index):
    """One seed for each image, from the attack's and the image's number.

    Args:
        seed: Integer. What int32 does not hold is folded into it.
        index: Integer tensor of shape `(images,)`.
    """
    if not -(2**31) <= seed < 2**31:
        seed = (seed ^ seed >> 31) % 2**31
    return tf.stack([tf.fill(tf.shape(index), seed), index], 1)
