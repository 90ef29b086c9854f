"""The compiled functions behind a certificate, for one model."""

import functools

import numpy as np
import tensorflow as tf

from keras_qsn._core.convolution import fast_convolutions
from keras_qsn.certification.bounds import crown
from keras_qsn.certification.bounds import interval
from keras_qsn.certification.bounds import zonotope
from keras_qsn.certification.branching.elimination import reduce
from keras_qsn.certification.clock import Clock
from keras_qsn.certification.network import trace
from keras_qsn.certification.rules.enclosures import LARGEST
from keras_qsn.certification.rules.enclosures import Bounds

# Coefficients of one node that are held at a time, and neurons of one image.
_HELD, _NEURONS = 2**22, 64

# Neurons of one layer that are worth backward bounds, each as dear as a box.
_MANY = 512


class Proofs:
    """Bounds of one model's margins, in float64, from arrays to arrays.

    A box of images is given as what the network behind the quantizer sees of
    its ends: `low` and `high` of shape `(boxes, *image)`.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.

    Attributes:
        graph: `Graph` of the model.
        clock: `Clock` that stands while the functions are built.

    Raises:
        ValueError: If a layer has no sound rule.
    """

    def __init__(self, wrapper, shape):
        self.graph = trace(wrapper, shape)
        self.clock = Clock()
        self._model = wrapper.model
        nodes = self.graph.nodes
        box = [_spec(*shape)] * 2
        known = [
            Bounds(_spec(*nodes[p].shape), _spec(*nodes[p].shape))
            for p in self.graph.pre_activations
        ]
        labels = indices = tf.TensorSpec([None], tf.int32)
        rows = _spec(self.graph.num_classes)
        self._by_interval = self._compiled(self._interval, *box, labels)
        self._by_crown = self._compiled(self._crown, *box, labels)
        self._of_nodes = self._compiled(self._nodes, *box, rows, known)
        self._intervals = self._compiled(self._of_hidden, *box)
        self._forward = self._compiled(self._by_zonotope, *box, indices)
        self._sharper = {
            p: self._compiled(
                functools.partial(self._neurons, p),
                *box,
                indices,
                known,
            )
            for p in self.graph.improvable
        }

    def levels(self, low, high):
        """What the network behind the quantizer sees of a box's ends."""
        return [
            np.asarray(end, "float64")
            for end in interval.levels(self.graph, low, high)
        ]

    def by_interval(self, low, high, labels):
        """Margins by intervals, `(boxes, classes)`, and the logits' ends."""
        return [t.numpy() for t in self._by_interval(low, high, labels)]

    def by_crown(self, low, high, labels):
        """Margins by CROWN with the intervals of the hidden layers."""
        return self._by_crown(low, high, labels).numpy()

    def of_nodes(self, low, high, rows, known):
        """Lower bounds of linear functions of the logits, by CROWN.

        Args:
            low: Smallest levels.
            high: Largest levels.
            rows: Coefficients, shape `(functions, classes)`.
            known: What `hidden` returned for a box around these.

        Returns:
            The bounds, `(boxes, functions)`, and the coefficients of the
            input, `(boxes, functions, *image)`.
        """
        return [t.numpy() for t in self._of_nodes(low, high, rows, known)]

    def hidden(self, low, high):
        """Bounds of what the nonlinear layers read, by intervals."""
        return [Bounds(*pair) for pair in self._intervals(low, high)]

    def sharper_hidden(self, low, high, late):
        """The same for one box, by linear bounds.

        Forward ones first; then, layer by layer, backward ones of the neurons
        that may lie on two pieces of their activation, in layers where these
        are few enough. What is not done in time is left out.

        Args:
            low: Smallest levels, of one box.
            high: Largest levels.
            late: Function that tells whether the time is up.

        Returns:
            A list of `Bounds`.
        """
        unknown = np.flatnonzero(low != high).astype("int32")
        known = [Bounds(*p) for p in self._forward(low, high, unknown)]
        return self._sharpened(low, high, known, late, _MANY)

    def full_hidden(self, low, high, late):
        """The same by backward linear bounds alone, of all such neurons.

        What full CROWN has of the hidden layers, and never wider than the
        intervals.
        """
        return self._sharpened(low, high, self.hidden(low, high), late)

    @property
    def cost_of_full(self):
        """Neurons that `full_hidden` bounds, times the values in the network:
        proportional to the time of one image."""
        sizes = [int(np.prod(node.shape)) for node in self.graph.nodes]
        return sum(sizes[p] for p in self.graph.improvable) * sum(sizes)

    def _sharpened(self, low, high, known, late, most=np.inf):
        """Backward bounds in layers of at most so many open neurons."""
        known = list(known)
        largest = max(int(np.prod(node.shape)) for node in self.graph.nodes)
        # A lower and an upper bound each.
        at_once = int(np.clip(_HELD // (2 * largest), 1, _NEURONS))
        for place, position in enumerate(self.graph.pre_activations):
            if position not in self.graph.improvable:
                continue
            undecided = self._undecided(position, known[place])
            if len(undecided) > most:
                continue
            for start in range(0, len(undecided), at_once):
                if late():
                    return known
                chunk = undecided[start : start + at_once]
                known[place] = Bounds(
                    *self._sharper[position](low, high, chunk, known)
                )
        return known

    def reduced(self, low, high, known, late):
        """`Reduced`, what is left of the network on one box, or `None`.

        Args:
            low: Smallest levels, of shape `(*image)`.
            high: Largest levels.
            known: What `sharper_hidden` returned for this box.
            late: As there. Then there is none.
        """
        return reduce(self.graph, low, high, known, late)

    def _compiled(self, function, *signature):
        """The function, traced when it is first called."""

        def traced():
            with fast_convolutions(self._model):
                return tf.function(
                    function, autograph=False
                ).get_concrete_function(*signature)

        return self.clock.built(traced)

    def _first(self, low, high):
        return interval.level_bounds(self.graph, low, high)

    def _of_hidden(self, low, high):
        bounds = interval.propagate(self.graph, self._first(low, high))
        return [bounds[p] for p in self.graph.pre_activations]

    def _by_zonotope(self, low, high, unknown):
        first = self._first(low, high)
        bounds = zonotope.propagate(self.graph, first, unknown)
        return [bounds[p] for p in self.graph.pre_activations]

    def _interval(self, low, high, labels):
        bounds = interval.propagate(self.graph, self._first(low, high))
        margins = crown.margins(self.graph, bounds, labels, relaxed=False)
        floor, roof = bounds[-1].ends
        return (
            _trusted(margins, bounds),
            _trusted(floor, bounds),
            -_trusted(-roof, bounds),
        )

    def _crown(self, low, high, labels):
        bounds = interval.propagate(self.graph, self._first(low, high))
        margins = crown.margins(self.graph, bounds, labels)
        return _trusted(margins, bounds)

    def _nodes(self, low, high, rows, known):
        bounds = self._within(low, high, known)
        last = len(self.graph.nodes) - 1
        rows = tf.repeat(rows[None], tf.shape(low)[0], 0)
        least, slopes = crown.lower_bound(self.graph, bounds, last, rows)
        return _trusted(least, bounds), slopes

    def _neurons(self, position, low, high, chunk, known):
        """Sharper bounds of some neurons of one box."""
        bounds = self._within(low, high, known)
        shape = self.graph.nodes[position].shape
        size = int(np.prod(shape))
        rows = tf.one_hot(chunk, size, dtype=low.dtype)
        rows = tf.reshape(tf.concat([rows, -rows], 0), [1, -1, *shape])
        least, _ = crown.lower_bound(self.graph, bounds, position, rows)
        low_part, high_part = tf.split(least[0], 2)
        ends = []
        for end, part, keep in zip(
            bounds[position].ends,
            (low_part, -high_part),
            (tf.maximum, tf.minimum),
        ):
            flat = tf.reshape(end, [size])
            part = keep(tf.gather(flat, chunk), part)
            flat = tf.tensor_scatter_nd_update(flat, chunk[:, None], part)
            ends.append(tf.reshape(flat, [1, *shape]))
        return Bounds.between(*ends)

    def _within(self, low, high, known):
        positions = self.graph.pre_activations
        return interval.propagate(
            self.graph, self._first(low, high), dict(zip(positions, known))
        )

    def _undecided(self, position, bounds):
        readers = [
            node.rule
            for node in self.graph.nodes[1:]
            if not node.affine and position in node.inputs
        ]
        masks = [rule.undecided(bounds).numpy() for rule in readers]
        return np.flatnonzero(np.any(masks, 0)).astype("int32")


def _spec(*shape):
    return tf.TensorSpec([None, *shape], tf.float64)


def _trusted(least, bounds):
    """Lower bounds, minus infinity where float32 may overflow."""
    fine = True
    for node in bounds:
        inside = node.magnitude < LARGEST
        axes = list(range(1, len(inside.shape)))
        fine &= tf.reduce_all(inside, axes)
    return tf.where(fine[:, None], least, -np.inf)
