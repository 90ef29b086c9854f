"""A network reduced to what can change on one box: a small, dense one.

Its variables are the pixels that can change and the outputs of the neurons
that are unstable on the box; all else is a linear function of these, off by
at most a radius. Boxes inside are bounded by it a dozen times faster than by
the whole network.
"""

import typing

import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.base import Rule
from keras_qsn.certification.rules.enclosures import Bounds


class Unstable(typing.NamedTuple):
    """Outputs of one rule that are variables.

    Attributes:
        rule: The rule of these outputs alone.
        constant, coefficients, radius: Of what they read, in terms of the
            variables before.
        known: `Bounds` of what they read, anywhere in the whole box.
    """

    rule: Rule
    constant: np.ndarray
    coefficients: np.ndarray
    radius: np.ndarray
    known: Bounds


class ReducedNetwork:
    """What is left of a network on one box.

    Args:
        unstable: List of `Unstable`, in the order of computation.
        constant, coefficients, radius: Of the logits, in terms of all
            variables.
    """

    def __init__(self, unstable, constant, coefficients, radius):
        self._unstable = unstable
        self._constant = constant
        self._coefficients = coefficients
        self._radius = radius

    def lower_bound(self, low, high, A):
        """As `CompiledBounds.lower_bound`, `low` and `high` of the pixels that
        can change alone: `(boxes, pixels)`."""
        pixels = Bounds.between(tf.constant(low), tf.constant(high))
        bias, of_pixels = self._backward(
            A @ self._coefficients, self._intermediate(pixels), pixels
        )
        bias += A @ self._constant - np.abs(A) @ self._radius
        return bias, of_pixels

    def _intermediate(self, pixels):
        """Bounds of what the neurons read, rule after rule."""
        center, radius = (part.numpy() for part in pixels)
        intermediate = []
        for neurons in self._unstable:
            W = neurons.coefficients
            bounds = Bounds(
                tf.constant(center @ W.T + neurons.constant),
                tf.constant(radius @ np.abs(W).T + neurons.radius),
            ).intersect(neurons.known)
            intermediate.append(bounds)
            values = neurons.rule.bounds(bounds)
            center, radius = (
                np.concatenate([before, part.numpy()], 1)
                for before, part in zip((center, radius), values)
            )
        return intermediate

    def _backward(self, A, intermediate, pixels):
        """Lower bounds of functions of the variables, and their `A`."""
        center, radius = (part.numpy()[:, None] for part in pixels)
        A = np.repeat(A[None], len(center), 0)
        lower = np.zeros(A.shape[:2])
        for neurons, bounds in zip(
            reversed(self._unstable), reversed(intermediate)
        ):
            W = neurons.coefficients
            reads, before = W.shape
            (of_read,), bias = neurons.rule.backward(
                tf.constant(A[..., before:]), [(reads,)], bounds
            )
            of_read = of_read.numpy()
            lower += bias.numpy() + of_read @ neurons.constant
            lower -= np.abs(of_read) @ neurons.radius
            A = A[..., :before] + of_read @ W
        lower += (A * center - np.abs(A) * radius).sum(2)
        return lower, A
