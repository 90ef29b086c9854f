"""What all activations have in common: two lines that hold them between."""

import functools

import keras
import tensorflow as tf

from keras_qsn.certification.rules.base import Rule
from keras_qsn.certification.rules.enclosures import Bounds
from keras_qsn.certification.rules.enclosures import Zonotope
from keras_qsn.certification.rules.enclosures import total
from keras_qsn.certification.rules.registry import activation_of
from keras_qsn.certification.rules.registry import register_rule


class Activation(Rule):
    """The rule of a function of each number by itself.

    Of `x`, the `Bounds` of what it reads, a subclass tells

    - `error(x)`: what float32 may be off in the output, and float64 in the
      lines below; and, for a function that decreases nowhere,
    - `function(values)`: the function, for tensors of any float dtype;
    - `parallel(x)`: a slope, and the biases of a line of that slope below and
      of one above the function on `x`;
    - `relaxation(x)`, if it can: slope and bias of a better line below, and
      of one above;
    - `unstable(x)`, if it is more often a straight line on `x` than where `x`
      is a point.

    Args:
        layer: The Keras layer, kept as `layer`.
        *shapes: Shapes of its inputs without the batch, kept as `shapes`.

    Example:

    >>> class Step(Activation):
    ...     def function(self, values):
    ...         return tf.cast(values >= 0.5, values.dtype)
    ...     def error(self, x):
    ...         return tf.zeros_like(x.radius)
    ...     def parallel(self, x):
    ...         low, high = (self.function(end) for end in x.ends)
    ...         return tf.zeros_like(low), low, high
    >>> x = Bounds.between(np.array([0.0, 0.6]), np.array([1.0, 0.7]))
    >>> np.array(Step(None).bounds(x).center).tolist()
    [0.5, 1.0]
    """

    # Whether float32 computes it without rounding.
    exact = False

    def bounds(self, x):
        output = Bounds.between(*self.values(x))
        if self.exact:
            return output
        return Bounds(output.center, output.radius + self.error(x))

    def values(self, x):
        """The smallest and the largest value, of a function as above."""
        return [self.function(end) for end in x.ends]

    def relaxation(self, x):
        slope, lower, upper = self.parallel(x)
        return (slope, lower), (slope, upper)

    def backward(self, A, shapes, x):
        positive, negative = tf.nn.relu(A), -tf.nn.relu(-A)
        (below, lower), (above, upper) = (
            [part[:, None] for part in line] for line in self.relaxation(x)
        )
        bias = total(positive * lower + negative * upper)
        bias -= total(tf.abs(A) * self.error(x)[:, None])
        return [positive * below + negative * above], bias

    def forward(self, sets, inputs):
        (x,), (bounds,) = sets, inputs
        slope, lower, upper = self.parallel(bounds)
        return Zonotope(
            slope * x.center + (lower + upper) / 2,
            slope * x.generators,
            tf.abs(slope) * x.radius + (upper - lower) / 2 + self.error(bounds),
        )

    def part(self, entries, shapes, x):
        return self, [entries]


def biases(slope, corners):
    """Of the lines of a slope below and above all corners `(x, f(x))`."""
    gaps = [f - slope * x for x, f in corners]
    return (
        functools.reduce(tf.minimum, gaps),
        functools.reduce(tf.maximum, gaps),
    )


def chosen(compare, line, other, x):
    """`line` where its value at `x` compares so to that of `other`."""
    first = compare(*(slope * x + bias for slope, bias in (line, other)))
    return tuple(tf.where(first, *parts) for parts in zip(line, other))


@register_rule(keras.layers.Activation)
def _activation(layer, shape):
    return activation_of(layer)
