"""Affine rules: products with `W`, with `|W|` and with the transpose of `W`.

No dense matrix is ever made of a convolution: the product is the layer's own
operation, the transpose its gradient.
"""

import dataclasses
import typing

import tensorflow as tf

from keras_qsn.certification.rules.base import Rule
from keras_qsn.certification.rules.enclosures import SUBNORMAL
from keras_qsn.certification.rules.enclosures import UNDERFLOW
from keras_qsn.certification.rules.enclosures import Bounds
from keras_qsn.certification.rules.enclosures import Zonotope
from keras_qsn.certification.rules.enclosures import proves
from keras_qsn.certification.rules.enclosures import rounding
from keras_qsn.certification.rules.enclosures import total


@dataclasses.dataclass(frozen=True)
class Affine(Rule):
    """The rule of `y = W x + b`, or of a sum of such, one for each input.

    Attributes:
        product: Function of `*inputs` and `absolute`: the product with `W`,
            or with `|W|`, without the bias, in the dtype of the inputs.
        terms: How many products the layer adds up for one output in float32;
            `0` if it only moves numbers.
        bias: Function of a dtype that returns `b` and the size of all that
            `b` was computed from; `None` for no bias.
        entries: Function of positions in the flattened input, and in the
            flattened output, that returns `W` between them, `(outputs,
            inputs)`; `None` for what only products tell.
        mixes: Whether an output reads more than one number.
        nonzero: Function of what is 1 where an input may be other than zero
            and 0 elsewhere; returns at least how many of `terms` are other
            than zero, in a shape that broadcasts. `None`: all may be.
        shape: Shape of the output, without the batch, where it is not that
            of its layer.
    """

    product: typing.Callable
    terms: int = 0
    bias: typing.Callable = None
    entries: typing.Callable = None
    mixes: bool = True
    nonzero: typing.Callable = None
    shape: tuple = None

    def bounds(self, *inputs):
        center = self._product([x.center for x in inputs])
        radii = [x.radius for x in inputs]
        if not (self.terms and proves(center.dtype)):
            return Bounds(center, self.product(*radii, absolute=True))
        lost, more = self._lost(inputs, center)
        radii = [radius + part for radius, part in zip(radii, lost)]
        return Bounds(center, self.product(*radii, absolute=True) + more)

    def backward(self, A, shapes, *inputs):
        coefficients = transpose(self.product, A, shapes)
        bias = tf.zeros(tf.shape(A)[:2], A.dtype)
        if self.bias is not None:
            bias += total(A * self.bias(A.dtype)[0])
        if self.terms:
            bias -= total(tf.abs(A) * self.error(*inputs)[:, None])
        return coefficients, bias

    def forward(self, sets, inputs):
        centers, generators, radii = zip(*sets)
        return Zonotope(
            self._product(centers),
            self.product(*generators),
            self.product(*radii, absolute=True) + self.error(*inputs),
        )

    def error(self, *inputs):
        """What float32 may be off in the output, within these boxes."""
        center = self._product([x.center for x in inputs])
        lost, more = self._lost(inputs, center)
        return self.product(*lost, absolute=True) + more

    def _product(self, inputs):
        """With the bias."""
        center = self.product(*inputs)
        return center + self.bias(center.dtype)[0] if self.bias else center

    def _lost(self, inputs, center):
        """What float32 loses: by each input, and besides."""
        additions = self.terms
        if self.nonzero is not None:
            additions = self.nonzero(
                *(tf.cast(x.magnitude > 0, center.dtype) for x in inputs)
            )
        of_size, of_radius, of_result = rounding(additions + 1)
        lost = [
            of_size * tf.abs(x.center) + of_radius * x.radius + SUBNORMAL
            for x in inputs
        ]
        more = of_result * tf.abs(center) + self.terms * UNDERFLOW
        if self.bias is not None:
            more += of_size * self.bias(center.dtype)[1]
        return lost, more


def transpose(product, A, shapes):
    """Coefficients of a linear operation's output, as those of its inputs.

    By its gradient, which needs no values of the inputs: they are not
    computed in a compiled function.
    """
    flat = tf.reshape(A, [-1, *A.shape[2:]])
    zeros = [
        tf.zeros([tf.shape(flat)[0], *shape], flat.dtype) for shape in shapes
    ]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(zeros)
        values = product(*zeros)
    parts = tape.gradient(values, zeros, output_gradients=flat)
    count = tf.unstack(tf.shape(A)[:2])
    return [
        tf.reshape(part, [*count, *shape]) for part, shape in zip(parts, shapes)
    ]


def bias_of(variable):
    """`Affine.bias` of a layer's weight, or of none."""
    if variable is None:
        return None

    def bias(dtype):
        value = weight_of(variable, dtype)
        return value, tf.abs(value)

    return bias


def weight_of(variable, dtype, absolute=False):
    weight = tf.cast(tf.convert_to_tensor(variable), dtype)
    return tf.abs(weight) if absolute else weight


def most_of_an_image(counted):
    """Sums over the last axis, and the largest of an image."""
    axes = list(range(1, len(counted.shape)))
    return tf.reduce_max(
        tf.reduce_sum(counted, -1, keepdims=True), axes, keepdims=True
    )
