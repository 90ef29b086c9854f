"""Reduce a network to what can change on one box.

Behind a hard quantizer some 50 pixels of an image can change. On such a box
most neurons are constants or lie on one piece of their activation. Node after
node is written as linear functions of the variables of `Reduced`:

    constant + coefficients . variables, off by at most radius.
"""

import typing

import numpy as np
import tensorflow as tf

from keras_qsn.certification.bounds import interval
from keras_qsn.certification.branching.reduced_network import Neurons
from keras_qsn.certification.branching.reduced_network import Reduced
from keras_qsn.certification.rules.activation import Activation
from keras_qsn.certification.rules.affine import Affine
from keras_qsn.certification.rules.enclosures import LARGEST
from keras_qsn.certification.rules.enclosures import ROUNDING
from keras_qsn.certification.rules.enclosures import Bounds

# Entries of a matrix above which there is nothing to gain.
_LARGE = 2**22

# Inputs whose effect on a layer is computed at a time.
_INPUTS = 128


class Linear(typing.NamedTuple):
    """A node as linear functions of the variables.

    Attributes:
        constant: Vector, one number for each entry of the flattened node.
        radius: Vector. What each entry may be off: float32's rounding.
        size: Vector. All that is added up for an entry is smaller in sum.
        live: Positions of the entries that have coefficients, increasing.
        coefficients: Matrix, `(live, variables)`, of the variables there were.
        fresh: Positions of entries that are variables themselves.
        start: The first of these variables.
    """

    constant: np.ndarray
    radius: np.ndarray
    size: np.ndarray
    live: np.ndarray
    coefficients: np.ndarray
    fresh: np.ndarray = np.empty(0, int)
    start: int = 0

    def at(self, entries, count):
        """Coefficients of some entries, `(entries, count)`; 0 where none."""
        found = np.zeros((len(entries), count))
        _, own, place = np.intersect1d(
            self.live, entries, True, return_indices=True
        )
        found[place, : self.coefficients.shape[1]] = self.coefficients[own]
        _, own, place = np.intersect1d(
            self.fresh, entries, True, return_indices=True
        )
        found[place, self.start + own] = 1.0
        return found


def reduce(graph, low, high, known, late):
    """The network on one box, or `None` where that is no smaller.

    Args:
        graph: `Graph`.
        low: Smallest levels, of shape `(*image)`.
        high: Largest levels.
        known: Bounds of what the nonlinear nodes read, on this box.
        late: Function that tells whether the time is up.

    Returns:
        A `Reduced` whose pixels are those with `low != high`, in order; or
        `None`: if a nonlinear rule reads more than one number at a time, too
        much can change, or the time is up.
    """
    bounds = interval.propagate(
        graph,
        interval.level_bounds(graph, low[None], high[None]),
        dict(zip(graph.pre_activations, known)),
    )
    if max(np.max(node.magnitude) for node in bounds) >= LARGEST:
        return None
    found, neurons = [_pixels(graph, low, high)], []
    count = len(found[0].fresh)
    for position, node in enumerate(graph.nodes[1:], 1):
        if late():
            return None
        sources = [bounds[i] for i in node.inputs]
        inputs = [found[i] for i in node.inputs]
        if node.affine:
            shapes = [graph.nodes[i].shape for i in node.inputs]
            step = _Step(node.rule, shapes, node.shape)
            wanted = _wanted(graph, bounds, position)
            made = step.applied(inputs, sources, wanted, count)
            if made is None:
                return None
        elif isinstance(node.rule, Activation):
            made, bent = _activated(node, *inputs, *sources, count)
            neurons.append(bent)
            count += len(bent.constant)
        else:
            return None
        found.append(made)
    logits = found[-1]
    every = np.arange(graph.num_classes)
    return Reduced(
        neurons,
        logits.constant,
        logits.at(every, count),
        logits.radius + ROUNDING * logits.size,
    )


def _pixels(graph, low, high):
    """The input: a variable for each pixel that can change."""
    fresh = np.flatnonzero(low != high)
    constant = low.ravel().copy()
    constant[fresh] = 0.0
    # What the quantizer itself may be off.
    radius = interval.level_bounds(graph, low[None], low[None]).radius
    size = np.maximum(np.abs(low), np.abs(high)).ravel()
    return Linear(
        constant,
        radius.numpy().ravel(),
        size,
        np.empty(0, int),
        np.empty((0, 0)),
        fresh,
    )


