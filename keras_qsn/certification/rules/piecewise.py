"""Piecewise linear activations between two linear functions."""

import dataclasses
import functools
import itertools
import typing

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.activation import Activation
from keras_qsn.certification.rules.activation import biases
from keras_qsn.certification.rules.activation import chosen
from keras_qsn.certification.rules.affine import weight_of
from keras_qsn.certification.rules.enclosures import ROUNDING
from keras_qsn.certification.rules.registry import register_rule

# Of what a sloped activation may round off in float32.
_SLOPED = 2.0**-21


@dataclasses.dataclass(frozen=True)
class PiecewiseLinear(Activation):
    """The rule of an activation of straight pieces.

    Attributes:
        function: The activation, for tensors of any float dtype.
        knots: Where pieces meet, increasing.
        jump: The knot where the activation leaps, and the value just above;
            `None` if it is continuous.
        steepest: Function of a dtype that returns the largest slope of a
            piece, its sign left out.
        falls: Whether the slope of a piece may be below zero.
        exact: Whether float32 computes it without rounding.
        at: Function of entries of a flattened node and of its shape that
            returns the activation of these; `None` if all have the same.

    Example:

    >>> hard_tanh = PiecewiseLinear(keras.ops.hard_tanh, knots=(-1.0, 1.0))
    >>> x = Bounds.between(np.array([-3.0]), np.array([0.5]))
    >>> [end.round(6).tolist() for end in np.array(hard_tanh.bounds(x).ends)]
    [[-1.0], [0.5]]
    """

    function: typing.Callable
    knots: tuple
    jump: tuple = None
    steepest: typing.Callable = functools.partial(tf.cast, 1.0)
    falls: bool = False
    exact: bool = True
    at: typing.Callable = None

    def values(self, x):
        if not self.falls:
            return super().values(x)
        values = [value for _, value in self._corners(x)]
        return [
            functools.reduce(choose, values)
            for choose in (tf.minimum, tf.maximum)
        ]

    def unstable(self, x):
        """Where a knot lies inside the interval."""
        low, high = x.ends
        inside = [(low < knot) & (knot < high) for knot in self.knots]
        return functools.reduce(tf.logical_or, inside)

    def relaxation(self, x):
        """The line below and the line above the activation of least area.

        Both are edges of the hull of the activation's corners: among the
        lines through two corners, moved until they lie on one side of all,
        those nearest at the interval's middle.
        """
        corners, best = self._corners(x), None
        for pair in itertools.combinations(corners, 2):
            slope = self._slope(*pair)
            lower, upper = ((slope, bias) for bias in biases(slope, corners))
            if best is not None:
                lower = chosen(tf.greater, lower, best[0], x.center)
                upper = chosen(tf.less, upper, best[1], x.center)
            best = lower, upper
        return best

    def parallel(self, x):
        corners = self._corners(x)
        chord = self._slope(corners[0], corners[len(self.knots) + 1])
        return chord, *biases(chord, corners)

    def part(self, entries, shapes, x):
        rule = self if self.at is None else self.at(entries, *shapes)
        return rule, [entries]

    def _corners(self, x):
        """Ends, knots in the interval, and both sides of a leap."""
        low, high = x.ends
        knots = [tf.cast(knot, low.dtype) for knot in self.knots]
        at = [low, *(tf.minimum(tf.maximum(low, k), high) for k in knots), high]
        corners = [(p, self.function(p)) for p in at]
        if self.jump is not None:
            knot, value = self.jump
            inside = (low <= knot) & (knot <= high)
            p, f = corners[1 + self.knots.index(knot)]
            corners.append((p, tf.where(inside, tf.cast(value, f.dtype), f)))
        return corners

    def _slope(self, corner, other):
        """Any slope keeps the lines sound: they are moved to one side."""
        (p, f), (q, g) = corner, other
        slope = tf.math.divide_no_nan(g - f, q - p)
        steepest = self.steepest(slope.dtype)
        flattest = -steepest if self.falls else 0.0
        return tf.clip_by_value(slope, flattest, steepest)

    def error(self, x):
        largest = max(map(abs, self.knots))
        size = self.steepest(x.magnitude.dtype) * (x.magnitude + largest)
        return (ROUNDING if self.exact else _SLOPED) * size


@register_rule(keras.activations.relu)
def relu(max_value=None, negative_slope=0.0, threshold=0.0):
    """`keras.activations.relu` with its arguments as float32 sees them."""
    slope, threshold = _single(negative_slope), _single(threshold)
    top = None if max_value is None else _single(max_value)

    def function(x):
        if slope == threshold == 0 and top is None:
            return tf.nn.relu(x)
        above = x if top is None else tf.minimum(x, tf.cast(top, x.dtype))
        below = tf.cast(slope, x.dtype) * (x - threshold)
        return tf.where(x > threshold, above, below)

    knots = {threshold} | ({top} if top is not None else set())
    jump = None
    if threshold > 0:
        jump = threshold, threshold if top is None else min(threshold, top)
    return PiecewiseLinear(
        function,
        tuple(sorted(knots)),
        jump,
        functools.partial(tf.cast, max(1.0, slope)),
        exact=slope == 0,
    )


@register_rule(keras.activations.relu6)
def _relu6():
    return relu(max_value=6.0)


@register_rule(keras.activations.leaky_relu)
def _leaky_relu():
    return relu(negative_slope=0.2)


@register_rule(keras.layers.ReLU)
def _relu_layer(layer, shape):
    return relu(layer.max_value, layer.negative_slope, layer.threshold)


@register_rule(keras.layers.LeakyReLU)
def _leaky_relu_layer(layer, shape):
    return relu(negative_slope=layer.negative_slope)


@register_rule(keras.layers.PReLU)
def _prelu_layer(layer, shape):
    return _prelu(layer.alpha)


def _prelu(alpha):
    """`x` above zero, `alpha x` below, whatever the sign of `alpha`.

    Args:
        alpha: Tensor or variable that broadcasts to the input.
    """

    def function(x):
        return tf.where(x > 0, x, weight_of(alpha, x.dtype) * x)

    def steepest(dtype):
        return tf.maximum(weight_of(alpha, dtype, absolute=True), 1.0)

    def at(entries, shape):
        every = tf.broadcast_to(tf.convert_to_tensor(alpha), shape)
        return _prelu(tf.gather(tf.reshape(every, [-1]), entries))

    return PiecewiseLinear(
        function,
        knots=(0.0,),
        steepest=steepest,
        falls=True,
        exact=False,
        at=at,
    )


def _single(number):
    return float(np.float32(number))
