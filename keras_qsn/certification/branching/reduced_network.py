"""A network reduced to what can change on one box: a small, dense one.

Its variables are the pixels that can change and the outputs of the neurons
whose activation is bent on the box; all else is a linear function of
these, off by at most a radius. Boxes inside are bounded by it a dozen times
faster than by the whole network.
"""

import typing

import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.activation import Activation
from keras_qsn.certification.rules.enclosures import Bounds


class Neurons(typing.NamedTuple):
    """Neurons of one activation that is bent on what they read.

    Attributes:
        rule: The activation.
        constant: Of what they read, a vector.
        coefficients: The same, `(neurons, variables before)`.
        radius: The same.
        known: `Bounds` of what they read, anywhere in the whole box.
    """

    rule: Activation
    constant: np.ndarray
    coefficients: np.ndarray
    radius: np.ndarray
    known: Bounds


class Reduced:
    """What is left of a network on one box.

    Args:
        neurons: List of `Neurons`, in the order of computation.
        constant: Of the logits, a vector.
        coefficients: The same, `(classes, variables)`.
        radius: The same.
    """

    def __init__(self, neurons, constant, coefficients, radius):
        self._neurons = neurons
        self._constant = constant
        self._coefficients = coefficients
        self._radius = radius

    def lower_bound(self, low, high, rows):
        """Lower bounds of linear functions of the logits, by CROWN.

        Args:
            low: Smallest levels of the pixels that can change, of shape
                `(boxes, pixels)`.
            high: Largest levels.
            rows: Coefficients, shape `(functions, classes)`.

        Returns:
            The bounds, `(boxes, functions)`, and the coefficients of the
            pixels, `(boxes, functions, pixels)`.
        """
        pixels = Bounds.between(tf.constant(low), tf.constant(high))
        read = self._read(pixels)
        least, slopes = _backward(
            rows @ self._coefficients, self._neurons, read, pixels
        )
        least += rows @ self._constant - np.abs(rows) @ self._radius
        return least, slopes

    def _read(self, pixels):
        """Bounds of what the neurons read, activation after activation."""
        center, radius = (part.numpy() for part in pixels)
        read = []
        for neurons in self._neurons:
            matrix = neurons.coefficients
            bounds = Bounds(
                tf.constant(center @ matrix.T + neurons.constant),
                tf.constant(radius @ np.abs(matrix).T + neurons.radius),
            ).intersect(neurons.known)
            read.append(bounds)
            values = neurons.rule.bounds(bounds)
            center, radius = (
                np.concatenate([before, part.numpy()], 1)
                for before, part in zip((center, radius), values)
            )
        return read


def _backward(rows, neurons, read, pixels):
    """Lower bounds of linear functions of the variables.

    Args:
        rows: Coefficients, `(functions, variables)`.
        neurons: List of `Neurons`: those that are variables.
        read: `Bounds` of what they read, `(boxes, neurons)`.
        pixels: `Bounds` of the pixels, `(boxes, pixels)`.

    Returns:
        The bounds, `(boxes, functions)`, and the coefficients of the pixels,
        `(boxes, functions, pixels)`.
    """
    center, radius = (part.numpy()[:, None] for part in pixels)
    rows = np.repeat(rows[None], len(center), 0)
    least = np.zeros(rows.shape[:2])
    for each, bounds in zip(reversed(neurons), reversed(read)):
        before = each.coefficients.shape[1]
        (of_read,), constant = each.rule.backward(
            tf.constant(rows[..., before:]), None, bounds
        )
        of_read = of_read.numpy()
        least += constant.numpy() + of_read @ each.constant
        least -= np.abs(of_read) @ each.radius
        rows = rows[..., :before] + of_read @ each.coefficients
    least += (rows * center - np.abs(rows) * radius).sum(2)
    return least, rows
