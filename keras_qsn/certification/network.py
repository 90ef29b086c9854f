"""A Keras model as a list of nodes, a rule each."""

import dataclasses
import typing

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.tracing import replaced
from keras_qsn.certification.rules.affine import Affine
from keras_qsn.certification.rules.registry import computes_as
from keras_qsn.certification.rules.registry import refusal
from keras_qsn.certification.rules.registry import rules_of
from keras_qsn.layers import QuantLayer


class Node(typing.NamedTuple):
    """A `Rule`, `None` for the input; the positions of the nodes that it
    reads; the shape of its output, without the batch."""

    rule: typing.Any
    inputs: tuple
    shape: tuple

    @property
    def affine(self):
        return isinstance(self.rule, Affine)


@dataclasses.dataclass(frozen=True)
class Network:
    """A classifier as nodes in the order of computation.

    Attributes:
        nodes: Tuple of `Node`; the first is the input (behind the quantizer,
            where there is one), the last the logits.
        quantizer: The `QuantLayer` at the input, or `None`.
        before: Tuple of layers that rescale the images in front of it.
        rescaling: Tuple of their rules.
    """

    nodes: tuple
    quantizer: QuantLayer | None = None
    before: tuple = ()
    rescaling: tuple = ()

    def quantized(self, images):
        """What the nodes are given of images, by the layers themselves."""
        if self.quantizer is None:
            return images
        for layer in (*self.before, self.quantizer):
            images = layer(images)
        return images

    def at_pre_activations(self, values):
        """Values of nodes that nonlinear rules read, by their positions."""
        return dict(zip(self.pre_activations, values))

    @property
    def num_classes(self):
        return self.nodes[-1].shape[0]

    @property
    def products(self):
        """How many there are for one image."""
        affine = (node for node in self.nodes[1:] if node.affine)
        return sum(node.rule.terms * np.prod(node.shape) for node in affine)

    @property
    def hard(self):
        """Whether the input has levels, so that pixels can be branched on."""
        return self.quantizer is not None and self.quantizer.hard

    @property
    def pre_activations(self):
        """Positions of the nodes that nonlinear rules read."""
        nonlinear = (node for node in self.nodes[1:] if not node.affine)
        return tuple(sorted({i for node in nonlinear for i in node.inputs}))

    def readers(self, position):
        """Rules that read a node."""
        return [n.rule for n in self.nodes[1:] if position in n.inputs]

    @property
    def improvable(self):
        """Those of them that intervals from the input on may be loose for:
        one sum of independent numbers is not."""
        steps = [0]
        for node in self.nodes[1:]:
            before = max(steps[i] for i in node.inputs)
            steps.append(before + (not node.affine or node.rule.mixes))
        return tuple(p for p in self.pre_activations if steps[p] > 1)


def trace(wrapper, shape):
    """Read the network off a call of a classifier.

    Whatever the model is made of (Sequential, functional, models inside
    models, subclasses that only call layers), what its layers hand to each
    other is followed.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.

    Raises:
        ValueError: If a layer has no sound rule, or reads a number that no
            known layer made.
    """
    return _Tracer().trace(wrapper, shape)


class _Tracer:
    """Records what the layers of a model hand to each other."""

    def __init__(self):
        self.nodes = []
        self.layers = []
        # The quantizer and what is in front of it, as in `Network`.
        self.opened = {}
        # Positions by the identity of a tensor, which is kept: no other tensor
        # may get the same.
        self.positions = {}
        self.kept = []
        self.last = 0
        self.error = None

    def trace(self, wrapper, shape):
        layers = [q for q in wrapper.layers if not isinstance(q, keras.Model)]
        # Found before its layers are replaced: it would be another then.
        logits_model = wrapper.logits_model

        def logits_of(image):
            if logits_model is None:
                return wrapper.get_logits(image)
            return logits_model(image, training=False)

        def follow(image):
            self._know(image, self._add(None, (), image))
            with replaced(layers, "call", self._record):
                logits = logits_of(image)
            self.last = self._position(logits, "The output of the model")

        # Traced, not run: a model that looks at its numbers to decide what to
        # compute is no graph, and fails.
        try:
            tf.function(follow, autograph=False).get_concrete_function(
                tf.TensorSpec([1, *shape], tf.float32)
            )
        except ValueError as error:
            # In its own words, without what Keras adds.
            raise (self.error or error) from None
        return Network(tuple(self.nodes[: self.last + 1]), **self.opened)

    def _record(self, layer, inputs, *args, **kwargs):
        """Stands in for a layer's `call`."""
        try:
            if args or kwargs.get("training"):
                raise refusal(layer, "it is called as in training")
            if computes_as(layer, QuantLayer):
                rules, sources = self._open(layer, inputs)
            else:
                rules, sources = self._read(layer, inputs)
        except ValueError as error:
            self.error = error
            raise
        output = type(layer).call(layer, inputs, *args, **kwargs)
        self.layers += [layer] * bool(rules)
        for rule in rules:
            sources = (self._add(rule, sources, output),)
        self._know(output, *sources)
        return output

    def _read(self, layer, inputs):
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        rules = rules_of(layer, *(tuple(t.shape[1:]) for t in tensors))
        return rules, tuple(self._position(t, _name(layer)) for t in tensors)

    def _open(self, layer, inputs):
        """Let the network begin behind the quantizer."""
        last = self._position(inputs, _name(layer))
        chain = [node.inputs for node in self.nodes[1:]]
        rescaled = all(type(q) in _RESCALING for q in self.layers)
        if not rescaled or self.opened or chain != [(i,) for i in range(last)]:
            raise refusal(
                layer,
                "only the first layer, and no other, may quantize; in front "
                "of it images may be rescaled",
            )
        for before in self.layers:
            if np.any(np.less(getattr(before, "scale", 1.0), 0)):
                raise refusal(
                    before,
                    "its scale is below zero, which turns the order of "
                    "pixels in front of a quantizer",
                )
        self.opened = {
            "quantizer": layer,
            "before": tuple(self.layers),
            "rescaling": tuple(node.rule for node in self.nodes[1:]),
        }
        del self.nodes[1:]
        self.positions.clear()
        return [], (0,)

    def _add(self, rule, sources, output):
        shape = tuple(output.shape[1:])
        if rule is not None and rule.shape is not None:
            shape = rule.shape
        self.nodes.append(Node(rule, sources, shape))
        return len(self.nodes) - 1

    def _know(self, tensor, position):
        self.positions[id(tensor)] = position
        self.kept.append(tensor)

    def _position(self, tensor, reader):
        if id(tensor) not in self.positions:
            raise ValueError(
                "A certificate follows images from layer to layer. Received: "
                f"{reader} reads what no certified layer made, such as the "
                "result of an operation outside layers, or pixels beside the "
                "quantizer."
            )
        return self.positions[id(tensor)]


def _name(layer):
    return f"Layer '{layer.name}' ({type(layer).__name__})"


_RESCALING = (keras.layers.Rescaling, keras.layers.Normalization)
