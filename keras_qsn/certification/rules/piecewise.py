"""Piecewise linear activations between two linear functions."""

import dataclasses
import functools
import itertools
import typing

import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.activation import Activation
from keras_qsn.certification.rules.affine import weight_of
from keras_qsn.certification.rules.enclosures import ROUNDING
from keras_qsn.certification.rules.enclosures import Bounds

# Of what a sloped activation may round off in float32.
_SLOPED = 2.0**-21


@dataclasses.dataclass(frozen=True)
class PiecewiseLinear(Activation):
    """An activation of straight pieces.

    Attributes:
        function: The activation, for tensors of any float dtype.
        knots: Where pieces meet, increasing.
        jump: The knot where the activation leaps, and the value just above;
            `None` if it is continuous.
        steepest: Function of a dtype that returns the largest slope of a
            piece, its sign left out.
        falls: Whether the slope of a piece may be below zero.
        exact: Whether float32 computes it without rounding.
        part: Function of entries of a flattened node and of its shape that
            returns the activation of these; `None` if all have the same.
    """

    function: typing.Callable
    knots: tuple
    jump: tuple = None
    steepest: typing.Callable = functools.partial(tf.cast, 1.0)
    falls: bool = False
    exact: bool = True
    part: typing.Callable = None

    def at(self, entries, shape):
        return self if self.part is None else self.part(entries, shape)

    def bounds(self, x):
        values = [self.function(end) for end in x.ends]
        if self.falls:
            corners = [value for _, value in self._corners(x)]
            values = [
                functools.reduce(choose, corners)
                for choose in (tf.minimum, tf.maximum)
            ]
        found = Bounds.between(*values)
        if self.exact:
            return found
        return Bounds(found.center, found.radius + self.error(x))

    def undecided(self, x):
        """Where a knot lies inside the interval."""
        low, high = x.ends
        inside = [(low < knot) & (knot < high) for knot in self.knots]
        return functools.reduce(tf.logical_or, inside)

    def lines(self, x):
        """The line below and the line above the activation of least area.

        Both are edges of the hull of the activation's corners: among the
        lines through two corners, moved until they lie on one side of all,
        those nearest at the interval's middle.

        Returns:
            Slope and value at zero of the line below; of the line above.
        """
        corners = self._corners(x)
        slopes = [
            self._slope(*pair) for pair in itertools.combinations(corners, 2)
        ]
        middle = x.center
        best = None
        for slope in slopes:
            gaps = [f - slope * p for p, f in corners]
            base = functools.reduce(tf.minimum, gaps)
            roof = functools.reduce(tf.maximum, gaps)
            if best is None:
                best = (slope, base), (slope, roof)
                continue
            (below, lowest), (above, highest) = best
            higher = slope * middle + base > below * middle + lowest
            lower = slope * middle + roof < above * middle + highest
            best = (
                (
                    tf.where(higher, slope, below),
                    tf.where(higher, base, lowest),
                ),
                (
                    tf.where(lower, slope, above),
                    tf.where(lower, roof, highest),
                ),
            )
        return best

    def band(self, x):
        """Two lines of the chord's slope that hold the activation between.

        Returns:
            Their slope, and the value of each at zero.
        """
        corners = self._corners(x)
        slope = self._slope(corners[0], corners[len(self.knots) + 1])
        gaps = [f - slope * p for p, f in corners]
        base = functools.reduce(tf.minimum, gaps)
        return slope, base, functools.reduce(tf.maximum, gaps)

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
        """What float32 may be off in the output, and float64 in the lines."""
        largest = max(map(abs, self.knots))
        size = self.steepest(x.magnitude.dtype) * (x.magnitude + largest)
        return (ROUNDING if self.exact else _SLOPED) * size


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


def prelu(alpha):
    """`x` above zero, `alpha x` below, whatever the sign of `alpha`.

    Args:
        alpha: Tensor or variable that broadcasts to the input.
    """

    def function(x):
        return tf.where(x > 0, x, weight_of(alpha, x.dtype) * x)

    def steepest(dtype):
        return tf.maximum(weight_of(alpha, dtype, absolute=True), 1.0)

    def part(entries, shape):
        every = tf.broadcast_to(tf.convert_to_tensor(alpha), shape)
        return prelu(tf.gather(tf.reshape(every, [-1]), entries))

    return PiecewiseLinear(
        function,
        knots=(0.0,),
        steepest=steepest,
        falls=True,
        exact=False,
        part=part,
    )


def _single(number):
    return float(np.float32(number))
