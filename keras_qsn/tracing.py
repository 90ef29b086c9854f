"""Changing what a model's layers compute while a function is traced.

The model is as before afterwards: its graph, its weights, its saved file.
"""

import contextlib
import functools

import keras


def layers_of(model):
    """All layers of a Keras model, those of models inside it included."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from layers_of(layer)


@contextlib.contextmanager
def replaced(layers, method, function):
    """Within it, `layer.method(*args)` is `function(layer, *args)`.

    Args:
        layers: Keras layers.
        method: Name of a method of theirs.
        function: What is called instead.
    """
    changed = set()
    for layer in layers:
        setattr(layer, method, functools.partial(function, layer))
        changed.add(layer)
    try:
        yield
    finally:
        for layer in changed:
            delattr(layer, method)


class LinearHead(keras.layers.Layer):
    """A `Dense` layer without its activation, on the same weights."""

    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def call(self, inputs):
        x = keras.ops.matmul(inputs, self.dense.kernel)
        return x if self.dense.bias is None else x + self.dense.bias


class TwoLogits(keras.layers.Layer):
    """The logits `[0, z]` of a classifier of two classes by one logit `z`."""

    def call(self, inputs):
        return keras.ops.concatenate([keras.ops.zeros_like(inputs), inputs], -1)
