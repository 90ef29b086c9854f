"""Forward linear bounds of the hidden layers, for a box with few unknowns.

Each neuron is a linear function of the pixels that can change, plus an error
of its own:

    c + sum_k g_k e_k + r e,    e_k and e in [-1, 1].

With a hard quantizer some 50 pixels can change, so a layer costs 50 products
with `W`; backward bounds cost two for each neuron.
"""

import typing

import tensorflow as tf

from keras_qsn.certification.rules.activation import Activation
from keras_qsn.certification.rules.enclosures import Bounds


class Zonotope(typing.NamedTuple):
    """`center`, `(1, *shape)`, `generators`, `(unknowns, *shape)`, `radius`."""

    center: tf.Tensor
    generators: tf.Tensor
    radius: tf.Tensor

    @property
    def bounds(self):
        reach = tf.reduce_sum(tf.abs(self.generators), 0, keepdims=True)
        return Bounds(self.center, self.radius + reach)


def propagate(graph, first, unknown):
    """Bounds of every node, by linear functions of the unknown pixels.

    Args:
        graph: `Graph`.
        first: `Bounds` of its first node, of one box.
        unknown: Positions of the pixels that can change, an integer vector.

    Returns:
        A list of `Bounds`, no wider than those of intervals.
    """
    shape = graph.nodes[0].shape
    flat = tf.reshape(first.radius, [-1])
    places = tf.one_hot(unknown, tf.size(flat), dtype=flat.dtype)
    radius = flat * (1 - tf.reduce_sum(places, 0))
    found = [
        Zonotope(
            first.center,
            tf.reshape(places * flat, [-1, *shape]),
            tf.reshape(radius, [1, *shape]),
        )
    ]
    bounds = [first]
    for node in graph.nodes[1:]:
        inputs = [found[i] for i in node.inputs]
        sources = [bounds[i] for i in node.inputs]
        interval = node.rule.bounds(*sources)
        if node.affine:
            found.append(_affine(node.rule, inputs, sources))
        elif isinstance(node.rule, Activation):
            found.append(_bent(node.rule, *inputs, *sources))
        else:
            # Forgets which pixels its input depends on.
            nothing = tf.zeros_like(interval.center)
            none = tf.repeat(nothing, tf.size(unknown), 0)
            found.append(Zonotope(interval.center, none, interval.radius))
        bounds.append(found[-1].bounds.intersect(interval))
    return bounds


def _affine(rule, inputs, sources):
    center, generators, radius = (
        rule.product(*parts, absolute=absolute)
        for parts, absolute in zip(zip(*inputs), (False, False, True))
    )
    if rule.bias is not None:
        center += rule.bias(center.dtype)[0]
    return Zonotope(center, generators, radius + rule.error(*sources))


def _bent(rule, x, bounds):
    slope, base, roof = rule.band(bounds)
    return Zonotope(
        slope * x.center + (base + roof) / 2,
        slope * x.generators,
        tf.abs(slope) * x.radius + (roof - base) / 2 + rule.error(bounds),
    )
