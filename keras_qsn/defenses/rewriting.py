"""A model made again with other layers in the place of some."""

import keras

from keras_qsn.classifier.rebuilt import from_config


def rewritten(model, chosen, change):
    """The model made from its configuration, that of some layers changed.

    Args:
        model: Keras model, with a `get_config`.
        chosen: The layers, at any depth.
        change: Function from a layer's number among `chosen` and its
            serialized form, a dictionary with `"class_name"` and `"config"`,
            to what is to take its place.

    Returns:
        A new model, not compiled, with weights of its own.
    """
    numbers = {
        (type(layer).__name__, layer.name): number
        for number, layer in enumerate(chosen)
    }

    def walk(part):
        if isinstance(part, (list, tuple)):
            return type(part)(walk(inner) for inner in part)
        if not isinstance(part, dict):
            return part
        config = part.get("config")
        if isinstance(config, dict):
            key = part.get("class_name"), config.get("name")
            if key in numbers:
                return change(numbers[key], part)
        return {name: walk(value) for name, value in part.items()}

    return from_config(model, **walk(model.get_config()))


def layers_inside(layer):
    """The layers in a layer or model, at any depth, in order, each once."""
    found = {}
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        found |= dict.fromkeys([inner, *layers_inside(inner)])
    return [*found]


def check_model(model):
    """Refuse what is no Keras model."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model. "
            f"Received: {model!r} of type {type(model).__name__}"
        )


def replaced_by(kind, part, **config):
    """A serialized layer with another registered class and settings."""
    name = keras.saving.get_registered_name(kind)
    return {
        **part,
        "module": kind.__module__,
        "class_name": kind.__name__,
        "registered_name": name,
        "config": config,
    }
