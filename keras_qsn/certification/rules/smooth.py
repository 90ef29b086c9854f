"""Smooth activations between two linear functions.

`f(x) - k x` is least, and largest, over an interval at one of its ends, where
the slope of `f` leaps, or where it is `k`. So a line of any slope is moved
below or above `f` in closed form, and of all slopes the best is found by
bisection: the value that the line below takes at the interval's middle is a
concave function of its slope, whose derivative is the way from where the line
touches to the middle.
"""

import dataclasses
import typing

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.activation import Activation
from keras_qsn.certification.rules.activation import chosen
from keras_qsn.certification.rules.enclosures import ROUNDING
from keras_qsn.certification.rules.enclosures import proves
from keras_qsn.certification.rules.registry import register_rule

# What float32 may be off in the logistic function, in tanh and, below zero, in
# `exp(x) - 1`: 8 units of 2^-23. Of 70 million float32 numbers all over the
# range none was off by more than 2.7 of them, by Eigen's and by XLA's kernels.
_OFF = 2.0**-20

# Halvings of the range of slopes: the last part in ten thousand.
_HALVINGS = 14


@dataclasses.dataclass(frozen=True)
class Smooth(Activation):
    """The rule of a non-decreasing activation with a derivative.

    Attributes:
        function: The activation, for tensors of any float dtype.
        slope: Its largest slope.
        stationary: Function of slopes that returns a list of the points
            where the activation has them.
        straight: From here on it is a straight line.
        size: What float32 may be off, in units of `_OFF`, where it is none.
    """

    function: typing.Callable
    slope: float
    stationary: typing.Callable
    straight: float = np.inf
    size: float = 1.0

    def unstable(self, x):
        """Where the interval is more than a point, and not all straight."""
        low, _ = x.ends
        return super().unstable(x) & (low < self.straight)

    def relaxation(self, x):
        """The line below and the line above the activation of least area."""
        middle = x.center

        def halve(i, *ends):
            slopes = [(flat + steep) / 2 for flat, steep in pairs(ends)]
            (_, least), _ = self._touch(slopes[0], x)
            _, (_, largest) = self._touch(slopes[1], x)
            # A steeper line is better as long as it touches too far to the
            # left from below, to the right from above.
            steeper = least < middle, largest > middle
            halved = []
            for up, slope, (flat, steep) in zip(steeper, slopes, pairs(ends)):
                halved.append(tf.where(up, slope, flat))
                halved.append(tf.where(up, steep, slope))
            return i + 1, *halved

        def pairs(ends):
            return ends[:2], ends[2:]

        flat, steep = tf.zeros_like(middle), self.slope + tf.zeros_like(middle)
        _, *ends = tf.while_loop(
            lambda i, *_: i < _HALVINGS,
            halve,
            (0, flat, steep, flat, steep),
            parallel_iterations=1,
        )
        below, above = ((flat + steep) / 2 for flat, steep in pairs(ends))
        (lower, _), _ = self._touch(below, x)
        _, (upper, _) = self._touch(above, x)
        # Where all is straight the chord is it, which halving only nears.
        chord, base, top = self.parallel(x)
        return (
            chosen(tf.greater, (chord, base), (below, lower), middle),
            chosen(tf.less, (chord, top), (above, upper), middle),
        )

    def parallel(self, x):
        low, high = x.ends
        chord = tf.math.divide_no_nan(
            self.function(high) - self.function(low), high - low
        )
        chord = tf.clip_by_value(chord, 0.0, self.slope)
        (lower, _), (upper, _) = self._touch(chord, x)
        return chord, lower, upper

    def _touch(self, slope, x):
        """The biases of the lines of this slope that touch the activation from
        below and from above, and where they touch."""
        low, high = x.ends
        inside = [*self.stationary(slope)]
        if np.isfinite(self.straight):
            inside.append(tf.cast(self.straight, low.dtype))
        points = [low, high]
        points += [tf.minimum(tf.maximum(low, p), high) for p in inside]
        lower = upper = self.function(low) - slope * low
        least = largest = low
        for point in points[1:]:
            gap = self.function(point) - slope * point
            least = tf.where(gap < lower, point, least)
            largest = tf.where(gap > upper, point, largest)
            lower, upper = tf.minimum(gap, lower), tf.maximum(gap, upper)
        return (lower, least), (upper, largest)

    def error(self, x):
        low, _ = x.ends
        if not proves(low.dtype):
            return tf.zeros_like(low)
        curved = tf.cast(low < self.straight, low.dtype)
        lost = ROUNDING * self.slope * (x.magnitude + 1)
        return lost + _OFF * self.size * curved


@register_rule(keras.activations.sigmoid)
def _sigmoid():
    def stationary(slope):
        # `s (1 - s) = slope`, the smaller solution without cancellation.
        root = tf.sqrt(tf.nn.relu(1 - 4 * slope))
        value = 2 * slope / (1 + root)
        point = tf.math.log(value) - tf.math.log1p(-value)
        return point, -point

    return Smooth(tf.sigmoid, 0.25, stationary)


@register_rule(keras.activations.tanh)
def _tanh():
    def stationary(slope):
        # `1 - t^2 = slope`, and the inverse of tanh without cancellation.
        value = tf.sqrt(tf.nn.relu(1 - slope))
        point = tf.math.log1p(value) - tf.math.log(slope) / 2
        return point, -point

    return Smooth(tf.tanh, 1.0, stationary)


@register_rule(keras.activations.elu)
def _elu(alpha=1.0):
    """`x` above zero, `alpha (exp(x) - 1)` below."""
    alpha = float(np.float32(alpha))
    if not alpha >= 0:
        raise ValueError(f"its alpha, {alpha:g}, is below zero")

    def function(x):
        return tf.where(x > 0, x, tf.cast(alpha, x.dtype) * tf.math.expm1(x))

    def stationary(slope):
        share = tf.math.divide_no_nan(slope, tf.cast(alpha, slope.dtype))
        return [tf.minimum(tf.math.log(share), 0.0)]

    top = max(1.0, alpha)
    return Smooth(function, top, stationary, straight=0.0, size=top)


@register_rule(keras.layers.ELU)
def _elu_layer(layer, shape):
    return _elu(layer.alpha)
