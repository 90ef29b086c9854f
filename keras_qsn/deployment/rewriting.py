"""A network's graph with fake quantization where integer kernels round.

A tensor is *on a grid* where it is one of the levels of a
`FakeQuantActivations`; the grid of a tensor is that layer. Products, sums and
means are put on a grid once it is known what is fused with them.
"""

import itertools

import keras

from keras_qsn.classifier.rebuilt import from_config
from keras_qsn.deployment.folding import PRODUCTS
from keras_qsn.deployment.layers import FakeQuantActivations
from keras_qsn.deployment.layers import FakeQuantWeights
from keras_qsn.layers import QuantLayer

# In floats, of the image, before the first product.
BEFORE = (
    QuantLayer,
    keras.layers.Rescaling,
    keras.layers.Normalization,
)
# What comes from a grid stays on it.
_KEEP = (
    keras.layers.MaxPooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.Identity,
)
# Integer kernels give these a grid of their own.
_COMPUTE = (
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Add,
)
_ENDS = (keras.activations.softmax, keras.activations.sigmoid)
_NAMES = ", ".join(
    kind.__name__
    for kind in (*PRODUCTS, *_COMPUTE, *_KEEP, keras.layers.AveragePooling2D)
)


class Rewriting:
    """One model's twin in the making.

    Args:
        weight_bits: Integer.
        activation_bits: Integer; the image and the output keep 8 bits.
        momentum: Of ranges.
    """

    def __init__(self, weight_bits, activation_bits, momentum):
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.momentum = momentum
        # By the `id` of a tensor, which is kept.
        self.images = {}
        self.products = {}
        self.grids = {}
        # What a tensor off the grids is made of, as its quantizer takes it.
        self.made_of = {}
        self.settled = {}
        self.ends = {}
        self.tensors = {}
        self.clones = {}
        self.folded = []
        self.names = set()

    def twin(self, model):
        """The `keras.Model`."""
        given = model.inputs[0]
        x = keras.Input(given.shape[1:], dtype="float32", name=given.name)
        self.images[id(x)] = x
        (y,) = self._walk(model, [x])
        if id(y) not in self.ends:
            y = self._settle(y, bits=8)
        for before, batch_norm in self.folded:
            if before._outbound_nodes:
                raise ValueError(
                    "What batch normalization is folded into must go nowhere "
                    f"else. Received: '{before.name}' in front of "
                    f"'{batch_norm.name}' and of another layer"
                )
        return keras.Model(x, y, name=model.name)

    def _walk(self, model, inputs):
        graph = getattr(model, "_functional", None) or model
        made = dict(zip(map(id, graph.inputs), inputs))
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                given = [made[id(t)] for t in node.input_tensors]
                found = self._place(node.operation, given)
                made.update(zip(map(id, node.outputs), found))
        return [made[id(t)] for t in graph.outputs]

    def _place(self, layer, given):
        """What stands for a layer's call on these tensors; a list."""
        if getattr(layer, "outputs", None):
            return self._walk(layer, given)
        if any(id(t) in self.ends for t in given):
            raise TypeError(
                "A softmax or a sigmoid must be the last layer. Received: "
                f"'{layer.name}' behind it."
            )
        x = given[0]
        if isinstance(layer, keras.layers.BatchNormalization):
            return [self._normalized(layer, x)]
        if isinstance(layer, BEFORE):
            if id(x) not in self.images:
                x = self._settle(x)
            y = self._clone(layer)(x)
            self.images[id(y)] = y
            return [y]
        if _is_relu(layer):
            return [self._fused(x, layer)]
        if _is_end(layer):
            y = self._clone(layer)(self._settle(x, bits=8))
            self.ends[id(y)] = y
            return [y]
        given = [self._settle(t) for t in given]
        if type(layer).__name__ == "Add" and len(given) == 2:
            # The layer, and the operation of `x + y`.
            add = keras.layers.Add(name=self._name(layer.name))
            return [self._added(add(given), given)]
        if isinstance(layer, PRODUCTS):
            return [self._product(layer, given[0])]
        if isinstance(layer, keras.layers.AveragePooling2D):
            grid = self.grids[id(given[0])]
            y = self._clone(layer)(given[0])
            return [self._on_grid(y, grid, averages=True)]
        if isinstance(layer, _KEEP):
            y = self._clone(layer)(given[0])
            return [self._keep_grid(y, self.grids[id(given[0])])]
        if isinstance(layer, _COMPUTE):
            alone = given[0] if len(given) == 1 else given
            return [self._made(self._clone(layer)(alone))]
        raise TypeError(
            "`model` must be made of layers that have an integer kernel: "
            f"{_NAMES}, BatchNormalization and ReLU. Received: "
            f"{type(layer).__name__} '{layer.name}'. Leave what prepares "
            "images out of the model, and give activations as ReLU."
        )

    def _product(self, layer, x):
        if layer in self.clones:
            raise ValueError(
                "Each layer with weights must be used once: each use has "
                f"ranges of its own. Received: '{layer.name}' used twice."
            )
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise ValueError(
                "Convolutions must be of `data_format='channels_last'`. "
                f"Received: '{layer.name}' of '{layer.data_format}'"
            )
        self.clones[layer] = None
        y = self._weighted(layer, None, x, self._name(layer.name))
        self.products[id(y)] = layer, x, y
        activation = layer.activation
        if activation is keras.activations.linear:
            return y
        end = keras.layers.Activation(
            activation, name=f"{layer.name}_activation"
        )
        return self._place(end, [y])[0]

    def _normalized(self, batch_norm, x):
        if id(x) not in self.products:
            raise ValueError(
                "Batch normalization must stand right behind a convolution or "
                "a dense layer without activation, into which it is folded. "
                f"Received: '{batch_norm.name}' behind '{_maker(x).name}'"
            )
        if batch_norm.axis not in (-1, len(x.shape) - 1):
            raise ValueError(
                "Batch normalization must be of the last axis. Received: "
                f"'{batch_norm.name}' of axis {batch_norm.axis}"
            )
        layer, before, _ = self.products.pop(id(x))
        self.folded.append((_maker(x), batch_norm))
        return self._weighted(layer, batch_norm, before, _maker(x).name)

    def _weighted(self, layer, batch_norm, x, name):
        own = from_config(layer, activation="linear")
        inside = None if batch_norm is None else from_config(batch_norm)
        wrapped = FakeQuantWeights(
            own, inside, bits=self.weight_bits, name=name
        )
        step = self.grids[id(x)](x, only_step=True)
        y = wrapped(x, step=step)
        if self.weight_bits == 8:
            steps = wrapped(x, step=step, only_steps=True)
            self.made_of[id(y)] = {"products": steps}
        own.set_weights(layer.get_weights())
        if inside is not None:
            inside.set_weights(batch_norm.get_weights())
        return self._made(y)

    def _fused(self, x, activation):
        """Behind an activation that kernels compute before they round."""
        if id(x) in self.grids:
            return self._keep_grid(
                self._clone(activation)(x), self.grids[id(x)]
            )
        y = self._made(self._clone(activation)(x))
        self.made_of[id(y)] = self.made_of.get(id(x), {})
        return y

    def _added(self, y, given):
        steps = [self.grids[id(t)](t, only_step=True) for t in given]
        self.made_of[id(y)] = {"sums": [*given, *steps]}
        return self._made(y)

    def _settle(self, x, bits=None):
        """The tensor on a grid, of its own where it is on none yet."""
        if id(x) in self.grids:
            return x
        if id(x) not in self.settled:
            image = id(x) in self.images
            quantizer = FakeQuantActivations(
                bits or (8 if image else self.activation_bits),
                self.momentum,
                name=self._name(f"{_maker(x).name}_rounded"),
            )
            y = self._on_grid(
                x,
                quantizer,
                ties=isinstance(_maker(x), BEFORE),
                **self.made_of.get(id(x), {}),
            )
            self.settled[id(x)] = y
        return self.settled[id(x)]

    def _on_grid(self, x, quantizer, **kwargs):
        self._made(x)
        return self._keep_grid(quantizer(x, **kwargs), quantizer)

    def _keep_grid(self, y, quantizer):
        self.grids[id(y)] = quantizer
        return self._made(y)

    def _made(self, x):
        """Keep a tensor, so that no other has its `id`."""
        self.tensors[id(x)] = x
        return x

    def _name(self, wanted):
        """A name that no other layer of the twin has."""
        name, numbers = wanted, itertools.count(1)
        while name in self.names:
            name = f"{wanted}_{next(numbers)}"
        self.names.add(name)
        return name

    def _clone(self, layer):
        """A copy with the same weights; one for all calls."""
        if layer not in self.clones:
            copy = from_config(layer, name=self._name(layer.name))
            if layer.weights:
                copy.build(layer._build_shapes_dict["input_shape"])
                copy.set_weights(layer.get_weights())
            self.clones[layer] = copy
        return self.clones[layer]


def _maker(tensor):
    return tensor._keras_history.operation


def _is_relu(layer):
    """Whether it is a ReLU that integer kernels fuse."""
    if isinstance(layer, keras.layers.ReLU):
        return not (layer.negative_slope or layer.threshold)
    activation = getattr(layer, "activation", None)
    named = (keras.activations.relu, keras.activations.relu6)
    return type(layer) is keras.layers.Activation and activation in named


def _is_end(layer):
    if isinstance(layer, keras.layers.Softmax):
        return True
    activation = getattr(layer, "activation", None)
    return type(layer) is keras.layers.Activation and activation in _ENDS
