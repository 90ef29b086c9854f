"""A model's architecture with new weights, drawn from a seed."""

import keras
import numpy as np

from keras_qsn.classifier.rebuilt import CannotRebuild
from keras_qsn.classifier.rebuilt import from_config
from keras_qsn.layers import QuantLayer


def untrained(model, x, seed, quantized=True):
    """The same architecture, its weights as each layer would start them.

    Initializers get new seeds, all drawn from one. Layers without trainable
    weights (a `Normalization`, a frozen base) keep theirs. A subclassed model
    is built by a call with the images `x`. Quantization layers may be left
    out. Raises `CannotRebuild` where it cannot be made.
    """
    rng = np.random.default_rng(seed)
    made = {}

    def again(layer):
        if not isinstance(layer, keras.Layer):
            # An operation, such as `keras.ops.add`: it holds nothing.
            return layer
        if getattr(layer, "outputs", None):
            if isinstance(layer, keras.Sequential):
                # Its graph alone: a clone would bring its loss along.
                ends = layer.inputs[0], layer.outputs[0]
                layer = keras.Model(*ends, name=layer.name)
            return keras.models.clone_model(layer, clone_function=again)
        if isinstance(layer, QuantLayer) and not quantized:
            return keras.layers.Identity(name=layer.name)
        if layer not in made:
            made[layer] = from_config(layer)
            _reseed(made[layer], rng)
        return made[layer]

    try:
        new = again(model)
        new(x, training=False)
        for pair in made.items():
            for old, layer in zip(*map(_parts, pair), strict=True):
                _keep_what_is_not_trained(old, layer)
    # Any: a configuration runs code of the user's.
    except Exception as error:
        reason = " ".join(str(error).strip().split("\n\n")[0].split())
        raise CannotRebuild(
            f"{type(model).__name__} '{model.name}' cannot be made from its "
            f"configuration ({reason})"
        ) from error
    if not quantized:
        _open_quantizers(new)
    return new


def restart(model, seed):
    """Set layers that draw random numbers to the start of a seed's sequence."""
    rng = np.random.default_rng(seed)
    for layer in _parts(model):
        for value in vars(layer).values():
            if isinstance(value, keras.random.SeedGenerator):
                value.state.assign([int(rng.integers(2**31)), 0])


def _parts(layer):
    """The layer and all layers inside it."""
    return [*layer._flatten_layers()]


def _reseed(layer, rng):
    """Give new seeds to the initializers of a layer that is not built yet."""
    for part in _parts(layer):
        for name, value in [*vars(part).items()]:
            if not isinstance(value, keras.initializers.Initializer):
                continue
            config = value.get_config()
            if "seed" in config:
                config["seed"] = int(rng.integers(2**31))
                setattr(part, name, type(value).from_config(config))


def _keep_what_is_not_trained(old, layer):
    layer.trainable = old.trainable
    moving = isinstance(old, keras.layers.BatchNormalization)
    if not old.trainable or not (old.trainable_weights or moving):
        store = {}
        old.save_own_variables(store)
        layer.load_own_variables(store)


def _open_quantizers(model):
    """Make quantizers inside layers of the user's own the identity."""
    for part in _parts(model):
        if isinstance(part, QuantLayer):
            part.trainable = False
            part.call = lambda inputs, **_: inputs
