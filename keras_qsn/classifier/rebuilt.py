"""A layer made again from its configuration."""

import inspect
import types

import keras


class CannotRebuild(Exception):
    """A model's configuration does not make the model again."""


def from_config(layer, **changes):
    """As the layer's own, without the safe mode that is meant for files.

    Args:
        layer: Keras layer.
        **changes: Entries of its configuration that are to be others.
    """
    own = {type(layer).__name__: type(layer)}
    for part in layer._flatten_layers():
        functions = [
            value
            for value in vars(part).values()
            if isinstance(value, types.FunctionType)
        ]
        for thing in (type(part), *functions):
            if not thing.__module__.startswith("keras."):
                own[thing.__name__] = thing
    config = {**layer.get_config(), **changes}
    accepted = inspect.signature(type(layer)).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        # In any configuration, but not in every constructor.
        for name in {"name", "trainable", "dtype"} - {*accepted}:
            config.pop(name, None)
    return keras.saving.deserialize_keras_object(
        {"class_name": type(layer).__name__, "config": config},
        custom_objects=own,
        safe_mode=False,
    )
