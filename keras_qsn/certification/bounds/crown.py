"""Backward linear bounds: CROWN, and the fused last layer of intervals."""

import tensorflow as tf


def lower_bound(network, bounds, position, A, relaxed=True):
    """Lower bounds of linear functions of a node (Zhang et al., 2018).

    The functions are written in terms of earlier and earlier nodes. At a
    nonlinear node each becomes the linear function that is below it for
    every value in the node's interval. What is left at the end is bounded by
    intervals; at the input of independent pixels that is exact.

    Args:
        network: `Network`.
        bounds: List of `Bounds` of its nodes.
        position: The node that the functions are of.
        A: Coefficients, `(batch, functions, *shape of the node)`.
        relaxed: `True` for CROWN: on to the input. `False`: only through the
            affine nodes at the end, which fuses them with the functions.

    Returns:
        Lower bounds of shape `(batch, functions)`, and the coefficients of
        the input (`None` where the functions do not reach it).
    """
    reached = {position: A}
    bias = 0.0
    last = {}
    for here in range(position, -1, -1):
        if here not in reached:
            continue
        A, node = reached.pop(here), network.nodes[here]
        if here == 0 or not (relaxed or node.affine):
            last[here] = A
            continue
        inputs = [bounds[i] for i in node.inputs]
        shapes = [network.nodes[i].shape for i in node.inputs]
        parts, constant = node.rule.backward(A, shapes, *inputs)
        bias += constant
        for source, part in zip(node.inputs, parts):
            before = reached.get(source)
            reached[source] = part if before is None else before + part
    for here, A in last.items():
        bias += bounds[here].least(A)
    return bias, last.get(0)


def margins(network, bounds, labels, relaxed=True):
    """Lower bounds of `logit_y - logit_j` for each class `j`.

    Args:
        network: `Network`.
        bounds: List of `Bounds` of its nodes.
        labels: Integers of shape `(batch,)`, the classes `y`.
        relaxed: As above.

    Returns:
        A tensor of shape `(batch, classes)`, 0 at `j = y`.
    """
    dtype = bounds[0].center.dtype
    own = tf.one_hot(labels, network.num_classes, dtype=dtype)[:, None]
    A = own - tf.eye(network.num_classes, dtype=dtype)
    last = len(network.nodes) - 1
    return lower_bound(network, bounds, last, A, relaxed)[0]