def _wanted(graph, bounds, position):
    """Entries of a node that change anything after it."""
    readers = [n.rule for n in graph.nodes[1:] if position in n.inputs]
    wanted = np.zeros(graph.nodes[position].shape, bool)
    for rule in readers:
        if not isinstance(rule, Activation):
            return np.ones(wanted.size, bool)
        slope, _, _ = rule.band(bounds[position])
        wanted |= slope.numpy()[0] != 0
    return wanted.ravel() if readers else np.ones(wanted.size, bool)


class _Step(typing.NamedTuple):
    """An affine rule, for vectors."""

    rule: Affine
    shapes: list
    shape: tuple

    def applied(self, inputs, sources, wanted, count):
        """The `Linear` behind the rule; `None` if it is too large."""
        constant = self.product([x.constant for x in inputs])
        radius = self.product([x.radius for x in inputs], absolute=True)
        size = self.product([x.size for x in inputs], absolute=True)
        if self.rule.bias is not None:
            bias, weight = self.rule.bias(tf.float64)
            constant += np.broadcast_to(bias, self.shape).ravel()
            size += np.broadcast_to(weight, self.shape).ravel()
        if self.rule.terms:
            radius += self.rule.error(*sources).numpy().ravel()
        varies = [np.zeros(len(x.constant)) for x in inputs]
        for mask, x in zip(varies, inputs):
            mask[x.live] = mask[x.fresh] = 1.0
        reached = self.product(varies, absolute=True) > 0
        live = np.flatnonzero(reached & wanted)
        varying = sum(int(mask.sum()) for mask in varies)
        if len(live) * max(varying, count) > _LARGE:
            return None
        coefficients = np.zeros((len(live), count))
        for place, x in enumerate(inputs):
            before = x.coefficients.shape[1]
            coefficients[:, :before] += (
                self.matrix(place, x.live, live) @ x.coefficients
            )
            own = slice(x.start, x.start + len(x.fresh))
            coefficients[:, own] += self.matrix(place, x.fresh, live)
        return Linear(constant, radius, size, live, coefficients)

    def product(self, vectors, absolute=False):
        return self._products([vector[None] for vector in vectors], absolute)[0]

    def matrix(self, place, inputs, outputs):
        """`W` between some entries of one input and some of the output."""
        if self.rule.entries is not None:
            return self.rule.entries(inputs, outputs)
        found = np.empty((len(outputs), len(inputs)))
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        for start in range(0, len(inputs), _INPUTS):
            some = inputs[start : start + _INPUTS]
            vectors = [np.zeros((len(some), size)) for size in sizes]
            vectors[place][np.arange(len(some)), some] = 1.0
            made = self._products(vectors)[:, outputs]
            found[:, start : start + len(some)] = made.T
        return found

    def _products(self, batches, absolute=False):
        inputs = [
            tf.constant(batch.reshape(-1, *shape))
            for batch, shape in zip(batches, self.shapes)
        ]
        found = self.rule.product(*inputs, absolute=absolute).numpy()
        return found.reshape(len(found), -1)


def _activated(node, x, bounds, count):
    """The `Linear` behind an activation, and the neurons it has made."""
    rule = node.rule

    def flat(tensor):
        return np.array(tensor).ravel()

    slope, base, roof = map(flat, rule.band(bounds))
    varies = np.zeros(len(slope), bool)
    varies[x.live] = varies[x.fresh] = True
    bent = flat(rule.undecided(bounds)) & varies & (slope != 0)
    fresh = np.flatnonzero(bent)
    neurons = Neurons(
        rule.at(fresh, node.shape),
        x.constant[fresh],
        x.at(fresh, count),
        x.radius[fresh] + ROUNDING * x.size[fresh],
        Bounds(*(tf.constant(flat(part)[fresh]) for part in bounds)),
    )
    live = np.flatnonzero(~bent & varies & (slope != 0))
    constant = slope * x.constant + (base + roof) / 2
    radius = np.abs(slope) * x.radius + (roof - base) / 2
    radius += flat(rule.error(bounds))
    size = np.abs(slope) * x.size + np.maximum(np.abs(base), np.abs(roof))
    constant[fresh] = radius[fresh] = 0.0
    size[fresh] = flat(rule.bounds(bounds).magnitude)[fresh]
    coefficients = slope[live, None] * x.at(live, count)
    return (
        Linear(constant, radius, size, live, coefficients, fresh, count),
        neurons,
    )
