"""Piecewise linear activations between two linear functions."""

import dataclasses
import functools
import itertools
import typing

import numpy as np
import tensorflow as tf

from keras_qsn.certification.affine import total
from keras_qsn.certification.bounds import ROUNDING
from keras_qsn.certification.bounds import Bounds

# Of what a sloped activation may round off in float32.
_SLOPED = 2.0**-21


@dataclasses.dataclass(frozen=True)
class PiecewiseLinear:
    """A non-decreasing activation of straight pieces.

    Attributes:
        function: The activation, for tensors of any float dtype.
        knots: Where pieces meet, increasing.
        jump: The knot where the activation leaps, and the value just above;
            `None` if it is continuous.
        slope: Largest slope of a piece.
        exact: Whether float32 computes it without rounding.
    """

    function: typing.Callable
    knots: tuple
    jump: tuple = None
    slope: float = 1.0
    exact: bool = True

    def bounds(self, x):
        low, high = (self.function(end) for end in x.ends)
        found = Bounds.between(low, high)
        if self.exact:
            return found
        return Bounds(found.center, found.radius + self.error(x))

    def undecided(self, x):
        """Where a knot lies inside the interval."""
        low, high = x.ends
        inside = [(low < knot) & (knot < high) for knot in self.knots]
        return functools.reduce(tf.logical_or, inside)

    def backward(self, rows, shapes, x):
        """As `Affine.backward`."""
        upward, downward = tf.nn.relu(rows), -tf.nn.relu(-rows)
        (below, base), (above, roof) = (
            [part[:, None] for part in line] for line in self.lines(x)
        )
        constant = total(upward * base + downward * roof)
        constant -= total(tf.abs(rows) * self.error(x)[:, None])
        return [upward * below + downward * above], constant

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
        return tf.clip_by_value(slope, 0.0, self.slope)

    def error(self, x):
        """What float32 may be off in the output, and float64 in the lines."""
        largest = max(map(abs, self.knots))
        size = self.slope * (x.magnitude + largest)
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
        max(1.0, slope),
        exact=slope == 0,
    )


def _single(number):
    return float(np.float32(number))
