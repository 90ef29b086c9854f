"""The parts of a network that another function can stand in for.

A part is a layer's call, the activation inside a layer of Keras' own, or an
operation such as `keras.ops.round` in a functional model.
"""

import dataclasses

import keras

from keras_qsn._core.tracing import attributes_of
from keras_qsn._core.tracing import replaced

_ACTIVATION = "/activation"


@dataclasses.dataclass(frozen=True)
class Part:
    """A method that a network is made of.

    Attributes:
        owner: The layer or operation.
        method: `"call"` or `"activation"`.
    """

    owner: object
    method: str = "call"

    @property
    def name(self):
        """The owner's name, with `"/activation"` for its activation."""
        inside = _ACTIVATION if self.method == "activation" else ""
        return f"{self.owner.name}{inside}"

    @property
    def function(self):
        """What it computes, whatever stands in for it just now."""
        own = attributes_of(self.owner).get(self.method)
        if own is None:
            own = getattr(type(self.owner), self.method)
            return own.__get__(self.owner)
        return own

    @property
    def alone(self):
        """What it computes outside of its network: a layer brings tensors and
        weights to its own type first."""
        layer = self.method == "call" and isinstance(self.owner, keras.Layer)
        return self.owner if layer else self.function

    def replaced(self, function):
        """Within it, `function(inputs, *args, **kwargs)` is computed."""
        return replaced(
            [self.owner],
            self.method,
            lambda _, *args, **kwargs: function(*args, **kwargs),
        )


def parts_of(model):
    """Every `Part` of a Keras model, those inside of others first."""
    found = {}

    def visit(owner):
        for inner in [*_operations(owner), *getattr(owner, "_layers", ())]:
            if inner not in found:
                visit(inner)
                found[inner] = None

    visit(model)
    parts = []
    for owner in found:
        # Not a property: recurrent layers show their cell's.
        if callable(attributes_of(owner).get("activation")):
            parts.append(Part(owner, "activation"))
        parts.append(Part(owner))
    return parts


def parts_named(model, name):
    """The parts of this name.

    Raises:
        ValueError: If there is none.
    """
    parts = parts_of(model)
    found = [part for part in parts if part.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(part.name for part in parts))
        raise ValueError(
            "`surrogates` must name layers of the model, one of: "
            f"{names}. Received: {name!r}"
        )
    return found


def _operations(model):
    """A functional model's nodes, `keras.ops` among them."""
    graph = getattr(model, "_functional", None) or model
    return [
        operation
        for operation in getattr(graph, "operations", ())
        if not isinstance(operation, keras.layers.InputLayer)
    ]
