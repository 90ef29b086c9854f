"""The contract of rules."""

import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.enclosures import ROUNDING
from keras_qsn.certification.rules.enclosures import Bounds
from keras_qsn.certification.rules.enclosures import Zonotope


class Rule:
    """What one step of a network computes, and bounds of it.

    A certificate follows a box of images through the network, step by step. A
    rule answers for one step, a function of one or more tensors, and serves
    every method of `certify`. It must have `bounds`; `backward` (for CROWN),
    `forward` and `part` (for branching) follow from it, sound if loose.

    What each must hold is what **float32** computes of any inputs that lie in
    `inputs`, `Bounds` with the batch as first axis: eager or compiled, adding
    in any order. In float64, which proofs are in, the rule pays for that
    rounding (`Bounds.rounded`) and for its own (`Bounds.between`); in float32
    bounds are estimates for training. It is made of TensorFlow operations
    with a gradient.

    Of `Affine` and `Activation`, the rules of products and of functions of
    one number, less is asked. `register_rule` says which layer has which.

    Args:
        layer: The Keras layer, kept as `layer`.
        *shapes: Shapes of its inputs without the batch, kept as `shapes`.

    Example:

    >>> class Square(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         return inputs * inputs
    >>> @register_rule(Square)
    ... class SquareRule(Rule):
    ...     def bounds(self, x):
    ...         low, high = x.ends
    ...         least = tf.nn.relu(tf.maximum(low, -high)) ** 2
    ...         largest = tf.maximum(-low, high) ** 2
    ...         return Bounds.between(least, largest).rounded()
    >>> model = keras.Sequential([keras.Input((2,)), Square()])
    >>> certify(model, [[0.1, 0.9]], [1], eps=0.3).margin.round(3)
    array([0.2])

    Limitations:
        Nothing can check that a rule is sound; `certify` only refuses logits
        of the images themselves outside their bounds.
    """

    # Of the output, without the batch, where it is not the layer's.
    shape = None
    # Whether an output depends on more than one number.
    mixes = True

    def __init__(self, layer, *shapes):
        self.layer, self.shapes = layer, shapes

    def bounds(self, *inputs):
        """`Bounds` of the output for inputs in these."""
        raise NotImplementedError(
            f"{type(self).__name__} must have `bounds(*inputs)`, which returns "
            "`Bounds` of the output for inputs in these."
        )

    def backward(self, A, shapes, *inputs):
        """Linear functions of the output as functions of the inputs.

        By default constants: the output's least value.

        Args:
            A: Coefficients, shape `(batch, functions, *output)`.
            shapes: Shape of each input, without the batch.
            *inputs: `Bounds` of each input.

        Returns:
            The coefficients of each input, and a bias of shape `(batch,
            functions)` such that the function is never below.
        """
        count = tf.unstack(tf.shape(A)[:2])
        nothing = [tf.zeros([*count, *shape], A.dtype) for shape in shapes]
        return nothing, self.bounds(*inputs).least(A)

    def forward(self, sets, inputs):
        """A `Zonotope` that holds the output, of those of the inputs and their
        `Bounds`. By default it forgets what the inputs depend on."""
        center, radius = self.bounds(*inputs)
        unknowns = tf.shape(sets[0].generators)[0]
        none = tf.repeat(tf.zeros_like(center), unknowns, 0)
        return Zonotope(center, none, radius)

    def unstable(self, x):
        """Where sharper bounds of an input may make those of the output
        sharper: where it is more than a point."""
        return x.radius > ROUNDING * x.magnitude

    def part(self, entries, shapes, *inputs):
        """The rule of some entries of the flattened output, on one box.

        Returns:
            A rule from one vector to these entries, and the entries of each
            flattened input that the vector is made of, one after the other.
            By default all.
        """
        reads = [np.arange(np.prod(shape, dtype=int)) for shape in shapes]
        return _Part(self, entries, shapes), reads


class _Part(Rule):
    """Some outputs of a rule, of all its inputs in one vector."""

    def __init__(self, whole, entries, shapes):
        self._whole, self._entries, self._shapes = whole, entries, shapes

    def bounds(self, x):
        values = self._whole.bounds(*self._inputs(x))
        flat = (tf.reshape(part, [len(part), -1]) for part in values)
        return Bounds(*(tf.gather(p, self._entries, axis=1) for p in flat))

    def backward(self, A, shapes, x):
        inputs = self._inputs(x)
        output = self._whole.bounds(*inputs).center.shape[1:]
        full = np.zeros((*A.shape[:2], np.prod(output, dtype=int)))
        full[..., self._entries] = A
        full = tf.constant(full.reshape(*A.shape[:2], *output))
        parts, bias = self._whole.backward(full, self._shapes, *inputs)
        flat = [tf.reshape(part, [*A.shape[:2], -1]) for part in parts]
        return [tf.concat(flat, 2)], bias

    def _inputs(self, x):
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        centers, radii = (tf.split(part, sizes, 1) for part in x)
        return [
            Bounds(*(tf.reshape(part, [-1, *shape]) for part in pair))
            for *pair, shape in zip(centers, radii, self._shapes)
        ]
