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

import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.activation import Activation
from keras_qsn.certification.rules.enclosures import ROUNDING
from keras_qsn.certification.rules.enclosures import Bounds
from keras_qsn.certification.rules.enclosures import proves

# What float32 may be off in the logistic function, in tanh and, below zero, in
# `exp(x) - 1`: 8 units of 2^-23. Of 70 million float32 numbers all over the
# range none was off by more than 2.7 of them, by Eigen's and by XLA's kernels.
_OFF = 2.0**-20

# Halvings of the range of slopes: the last part in ten thousand.
_HALVINGS = 14


@dataclasses.dataclass(frozen=True)
class Smooth(Activation):
    """A non-decreasing activation with a derivative.

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

    def bounds(self, x):
        low, high = (self.function(end) for end in x.ends)
        found = Bounds.between(low, high)
        if not proves(found.radius.dtype):
            return found
        return Bounds(found.center, found.radius + self.error(x))

    def undecided(self, x):
        """Where the interval is more than a point, and not all straight."""
        low, _ = x.ends
        return (x.radius > ROUNDING * x.magnitude) & (low < self.straight)

    def lines(self, x):
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
        (lowest, _), _ = self._touch(below, x)
        _, (highest, _) = self._touch(above, x)
        # Where all is straight the chord is it, which halving only nears.
        chord, base, roof = self.band(x)
        better = chord * middle + base > below * middle + lowest
        worse = chord * middle + roof < above * middle + highest
        return (
            (tf.where(better, chord, below), tf.where(better, base, lowest)),
            (tf.where(worse, chord, above), tf.where(worse, roof, highest)),
        )

    def band(self, x):
        """Two lines of the chord's slope that hold the activation between.

        Returns:
            Their slope, and the value of each at zero.
        """
        low, high = x.ends
        chord = tf.math.divide_no_nan(
            self.function(high) - self.function(low), high - low
        )
        chord = tf.clip_by_value(chord, 0.0, self.slope)
        (base, _), (roof, _) = self._touch(chord, x)
        return chord, base, roof

    def _touch(self, slope, x):
        """The values at zero of the lines of this slope that touch the
        activation from below and from above, and where they touch."""
        low, high = x.ends
        inside = [*self.stationary(slope)]
        if np.isfinite(self.straight):
            inside.append(tf.cast(self.straight, low.dtype))
        points = [low, high]
        points += [tf.minimum(tf.maximum(low, p), high) for p in inside]
        base = roof = self.function(low) - slope * low
        least = largest = low
        for point in points[1:]:
            gap = self.function(point) - slope * point
            least = tf.where(gap < base, point, least)
            largest = tf.where(gap > roof, point, largest)
            base, roof = tf.minimum(gap, base), tf.maximum(gap, roof)
        return (base, least), (roof, largest)

    def error(self, x):
        """What float32 may be off in the output, and float64 in the lines."""
        low, _ = x.ends
        bent = tf.cast(low < self.straight, low.dtype)
        lost = ROUNDING * self.slope * (x.magnitude + 1)
        return lost + _OFF * self.size * bent


def sigmoid():
    def stationary(slope):
        # `s (1 - s) = slope`, the smaller solution without cancellation.
        root = tf.sqrt(tf.nn.relu(1 - 4 * slope))
        value = 2 * slope / (1 + root)
        point = tf.math.log(value) - tf.math.log1p(-value)
        return point, -point

    return Smooth(tf.sigmoid, 0.25, stationary)


def tanh():
    def stationary(slope):
        # `1 - t^2 = slope`, and the inverse of tanh without cancellation.
        value = tf.sqrt(tf.nn.relu(1 - slope))
        point = tf.math.log1p(value) - tf.math.log(slope) / 2
        return point, -point

    return Smooth(tf.tanh, 1.0, stationary)


def elu(alpha=1.0):
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
