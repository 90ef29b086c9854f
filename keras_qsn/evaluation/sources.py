"""Models to transfer examples from, trained for an evaluation."""

import os
import pathlib

import keras
import numpy as np

from keras_qsn.attacks.substitute import substitute_mlp
from keras_qsn.attacks.substitute import train_substitute
from keras_qsn.datasets import ShuffledBatches
from keras_qsn.evaluation.plans import is_quantized
from keras_qsn.layers import QuantLayer

# Enough for examples to carry over; accuracy is not what these are for.
_EPOCHS = {"quick": 3, "standard": 4, "full": 10}
_IMAGES = {"quick": 4000, "standard": 12000, "full": None}
_BATCH_SIZE = 128
_SEED_IMAGES = 150


def trained_sources(wrapper, x, y, plan, seed, folder=None, tell=None):
    """The models that a named plan transfers examples from.

    `twin`: the network attacked without its quantizers, trained anew.
    `sibling`: the network attacked, trained anew from another seed.
    `substitute`: a small network taught by the model's answers, with Jacobian
    augmentation. A model without quantizers has no twin, and the quick plan
    only the first there is.

    Args:
        wrapper: `KerasModelWrapper` of the model attacked.
        x: Training images.
        y: Their class numbers.
        plan: Name of the plan.
        seed: Integer.
        folder: Optional folder that keeps the models.
        tell: Optional function called with a name, the number of epochs
            done, and their count.

    Returns:
        `{name: model}`.
    """
    model = wrapper.model
    makers = {}
    if is_quantized(model):
        makers["twin"] = lambda tell: _retrained(
            wrapper, x, y, plan, seed + 1, False, tell
        )
    makers["sibling"] = lambda tell: _retrained(
        wrapper, x, y, plan, seed + 2, True, tell
    )
    makers["substitute"] = lambda tell: _substitute(wrapper, x, seed, tell)
    if plan == "quick":
        makers = dict([next(iter(makers.items()))])
    return {
        name: _kept(folder, name, make, tell) for name, make in makers.items()
    }


def _kept(folder, name, make, tell):
    """The model out of the folder; made, and put there, at the first time."""

    def epoch(done, total):
        if tell is not None:
            tell(f"training {name}", done, total)

    if folder is None:
        return make(epoch)
    path = pathlib.Path(folder) / f"{name}.keras"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part-{name}.keras")
        make(epoch).save(part)
        os.replace(part, path)
    return keras.models.load_model(path)


def _retrained(wrapper, x, y, plan, seed, quantized, tell):
    """The architecture with new weights, fitted to the labels."""

    def clone(layer):
        if isinstance(layer, QuantLayer) and not quantized:
            return keras.layers.Identity(name=layer.name)
        return type(layer).from_config(layer.get_config())

    # Recursive: a quantizer may sit in a model inside the model.
    model = keras.models.clone_model(
        wrapper.model, clone_function=clone, recursive=True
    )
    _initialize(model, wrapper.model, seed)
    count = _IMAGES[plan]
    batches = ShuffledBatches(x[:count], y[:count], _BATCH_SIZE, seed)
    probabilities = not np.array_equal(
        wrapper(x[:1]), wrapper.model(x[:1], training=False)
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=not probabilities
        ),
    )
    epochs = _EPOCHS[plan]
    model.fit(
        batches,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: tell(epoch + 1, epochs)
            )
        ],
    )
    return model


def _initialize(model, original, seed):
    """New kernels from the seed; thresholds as they start; the rest as is."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if variable.name == "kernel" or len(variable.shape) > 3:
            draw = keras.initializers.GlorotUniform(int(rng.integers(2**31)))
            variable.assign(draw(variable.shape))


def _substitute(wrapper, x, seed, tell):
    """Taught on few images, as a stranger would have."""
    model = substitute_mlp(
        x.shape[1:], int(wrapper(x[:1]).shape[-1]), seed=seed
    )
    train_substitute(
        wrapper,
        x[:_SEED_IMAGES],
        model,
        clip_min=min(0.0, float(x.min())),
        clip_max=float(x.max()),
        seed=seed,
        verbose=0,
    )
    tell(1, 1)
    return model
