"""Eliminate from a network what cannot change on one box.

Behind a hard quantizer some 50 pixels of an image can change. On such a box
most neurons are constants or lie on one piece of their activation. Node after
node is written as linear functions of the variables of a `ReducedNetwork`:

    constant + coefficients . variables, off by at most radius.
"""

import typing

import numpy as np
import tensorflow as tf

from keras_qsn.certification.bounds import interval
from keras_qsn.certification.branching.reduced_network import ReducedNetwork
from keras_qsn.certification.branching.reduced_network import Unstable
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
        radius: What each entry may be off: float32's rounding.
        size: All that is added up for an entry is smaller in sum.
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

    @property
    def varies(self):
        """Whether each entry can change."""
        mask = np.zeros(len(self.constant), bool)
        mask[self.live] = mask[self.fresh] = True
        return mask

    def at(self, entries, count):
        """Coefficients of some entries, `(entries, count)`; 0 where none."""
        A = np.zeros((len(entries), count))
        _, own, place = np.intersect1d(
            self.live, entries, True, return_indices=True
        )
        A[place, : self.coefficients.shape[1]] = self.coefficients[own]
        _, own, place = np.intersect1d(
            self.fresh, entries, True, return_indices=True
        )
        A[place, self.start + own] = 1.0
        return A


def eliminate(network, low, high, intermediate, late):
    """The network on one box, or `None` where that is no smaller.

    Affine nodes and stable neurons are written in terms of the variables
    there are. An unstable neuron is a new one; so is each output of any other
    rule that what varies can change. Such rules may read so much that the
    whole network is less work: then there is nothing to gain.

    Args:
        network: `Network`.
        low: Smallest levels, of shape `(*image)`; `high` the largest.
        intermediate: Bounds of the pre-activations, on this box.
        late: Function that tells whether the time is up.

    Returns:
        A `ReducedNetwork` whose pixels are those with `low != high`, in
        order; or `None`, if nothing is gained, or the time is up.
    """
    bounds = interval.propagate(
        network,
        interval.level_bounds(network, low[None], high[None]),
        network.at_pre_activations(intermediate),
    )
    if max(np.max(node.magnitude) for node in bounds) >= LARGEST:
        return None
    made, unstable = [_pixels(network, low, high)], []
    count, products = len(made[0].fresh), 0
    for position, node in enumerate(network.nodes[1:], 1):
        if late():
            return None
        inputs = [made[i] for i in node.inputs]
        known = [bounds[i] for i in node.inputs]
        shapes = [network.nodes[i].shape for i in node.inputs]
        if node.affine:
            step = _Step(node.rule, shapes, node.shape)
            wanted = _wanted(network, bounds, position)
            linear = step.applied(inputs, known, wanted, count)
        elif isinstance(node.rule, Activation):
            linear, neurons = _activated(
                node.rule, shapes, inputs, known, count
            )
            unstable.append(neurons)
        else:
            linear, neurons = _other(node.rule, shapes, inputs, known, count)
            unstable.append(neurons)
            products += neurons.coefficients.size
        # Twice: the whole network is compiled.
        if linear is None or 2 * products > network.products:
            return None
        count += len(linear.fresh)
        made.append(linear)
    logits = made[-1]
    every = np.arange(network.num_classes)
    return ReducedNetwork(
        unstable,
        logits.constant,
        logits.at(every, count),
        logits.radius + ROUNDING * logits.size,
    )


def _pixels(network, low, high):
    """The input: a variable for each pixel that can change."""
    fresh = np.flatnonzero(low != high)
    constant = low.ravel().copy()
    constant[fresh] = 0.0
    # What the quantizer itself may be off.
    radius = interval.level_bounds(network, low[None], low[None]).radius
    size = np.maximum(np.abs(low), np.abs(high)).ravel()
    nothing = np.empty(0, int), np.empty((0, 0))
    return Linear(constant, _flat(radius), size, *nothing, fresh)


def _wanted(network, bounds, position):
    """Entries of a node that change anything after it."""
    readers = network.readers(position)
    if not (readers and all(isinstance(r, Activation) for r in readers)):
        return np.ones(np.prod(network.nodes[position].shape), bool)
    slopes = [_flat(rule.parallel(bounds[position])[0]) for rule in readers]
    return np.any(slopes, 0)


