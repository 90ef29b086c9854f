"""Backward linear bounds: CROWN, and the fused last layer of intervals."""

import tensorflow as tf

from keras_qsn.certification.rules.affine import total
from keras_qsn.certification.rules.enclosures import ROUNDING


def lower_bound(graph, bounds, position, rows, relaxed=True):
    """Lower bounds of linear functions of a node (Zhang et al., 2018).

    The functions are written in terms of earlier and earlier nodes. At a
    nonlinear node each becomes the linear function that is below it for
    every value in the node's interval. What is left at the end is bounded by
    intervals; at the input of independent pixels that is exact.

    Args:
        graph: `Graph`.
        bounds: List of `Bounds` of its nodes.
        position: The node that the functions are of.
        rows: Coefficients, `(batch, functions, *shape of the node)`.
        relaxed: `True` for CROWN: on to the input. `False`: only through the
            affine nodes at the end, which fuses them with the functions.

    Returns:
        Lower bounds of shape `(batch, functions)`, and the coefficients of
        the input (`None` where the functions do not reach it).
    """
    open_rows = {position: rows}
    constant = 0.0
    rest = {}
    for here in range(position, -1, -1):
        if here not in open_rows:
            continue
        rows, node = open_rows.pop(here), graph.nodes[here]
        if here == 0 or not (relaxed or node.affine):
            rest[here] = rows
            continue
        sources = [bounds[i] for i in node.inputs]
        shapes = [graph.nodes[i].shape for i in node.inputs]
        found, least = node.rule.backward(rows, shapes, *sources)
        constant += least
        for source, part in zip(node.inputs, found):
            known = open_rows.get(source)
            open_rows[source] = part if known is None else known + part
    for here, rows in rest.items():
        constant += _least(bounds[here], rows)
    return constant, rest.get(0)


def _least(bounds, rows):
    """Least value of linear functions of independent numbers."""
    center, radius = bounds.center[:, None], bounds.radius[:, None]
    radius += ROUNDING * bounds.magnitude[:, None]
    return total(rows * center - tf.abs(rows) * radius)


def margin_rows(labels, num_classes, dtype):
    """`logit_y - logit_j` for each class `j`, `(batch, classes, classes)`."""
    own = tf.one_hot(labels, num_classes, dtype=dtype)[:, None]
    return own - tf.eye(num_classes, dtype=dtype)


def margins(graph, bounds, labels, relaxed=True):
    """Lower bounds of `logit_y - logit_j` for each class `j`.

    Args:
        graph: `Graph`.
        bounds: List of `Bounds` of its nodes.
        labels: Integers of shape `(batch,)`, the classes `y`.
        relaxed: `True` for CROWN, `False` for intervals with a fused last
            layer.

    Returns:
        A tensor of shape `(batch, classes)`, 0 at `j = y`.
    """
    dtype = bounds[0].center.dtype
    rows = margin_rows(labels, graph.num_classes, dtype)
    last = len(graph.nodes) - 1
    return lower_bound(graph, bounds, last, rows, relaxed)[0]
