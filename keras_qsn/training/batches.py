"""What a training step is given: checks in its graph, classes, numbers."""

import contextlib

import numpy as np
import tensorflow as tf

from keras_qsn.classifier.inputs import check_images
from keras_qsn.classifier.inputs import check_labels

# How far from 1 the float32 sum of smoothed labels may be.
_SUM_TOLERANCE = 1e-4
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
        self._wrapper = wrapper
        self.num_classes = wrapper.num_classes
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
        images = self._check_images(x)
        check_labels(y, len(images), self.num_classes)

    def __call__(self, x, y):
        """A batch's images as float32, in a step that stops if they are bad.

        Args:
            x: Tensor of images.
            y: Tensor of labels.
        """
        if y is None:
            raise ValueError(_NO_LABELS)
        self._check_signature(x, y)
        images = tf.cast(x, tf.float32)
        low = np.float32(np.maximum(self._low, tf.float32.min))
        high = np.float32(np.minimum(self._high, tf.float32.max))
        inside = (images >= low) & (images <= high)
        fits = tf.reduce_all(inside) & _targets_fit(
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

    def _check_signature(self, x, y):
        """Refuse a type or a shape while tracing, by one image like it."""
        shape = self._wrapper.input_shape
        # Of no known rank are labels once batches and single ones have come.
        if x.shape.rank == len(shape) or not y.shape.rank:
            raise ValueError(
                f"A dataset must give batches of images, shape (batch, "
                f"{', '.join(map(str, shape))}). Received: images of shape "
                f"{x.shape}, labels of shape {y.shape}. Batch it: "
                "`dataset.batch(128)`."
            )
        if x.shape.rank is not None:
            expected = [*shape, *[1] * x.shape.rank]
            shape = [a or b for a, b in zip(x.shape[1:], expected)]
        pixel = np.clip(0.0, self._low, self._high)
        image = np.broadcast_to(pixel, [1, *(size or 1 for size in shape)])
        self._check_images(image.astype(x.dtype.as_numpy_dtype))

    def _check_images(self, x):
        return check_images(x, self._low, self._high, self._wrapper)


def _is_rows(shape, num_classes):
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


def _targets_fit(y, num_images, num_classes):
    """Whether each image has one class: a scalar boolean tensor.

    By its number, or by a row of numbers >= 0 that sum to 1, one of them the
    largest: one-hot, or smoothed.
    """
    y = tf.convert_to_tensor(y)
    if _is_rows(y.shape, num_classes):
        rows = tf.cast(y, tf.float32)
        largest = tf.equal(rows, tf.reduce_max(rows, 1, keepdims=True))
        one = tf.reduce_sum(tf.cast(largest, tf.int32), 1) == 1
        near = tf.abs(tf.reduce_sum(rows, 1) - 1) < _SUM_TOLERANCE
        good = tf.reduce_all(one & near & tf.reduce_all(rows >= 0, 1))
    else:
        whole = tf.cast(y, tf.int64)
        good = tf.reduce_all(
            (tf.cast(whole, y.dtype) == y)
            & (whole >= 0)
            & (whole < num_classes)
        )
    return good & tf.equal(tf.shape(y)[0], num_images)


def class_numbers(y, num_classes):
    """Class numbers as an int32 vector, of labels that fit."""
    y = tf.convert_to_tensor(y)
    if _is_rows(y.shape, num_classes):
        return tf.argmax(y, -1, output_type=tf.int32)
    return tf.cast(tf.reshape(y, [-1]), tf.int32)
