"""The bounds of one model, as compiled functions."""

import functools

import numpy as np
import tensorflow as tf

from keras_qsn._core.convolution import fast_convolutions
from keras_qsn.certification.bounds import crown
from keras_qsn.certification.bounds import interval
from keras_qsn.certification.bounds import zonotope
from keras_qsn.certification.clock import Clock
from keras_qsn.certification.network import trace
from keras_qsn.certification.rules.affine import Affine
from keras_qsn.certification.rules.enclosures import LARGEST
from keras_qsn.certification.rules.enclosures import Bounds

# Coefficients of one node that are held at a time, and neurons of one image.
_HELD, _NEURONS = 2**22, 64

# Neurons of one layer that are worth backward bounds, each as dear as a box.
_MANY = 512


def _compiled(*arguments):
    """A method compiled when it is first called, in none of the clock's time.

    Args:
        *arguments: Names of what it is called with, of `_specs`. What is
            given by keyword comes first and is a constant: the method is
            compiled for each.
    """

    def decorate(method):
        @functools.wraps(method)
        def call(self, *values, **constants):
            key = method.__name__, *constants.values()
            if key not in self._functions:
                # Not `partial`, whose arguments TensorFlow cannot bind: it
                # would write all of them into an error, and try again.
                def function(*values):
                    return method(self, *constants.values(), *values)

                self._functions[key] = self.clock.built(
                    lambda: self._traced(function, arguments)
                )
            return self._functions[key](*values)

        return call

    return decorate


