"""Max pooling between two linear functions."""

import dataclasses
import functools
import typing

import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.affine import total
from keras_qsn.certification.rules.affine import transpose
from keras_qsn.certification.rules.enclosures import ROUNDING
from keras_qsn.certification.rules.enclosures import Bounds


@dataclasses.dataclass(frozen=True)
class MaxPooling:
    """The largest value of each window.

    Attributes:
        windows: Function of images that lists the values of each window along
            the axis before the last; padded with values below all others.
    """

    windows: typing.Callable

    def bounds(self, x):
        return Bounds.between(
            *(tf.reduce_max(self.windows(end), -2) for end in x.ends)
        )

    def undecided(self, x):
        """Where the interval is more than a point."""
        return x.radius > ROUNDING * x.magnitude

    def backward(self, rows, shapes, x):
        """As `Affine.backward`: never below the value that is surely largest,
        nor above the largest that any may take."""
        low, high = (self.windows(end) for end in x.ends)
        axis = len(low.shape) - 2
        surest = tf.one_hot(
            tf.argmax(low, axis), low.shape[axis], axis=axis, dtype=rows.dtype
        )
        floor, roof = tf.reduce_max(low, -2), tf.reduce_max(high, -2)
        others = tf.where(surest > 0, tf.cast(-np.inf, high.dtype), high)
        settled = tf.cast(tf.reduce_max(others, -2) <= floor, rows.dtype)
        upward, downward = tf.nn.relu(rows), -tf.nn.relu(-rows)
        passed = upward + downward * settled[:, None]
        constant = total(downward * ((1 - settled) * roof)[:, None])
        size = tf.maximum(tf.abs(floor), tf.abs(roof))
        constant -= ROUNDING * total(tf.abs(rows) * size[:, None])
        spread = passed[..., None, :] * surest[:, None]
        return transpose(self.windows, spread, shapes), constant


def max_pooling(layer, shape):
    return MaxPooling(
        functools.partial(
            _windows,
            size=layer.pool_size,
            strides=layer.strides,
            padding=layer.padding,
        )
    )


def global_max_pooling(layer, shape):
    height, width, channels = shape
    ones = [1, 1] if layer.keepdims else []

    def windows(x):
        return tf.reshape(x, [-1, *ones, height * width, channels])

    return MaxPooling(windows)


def _windows(x, size, strides, padding):
    """Shape `(batch, height, width, values, channels)`."""
    spans = []
    for length, window, stride in zip(x.shape[1:3], size, strides):
        if padding == "same":
            count = -(-length // stride)
            lacking = max((count - 1) * stride + window - length, 0)
            spans.append((count, lacking // 2, lacking - lacking // 2))
        else:
            spans.append(((length - window) // stride + 1, 0, 0))
    (rows, *pad_rows), (columns, *pad_columns) = spans
    x = tf.pad(
        x, [[0, 0], pad_rows, pad_columns, [0, 0]], constant_values=-np.inf
    )
    return tf.stack(
        [
            x[
                :,
                i : i + (rows - 1) * strides[0] + 1 : strides[0],
                j : j + (columns - 1) * strides[1] + 1 : strides[1],
            ]
            for i in range(size[0])
            for j in range(size[1])
        ],
        axis=-2,
    )
