"""Which Keras models are classifiers of images, vectors or sequences."""

import keras
import numpy as np

from keras_qsn.layers import QuantLayer

# What only a regression is trained on, where there is one output.
_REGRESSION = (
    "MeanSquaredError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredLogarithmicError",
    "Huber",
    "LogCosh",
    "mse",
    "mae",
    "mape",
    "msle",
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
)
# What reads whole numbers or text, where an image cannot move a little.
_TOKENS = (
    keras.layers.Embedding,
    keras.layers.Hashing,
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
)
_RANGES = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))


def as_classifier(model):
    """The Keras model itself; the one inside of a training wrapper.

    Raises:
        TypeError: If it is not a Keras model.
        ValueError: If it is none of one input of numbers and one output, or
            not built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    # A `QuSecNet` trains another model, which is what is deployed.
    model = getattr(model, "deployed_model", model)
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' must be built. Start it with "
            "`keras.Input(shape)`, or call it once on images."
        )
    if getattr(model, "outputs", None):
        _check_ends(model)
    elif not isinstance(_built_for(model), (tuple, list)):
        raise ValueError(
            f"The model '{model.name}' must take one tensor of images. "
            f"Received: a model built for {_built_for(model)}. Wrap it in a "
            "model of one input."
        )
    return model


def check_loss(model):
    """Refuse what is compiled as no classifier of one class an image.

    Raises:
        ValueError: If the compiled loss is a regression's on one output, or
            that of several yes-or-no answers.
    """
    loss = getattr(model, "loss", None)
    shape = getattr(model, "output_shape", None)
    if loss is None or not isinstance(shape, tuple):
        return
    name = loss if isinstance(loss, str) else _name(loss)
    if shape[-1] == 1 and name in _REGRESSION:
        raise ValueError(
            f"The model '{model.name}' must be a classifier. Received: one "
            f"output compiled with the loss {name}, a regression. Robustness "
            "is measured in classes: give a model that returns scores of them."
        )
    if shape[-1] != 1 and name in ("BinaryCrossentropy", "binary_crossentropy"):
        raise ValueError(
            f"The model '{model.name}' must choose one of its classes. "
            f"Received: {shape[-1]} outputs compiled with the loss {name}, "
            "each of which may say yes (multi-label). Train it with a "
            "categorical cross-entropy."
        )


def with_float_input(model):
    """The same layers from an input of floats, where it is of bytes."""
    if model.inputs[0].dtype != "uint8":
        return model
    return keras.models.clone_model(
        model,
        input_tensors=keras.Input(model.input_shape[1:]),
        clone_function=lambda layer: layer,
    )


def declared_range(layers):
    """The range of pixels that the first layers are made for, or `None`.

    A quantizer's `value_range`, taken back through a `Rescaling` before it;
    else, of a `Rescaling` that makes one common range of another, that other
    one.

    Args:
        layers: The model's layers in order.
    """
    scale = offset = None
    for layer in layers:
        if isinstance(layer, keras.layers.Rescaling) and scale is None:
            scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
        elif isinstance(layer, QuantLayer):
            if scale is None:
                return layer.value_range
            if scale.ndim or offset.ndim:
                return None
            ends = sorted((e - offset) / scale for e in layer.value_range)
            return tuple(float(np.float32(end)) for end in ends)
        elif not _changes_nothing(layer):
            break
    if scale is None or scale.ndim or offset.ndim:
        return None
    for given in _RANGES:
        made = np.sort(np.multiply(given, scale) + offset)
        for wanted in _RANGES:
            # Some rescale by 1/128, and miss the end by a 255th.
            near = np.abs(made - wanted) <= 0.01 * (wanted[1] - wanted[0])
            if wanted != given and near.all():
                return given
    return None


def _check_ends(model):
    # A Sequential model has one of each.
    ends = {
        "input": getattr(model, "_inputs_struct", model.inputs[0]),
        "output": getattr(model, "_outputs_struct", model.outputs[0]),
    }
    for what, tensor in ends.items():
        if isinstance(tensor, (list, tuple)) and len(tensor) == 1:
            tensor = tensor[0]
        if not isinstance(tensor, keras.KerasTensor):
            kind = type(tensor).__name__
            count = f" of {len(tensor)}" if hasattr(tensor, "__len__") else ""
            raise ValueError(
                f"A classifier must have one {what}, a tensor. Received: model "
                f"'{model.name}' whose {what} is a {kind}{count}. Make a "
                "`keras.Model` of the one that holds the "
                f"{'images' if what == 'input' else 'class scores'}."
            )
    given = model.inputs[0]
    readers = [
        operation
        for operation in getattr(model, "_functional", model).operations
        if any(
            given is tensor
            for node in operation._inbound_nodes
            for tensor in node.input_tensors
        )
    ]
    tokens = [layer for layer in readers if isinstance(layer, _TOKENS)]
    if tokens or not (
        given.dtype == "uint8" or given.dtype.startswith(("float", "bfloat"))
    ):
        reader = f" read by {type(tokens[0]).__name__}" if tokens else ""
        raise ValueError(
            f"The model '{model.name}' must take numbers that can change a "
            f"little. Received: an input of {given.dtype}{reader}. Give the "
            "part of the model behind it, which takes vectors."
        )


def _built_for(model):
    return (model.get_build_config() or {}).get("input_shape")


def _changes_nothing(layer):
    """In inference, to pixels."""
    kinds = (
        keras.layers.InputLayer,
        keras.layers.Identity,
        keras.layers.Dropout,
        keras.layers.GaussianNoise,
        keras.Model,
    )
    return isinstance(layer, kinds) or type(layer).__name__.startswith("Random")


def _name(loss):
    """The class of a Keras loss, or the name of a function."""
    return getattr(loss, "__name__", type(loss).__name__)
