"""Boxes and zonotopes that hold what a float32 network computes.

The certificate is about the deployed network: every node's box holds the
float32 number that the model computes there, for every image of the ball.

Let `y = b + sum_i w_i x_i` have `n` additions, in any order, with or without
fused multiply-adds. Each addition is off by at most `u = 2^-24` of its result,
and that is the sum of some of the terms: in size at most `M = max(P, N)`, with
`P` what is added above zero and `N` what is added below, so that

    M = (|W| |x| + |b| + |y|) / 2.

Products are off by `u` of `|W| |x|` in all, and what was lost before changes
the results of additions by less than `2 gamma_n M`, `gamma_n = n u / (1 - n u)`
(Higham, 2002, section 3.1). In all float32 loses at most

    u (1 + 2 gamma_n) (n M + |W| |x|).

Terms that are exactly zero (black pixels, neurons that are off) count for no
addition. Of inputs in `c +- r` `M` is at most that of `c`, and `|W| r` more.
Underflow adds less than `2^-100` per term. The bounds themselves are computed
in float64, whose rounding unit is `2^-29` of float32's: a part in a thousand on
top pays for it.

Not covered: products in less than float32 (TF32, bfloat16) and algorithms
that are no sums of products (Winograd, FFT).

Bounds in float32 are estimates, for training: nothing is added to them.
"""

import typing

import numpy as np
import tensorflow as tf

_UNIT = 2.0**-24
_HEADROOM = 1 + 2.0**-10
# What such a sum may lose for each term that is too small for float32, and
# what an input may.
UNDERFLOW = 2.0**-100
SUBNORMAL = 2.0**-120

# Of what rounding in float64 may take from a sum over a whole layer.
ROUNDING = 2.0**-32

_FEW_ULPS = 4 * float(np.finfo("float64").eps)

# No float32 sum overflows where every node stays below.
LARGEST = 2.0**100


class Bounds(typing.NamedTuple):
    """Values in `[center - radius, center + radius]`: a box.

    Attributes:
        center: Tensor, in a proof of float64.
        radius: Tensor of the same shape, nowhere below zero.

    Example:

    >>> x = Bounds.between(np.array([-1.0, 2.0]), np.array([1.0, 4.0]))
    >>> x.center.tolist(), np.round(x.ends[1], 6).tolist()
    ([0.0, 3.0], [1.0, 4.0])
    """

    center: tf.Tensor
    radius: tf.Tensor

    @classmethod
    def between(cls, lower, upper):
        """The box with these ends, rounded outward."""
        box = cls((lower + upper) / 2, (upper - lower) / 2)
        return box.widened(tf.maximum(tf.abs(lower), tf.abs(upper)))

    @property
    def ends(self):
        """The smallest and the largest value, rounded outward."""
        center, radius = self.widened(self.magnitude)
        return center - radius, center + radius

    @property
    def magnitude(self):
        """The largest absolute value."""
        return tf.abs(self.center) + self.radius

    def widened(self, size):
        """By what a few float64 operations on numbers of this size lose."""
        if not proves(self.radius.dtype):
            return self
        return Bounds(self.center, self.radius + _FEW_ULPS * size)

    def rounded(self, operations=1):
        """What float32 makes of these values by so many operations.

        Args:
            operations: How many there are, none with a result larger in size
                than the largest of these values.
        """
        if not proves(self.radius.dtype):
            return self
        lost = _UNIT * _HEADROOM * self.magnitude + SUBNORMAL
        return Bounds(self.center, self.radius + operations * lost)

    def intersect(self, other):
        """Values in both boxes, which must meet."""
        (lower, upper), (other_lower, other_upper) = self.ends, other.ends
        return Bounds.between(
            tf.maximum(lower, other_lower), tf.minimum(upper, other_upper)
        )

    def least(self, A):
        """Least value of linear functions, `A` of shape `(batch, functions,
        ...)`."""
        center, radius = self.center[:, None], self.radius[:, None]
        radius += ROUNDING * self.magnitude[:, None]
        return total(A * center - tf.abs(A) * radius)


class Zonotope(typing.NamedTuple):
    """`center`, `(1, *shape)`, `generators` that unknowns in `[-1, 1]` weigh,
    `(unknowns, *shape)`, and an error `radius`."""

    center: tf.Tensor
    generators: tf.Tensor
    radius: tf.Tensor

    @property
    def bounds(self):
        reach = tf.reduce_sum(tf.abs(self.generators), 0, keepdims=True)
        return Bounds(self.center, self.radius + reach)


def total(A):
    """Sum of each function's coefficients, shape `(batch, functions)`."""
    return tf.reduce_sum(A, list(range(2, len(A.shape))))


def proves(dtype):
    """Whether bounds of this dtype pay for rounding: float64 does."""
    return tf.as_dtype(dtype) == tf.float64


def rounding(additions):
    """What a float32 sum of products loses, as shares.

    Args:
        additions: Number of additions, or a tensor of them.

    Returns:
        The shares of `|W| |c| + |b|`, of `|W| r` and of `|W c + b|`, for
        inputs in `c +- r`.
    """
    lost = additions * _UNIT
    rate = _UNIT * (1 + 2 * lost / (1 - lost)) * _HEADROOM
    half = rate * additions / 2
    return half + rate, 2 * half + rate, half
