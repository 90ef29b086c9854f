"""What a Keras model is made of, as it is now: layers, settings, variables.

A compiled function holds the graph it was traced from. It is good for as long
as the structure is the same, whatever the values of the weights.
"""

import itertools
import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.tracing import attributes_of

# What training and bookkeeping leave on any model; nothing of it is computed.
_BOOKKEEPING = {
    *vars(keras.layers.Layer(name="bare")),
    *vars(keras.Model(name="bare")),
    "_compile_config",
    "_compiled_trainable_state",
    "_epoch_iterator",
    "_eval_epoch_iterator",
    "history",
    "loss",
    "loss_weights",
    "metrics",
    "optimizer",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
}
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_KNOWN_BY_PLACE = (keras.Layer, keras.Variable, tf.Variable)
# Objects met so far by `id`: a weak reference, and a number of their own.
_MET = {}
_NUMBERS = itertools.count()


def structure_of(model):
    """A hashable value that changes when the model computes something else.

    Covers every layer's class, `call`, settings (plain values, functions,
    arrays), dtype policy and variables (which, not their values), and how
    layers are connected.

    Args:
        model: Keras model.

    Returns:
        A tuple of plain values, to be compared within this process.

    Limitations:
        A setting hidden in an object that is no layer, or a global that a
        layer reads, is not seen.
    """
    return tuple(_layer(layer) for layer in model._flatten_layers())


def _layer(layer):
    settings = {
        name: _plain(value)
        for name, value in attributes_of(layer).items()
        if name not in _BOOKKEEPING and not name.startswith("_self_")
    }
    kind = type(layer)
    return (
        _number(layer),
        _number(kind),
        _number(getattr(kind, "call", None)),
        layer.dtype_policy.name,
        tuple(sorted(settings.items())),
        tuple(_number(variable) for variable in layer.weights),
        # A graph that was built anew has other tensors.
        tuple(_number(t) for t in getattr(layer, "outputs", None) or ()),
    )


def _plain(value):
    """A setting as something hashable; what it cannot be told by, is left."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return repr([_plain(item) for item in value])
    if isinstance(value, dict):
        return repr([(repr(k), _plain(v)) for k, v in value.items()])
    if isinstance(value, np.ndarray):
        return repr((value.shape, hash(value.tobytes())))
    if isinstance(value, tf.Tensor) and hasattr(value, "numpy"):
        return _plain(np.asarray(value.numpy()))
    if isinstance(value, _KNOWN_BY_PLACE) or callable(value):
        return repr(_number(value))
    return type(value).__qualname__


def _number(value):
    """A number that no other object has or had: an `id` is given again."""
    place = id(value)
    if place not in _MET:
        try:
            alive = weakref.ref(value, lambda _: _MET.pop(place, None))
        except TypeError:
            # Built in, for good.
            return repr(place)
        _MET[place] = alive, next(_NUMBERS)
    return _MET[place][1]
