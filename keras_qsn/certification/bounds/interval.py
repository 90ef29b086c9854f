"""Interval bounds: what every node makes of a box of images.

All of it is TensorFlow and differentiable, for proofs in float64 and for
training in float32 alike.
"""

import numpy as np
import tensorflow as tf

from keras_qsn.certification.rules.enclosures import Bounds

# What a soft quantizer in float32 may be off for each threshold, in levels.
_SIGMOID = 2.0**-18


def levels(network, low, high):
    """What the network behind the quantizer sees of a box's ends.

    The quantizer itself, as deployed, maps them: it does not decrease. What
    rescales the images before it is rounded outward first, by as much as
    float32 may be off: no way of computing it leaves the box.

    Args:
        network: `Network`.
        low: Float32 images, the smallest values; `high` the largest.

    Returns:
        The smallest and the largest levels, float32; what was given, where
        there is no quantizer.
    """
    if not network.before:
        return network.quantized(low), network.quantized(high)
    box = Bounds.between(*(tf.cast(end, tf.float64) for end in (low, high)))
    for rule in network.rescaling:
        box = rule.bounds(box)
    low, high = (
        tf.math.nextafter(
            tf.cast(end, tf.float32), tf.constant(limit, tf.float32)
        )
        for end, limit in zip(box.ends, (-np.inf, np.inf))
    )
    return network.quantizer(low), network.quantizer(high)


def level_bounds(network, low, high):
    """`Bounds` of the network's first node between what it was given."""
    box = Bounds.between(low, high)
    return Bounds(box.center, box.radius + _error(network.quantizer))


def _error(layer):
    """What float32 may be off in a quantizer's output.

    Nothing for two hard levels at 0 and 1; else the rounding of the scaled
    sum, and for a soft one that of each sigmoid and its argument.
    """
    if layer is None:
        return 0.0
    low, high = layer.value_range
    if layer.hard:
        exact = layer.num_levels == 2 and (low, high) == (0.0, 1.0)
        return 0.0 if exact else 2.0**-21 * max(abs(low), abs(high))
    steps = layer.num_thresholds * (high - low) / (layer.num_levels - 1)
    return _SIGMOID * (steps + max(abs(low), abs(high)))


def propagate(network, first, within=None):
    """Interval bounds of every node (Gowal et al., 2018).

    Args:
        network: `Network`.
        first: `Bounds` of its first node.
        within: Optional dictionary from positions to `Bounds` that are known
            to hold.

    Returns:
        A list of `Bounds`, one for each node.
    """
    bounds = [first]
    for position, node in enumerate(network.nodes[1:], 1):
        output = node.rule.bounds(*(bounds[i] for i in node.inputs))
        if not isinstance(output, Bounds):
            raise TypeError(
                f"`{type(node.rule).__name__}.bounds` must return `Bounds`, "
                f"such as `Bounds.between(low, high)`. Received: {output!r}"
            )
        if within and position in within:
            output = output.intersect(within[position])
        bounds.append(output)
    return bounds
