"""Max pooling between two linear functions."""

import dataclasses
import functools
import typing

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.affine import transpose
from keras_qsn.certification.rules.base import Rule
from keras_qsn.certification.rules.enclosures import ROUNDING
from keras_qsn.certification.rules.enclosures import Bounds
from keras_qsn.certification.rules.enclosures import total
from keras_qsn.certification.rules.registry import register_rule


@dataclasses.dataclass(frozen=True)
class MaxPooling(Rule):
    """The rule of the largest value of each window.

    Attributes:
        windows: Function of images that lists the values of each window along
            the axis before the last; padded with values below all others.
    """

    windows: typing.Callable

    def bounds(self, x):
        return Bounds.between(
            *(tf.reduce_max(self.windows(end), -2) for end in x.ends)
        )

    def backward(self, A, shapes, x):
        """Never below the value that is surely largest, nor above the largest
        that any may take."""
        low, high = (self.windows(end) for end in x.ends)
        axis = len(low.shape) - 2
        surest = tf.one_hot(
            tf.argmax(low, axis), low.shape[axis], axis=axis, dtype=A.dtype
        )
        lower, upper = tf.reduce_max(low, -2), tf.reduce_max(high, -2)
        others = tf.where(surest > 0, tf.cast(-np.inf, high.dtype), high)
        settled = tf.cast(tf.reduce_max(others, -2) <= lower, A.dtype)
        positive, negative = tf.nn.relu(A), -tf.nn.relu(-A)
        passed = positive + negative * settled[:, None]
        bias = total(negative * ((1 - settled) * upper)[:, None])
        size = tf.maximum(tf.abs(lower), tf.abs(upper))
        bias -= ROUNDING * total(tf.abs(A) * size[:, None])
        spread = passed[..., None, :] * surest[:, None]
        return transpose(self.windows, spread, shapes), bias

    def part(self, entries, shapes, x):
        """Of the values that may be the largest of a window."""
        places = np.arange(np.prod(*shapes), dtype="float64")
        low, high, places = (
            np.moveaxis(self.windows(part).numpy()[0], -2, 0)
            for part in (*x.ends, places.reshape(1, *shapes[0]))
        )
        first = np.arange(len(low)).reshape(-1, *[1] * (low.ndim - 1))
        never = (high <= low.max(0)) & (first != low.argmax(0))
        places = np.where(never, -np.inf, places).reshape(len(low), -1)
        places = places[:, entries]
        reads = np.unique(places[np.isfinite(places)])
        # The others read a number put before all.
        index = np.where(places < 0, 0, np.searchsorted(reads, places) + 1)

        def windows(x):
            x = tf.pad(x, [[0, 0], [1, 0]], constant_values=-np.inf)
            return tf.gather(x, index, axis=1)

        return MaxPooling(windows), [reads.astype(int)]


@register_rule(keras.layers.MaxPooling2D)
def _max_pooling(layer, shape):
    return MaxPooling(
        functools.partial(
            _windows,
            size=layer.pool_size,
            strides=layer.strides,
            padding=layer.padding,
        )
    )


@register_rule(keras.layers.GlobalMaxPooling2D)
def _global_max_pooling(layer, shape):
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
