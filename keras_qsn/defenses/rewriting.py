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

    Raises:
        ValueError: If the configuration does not tell one of them, as that of
            a subclass of `Model` or `Layer` does not tell those it makes.
    """
    waiting = {}
    for number, layer in enumerate(chosen):
        key = type(layer).__name__, layer.name
        waiting.setdefault(key, []).append(number)
    found = set()

    def walk(part):
        if isinstance(part, (list, tuple)):
            return type(part)(walk(inner) for inner in part)
        if not isinstance(part, dict):
            return part
        config = part.get("config")
        if isinstance(config, dict):
            key = part.get("class_name"), config.get("name")
            if key in waiting:
                # In models inside, two may have one name: they come in order.
                number, *others = waiting[key]
                waiting[key] = others or [number]
                found.add(number)
                return change(number, part)
        return {name: walk(value) for name, value in part.items()}

    config = walk(model.get_config())
    for number, layer in enumerate(chosen):
        if number not in found:
            raise ValueError(
                "All layers that are changed must be in the configuration of "
                "a Sequential or functional model. Received: model "
                f"'{model.name}', whose layer '{layer.name}' is made by the "
                "code of a subclass. Change it there, or build the model of "
                "layers."
            )
    return from_config(model, **config)


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


def check_kernels(layers):
    """Refuse layers whose kernel is not one variable of floats."""
    for layer in layers:
        for fails, what in (
            (layer.quantization_mode, "quantized"),
            (layer.lora_enabled, "adapted by LoRA"),
        ):
            if fails:
                raise ValueError(
                    "The layers that are changed must have a kernel of floats "
                    f"that is their own. Received: layer '{layer.name}', "
                    f"{what}. Change the model before it is {what}."
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