class _Step(typing.NamedTuple):
    """An affine rule, for vectors."""

    rule: Affine
    shapes: list
    shape: tuple

    def applied(self, inputs, known, wanted, count):
        """The `Linear` behind the rule; `None` if it is too large."""
        constant = self.product([x.constant for x in inputs])
        radius = self.product([x.radius for x in inputs], absolute=True)
        size = self.product([x.size for x in inputs], absolute=True)
        if self.rule.bias is not None:
            bias, weight = self.rule.bias(tf.float64)
            constant += np.broadcast_to(bias, self.shape).ravel()
            size += np.broadcast_to(weight, self.shape).ravel()
        if self.rule.terms:
            radius += self.rule.error(*known).numpy().ravel()
        varies = [x.varies.astype("float64") for x in inputs]
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
        W = np.empty((len(outputs), len(inputs)))
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        for start in range(0, len(inputs), _INPUTS):
            some = inputs[start : start + _INPUTS]
            vectors = [np.zeros((len(some), size)) for size in sizes]
            vectors[place][np.arange(len(some)), some] = 1.0
            made = self._products(vectors)[:, outputs]
            W[:, start : start + len(some)] = made.T
        return W

    def _products(self, batches, absolute=False):
        inputs = [
            tf.constant(batch.reshape(-1, *shape))
            for batch, shape in zip(batches, self.shapes)
        ]
        made = self.rule.product(*inputs, absolute=absolute).numpy()
        return made.reshape(len(made), -1)


def _activated(rule, shapes, inputs, known, count):
    """The `Linear` behind an activation, and its unstable neurons."""
    (x,), (bounds,) = inputs, known
    slope, lower, upper = map(_flat, rule.parallel(bounds))
    changes = x.varies & (slope != 0)
    unstable = _flat(rule.unstable(bounds)) & changes
    fresh = np.flatnonzero(unstable)
    live = np.flatnonzero(~unstable & changes)
    constant = slope * x.constant + (lower + upper) / 2
    radius = np.abs(slope) * x.radius + (upper - lower) / 2
    radius += _flat(rule.error(bounds))
    size = np.abs(slope) * x.size + np.maximum(np.abs(lower), np.abs(upper))
    constant[fresh] = radius[fresh] = 0.0
    size[fresh] = _flat(rule.bounds(bounds).magnitude)[fresh]
    coefficients = slope[live, None] * x.at(live, count)
    return (
        Linear(constant, radius, size, live, coefficients, fresh, count),
        _unstable(rule, fresh, shapes, inputs, known, count),
    )


def _other(rule, shapes, inputs, known, count):
    """The same behind any rule. What does not vary is in the radius."""
    fixed = [
        Bounds(
            b.center, tf.where(x.varies.reshape(b.radius.shape), 0.0, b.radius)
        )
        for x, b in zip(inputs, known)
    ]
    output = rule.bounds(*known)
    constant, radius = map(_flat, output)
    fresh = np.flatnonzero(radius > _flat(rule.bounds(*fixed).radius))
    neurons = _unstable(rule, fresh, shapes, inputs, known, count)
    constant[fresh] = radius[fresh] = 0.0
    nothing = np.empty(0, int), np.empty((0, count))
    size = _flat(output.magnitude)
    return Linear(constant, radius, size, *nothing, fresh, count), neurons


def _unstable(rule, fresh, shapes, inputs, known, count):
    """The `Unstable` neurons at some places of a rule's output."""
    part, reads = rule.part(fresh, shapes, *known)
    read = [
        (
            x.constant[places],
            x.at(places, count),
            x.radius[places] + ROUNDING * x.size[places],
            *(_flat(end)[places] for end in bounds),
        )
        for x, bounds, places in zip(inputs, known, reads)
    ]
    constant, A, radius, *box = map(np.concatenate, zip(*read))
    return Unstable(part, constant, A, radius, Bounds(*map(tf.constant, box)))


def _flat(tensor):
    return np.array(tensor).ravel()
