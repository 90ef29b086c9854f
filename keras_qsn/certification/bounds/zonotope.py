"""Forward linear bounds of the hidden layers, for a box with few unknowns.

Each neuron is a linear function of the pixels that can change, plus an error
of its own:

    c + sum_k g_k e_k + r e,    e_k and e in [-1, 1].

With a hard quantizer some 50 pixels can change, so a layer costs 50 products
with `W`; backward bounds cost two for each neuron.
"""

import tensorflow as tf

from keras_qsn.certification.rules.enclosures import Zonotope


def propagate(network, first, unknown):
    """Bounds of every node, by linear functions of the unknown pixels.

    Args:
        network: `Network`.
        first: `Bounds` of its first node, of one box.
        unknown: Positions of the pixels that can change, an integer vector.

    Returns:
        A list of `Bounds`, no wider than those of intervals.
    """
    shape = network.nodes[0].shape
    flat = tf.reshape(first.radius, [-1])
    places = tf.one_hot(unknown, tf.size(flat), dtype=flat.dtype)
    radius = flat * (1 - tf.reduce_sum(places, 0))
    sets = [
        Zonotope(
            first.center,
            tf.reshape(places * flat, [-1, *shape]),
            tf.reshape(radius, [1, *shape]),
        )
    ]
    bounds = [first]
    for node in network.nodes[1:]:
        inputs = [bounds[i] for i in node.inputs]
        sets.append(node.rule.forward([sets[i] for i in node.inputs], inputs))
        bounds.append(sets[-1].bounds.intersect(node.rule.bounds(*inputs)))
    return bounds