class CompiledBounds:
    """Bounds of one model, in float64.

    A box of images is given as what the network behind the quantizer sees of
    its ends: `low` and `high` of shape `(boxes, *image)`. `intermediate` are
    bounds of the pre-activations that hold on these boxes.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.

    Attributes:
        network: `Network` of the model.
        clock: `Clock` that stands while the functions are built.

    Raises:
        ValueError: If a layer has no sound rule.
    """

    def __init__(self, wrapper, shape):
        self.network = trace(wrapper, shape)
        self.clock = Clock()
        self._model = wrapper.model
        self._functions = {}
        shapes = [node.shape for node in self.network.nodes]
        indices = tf.TensorSpec([None], tf.int32)
        self._specs = {
            "low": _spec(*shape),
            "high": _spec(*shape),
            "labels": indices,
            "indices": indices,
            "A": _spec(self.network.num_classes),
            "intermediate": [
                Bounds(_spec(*shapes[p]), _spec(*shapes[p]))
                for p in self.network.pre_activations
            ],
        }

    def levels(self, low, high):
        """What the network behind the quantizer sees of a box's ends."""
        ends = interval.levels(self.network, low, high)
        return [np.asarray(end, "float64") for end in ends]

    @_compiled("low", "high", "labels")
    def margins_by_interval(self, low, high, labels):
        """Margins by intervals, `(boxes, classes)`, and the logits' ends."""
        bounds = self._propagated(low, high)
        margins = crown.margins(self.network, bounds, labels, relaxed=False)
        lower, upper = bounds[-1].ends
        margins, lower, upper = (
            _trusted(part, bounds) for part in (margins, lower, -upper)
        )
        return margins, lower, -upper

    @_compiled("low", "high", "labels")
    def margins_by_crown(self, low, high, labels):
        """Margins by CROWN with the intervals of the hidden layers."""
        bounds = self._propagated(low, high)
        margins = crown.margins(self.network, bounds, labels)
        return _trusted(margins, bounds)

    @_compiled("low", "high", "A", "intermediate")
    def lower_bound(self, low, high, A, intermediate):
        """Lower bounds of functions of the logits, `A` of shape `(functions,
        classes)`, by CROWN: `(boxes, functions)`; and the coefficients of the
        input, `(boxes, functions, *image)`."""
        bounds = self._propagated(low, high, intermediate)
        last = len(self.network.nodes) - 1
        A = tf.repeat(A[None], tf.shape(low)[0], 0)
        lower, of_input = crown.lower_bound(self.network, bounds, last, A)
        return _trusted(lower, bounds), of_input

    @_compiled("low", "high")
    def by_interval(self, low, high):
        """Bounds of the pre-activations, by intervals."""
        return self._pre_activations(self._propagated(low, high))

    @_compiled("low", "high", "indices")
    def by_zonotope(self, low, high, unknown):
        """The same for one box, linear in its unknown pixels."""
        first = interval.level_bounds(self.network, low, high)
        return self._pre_activations(
            zonotope.propagate(self.network, first, unknown)
        )

    def sharper(self, low, high, late):
        """The same for one box, by linear bounds.

        Forward ones first; then, layer by layer, backward ones of the neurons
        that may be unstable, in layers where these are few enough. What is
        not done when it is `late()` is left out.
        """
        unknown = np.flatnonzero(low != high).astype("int32")
        bounds = self.by_zonotope(low, high, unknown)
        return self._sharpened(low, high, bounds, late, _MANY)

    def by_crown(self, low, high, late):
        """The same by backward linear bounds alone, of all such neurons: what
        full CROWN has of the hidden layers, never wider than intervals."""
        return self._sharpened(low, high, self.by_interval(low, high), late)

    @property
    def cost_of_crown(self):
        """Neurons that `by_crown` bounds, times the values in the network:
        proportional to the time of one image."""
        sizes = [int(np.prod(node.shape)) for node in self.network.nodes]
        return sum(sizes[p] for p in self.network.improvable) * sum(sizes)

    def _sharpened(self, low, high, bounds, late, most=np.inf):
        """Backward bounds in layers of at most so many unstable neurons."""
        bounds = list(bounds)
        largest = max(int(np.prod(node.shape)) for node in self.network.nodes)
        # A lower and an upper bound each.
        at_once = int(np.clip(_HELD // (2 * largest), 1, _NEURONS))
        for place, position in enumerate(self.network.pre_activations):
            if position not in self.network.improvable:
                continue
            masks = [
                rule.unstable(bounds[place]).numpy()
                for rule in self.network.readers(position)
                if not isinstance(rule, Affine)
            ]
            unstable = np.flatnonzero(np.any(masks, 0)).astype("int32")
            if len(unstable) > most:
                continue
            for start in range(0, len(unstable), at_once):
                if late():
                    return bounds
                chunk = unstable[start : start + at_once]
                bounds[place] = self._neurons(
                    low, high, chunk, bounds, position=position
                )
        return bounds

    @_compiled("low", "high", "indices", "intermediate")
    def _neurons(self, position, low, high, chunk, intermediate):
        """Sharper bounds of some neurons of one box."""
        bounds = self._propagated(low, high, intermediate)
        shape = self.network.nodes[position].shape
        size = int(np.prod(shape))
        A = tf.one_hot(chunk, size, dtype=low.dtype)
        A = tf.reshape(tf.concat([A, -A], 0), [1, -1, *shape])
        both, _ = crown.lower_bound(self.network, bounds, position, A)
        lower, upper = tf.split(both[0], 2)
        ends = []
        for end, part, keep in zip(
            bounds[position].ends, (lower, -upper), (tf.maximum, tf.minimum)
        ):
            flat = tf.reshape(end, [size])
            part = keep(tf.gather(flat, chunk), part)
            flat = tf.tensor_scatter_nd_update(flat, chunk[:, None], part)
            ends.append(tf.reshape(flat, [1, *shape]))
        return Bounds.between(*ends)

    def _propagated(self, low, high, intermediate=()):
        first = interval.level_bounds(self.network, low, high)
        within = self.network.at_pre_activations(intermediate)
        return interval.propagate(self.network, first, within)

    def _pre_activations(self, bounds):
        return [bounds[p] for p in self.network.pre_activations]

    def _traced(self, function, arguments):
        with fast_convolutions(self._model):
            return tf.function(function, autograph=False).get_concrete_function(
                *(self._specs[name] for name in arguments)
            )


def _spec(*shape):
    return tf.TensorSpec([None, *shape], tf.float64)


def _trusted(lower, bounds):
    """Lower bounds, minus infinity where float32 may overflow."""
    fine = True
    for node in bounds:
        inside = node.magnitude < LARGEST
        fine &= tf.reduce_all(inside, list(range(1, len(inside.shape))))
    return tf.where(fine[:, None], lower, -np.inf)
