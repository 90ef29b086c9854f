"""Models to transfer examples from, trained for an evaluation."""

import functools
import warnings

import keras
import numpy as np

from keras_qsn._core.precision import fast_dtype
from keras_qsn._core.precision import low_precision
from keras_qsn.attacks.transfer.substitute import substitute_mlp
from keras_qsn.attacks.transfer.substitute import train_substitute
from keras_qsn.classifier.rebuilt import CannotRebuild
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.datasets import ShuffledBatches
from keras_qsn.datasets import seeded_subset
from keras_qsn.evaluation.untrained import restart
from keras_qsn.evaluation.untrained import untrained

# Enough for examples to carry over; accuracy is not what these are for.
_EPOCHS = {"quick": 3, "standard": 4, "full": 10}
_IMAGES = {"quick": 2000, "standard": 12000, "full": None}
_BATCH_SIZE = 128
_SEED_IMAGES = 150


def trained_sources(wrapper, x, y, plan, seed, folder, progress):
    """The models that a named plan transfers examples from.

    `twin`: the network attacked without its quantizers, trained anew.
    `sibling`: the network attacked, trained anew from another seed.
    `substitute`: a small network taught by the model's answers, with Jacobian
    augmentation. A model without quantizers has no twin, and the quick plan
    only the first that can be made. Where the model's configuration does not
    make the model again, a twin and a sibling are missing; a warning says so.

    Returns:
        `{name: KerasModelWrapper}`, and `{name: why}` of those missing.
    """
    makers = {
        "twin": lambda: untrained(wrapper.model, x[:1], seed + 1, False),
        "sibling": lambda: untrained(wrapper.model, x[:1], seed + 2),
        "substitute": lambda: substitute_mlp(
            x.shape[1:], wrapper.num_classes, seed=seed
        ),
    }
    if wrapper.answers_only:
        del makers["twin"], makers["sibling"]
    elif not wrapper.quantizers:
        del makers["twin"]
    teachers = {
        "twin": functools.partial(_fit, wrapper, x, y, plan, seed + 1),
        "sibling": functools.partial(_fit, wrapper, x, y, plan, seed + 2),
        "substitute": functools.partial(_teach, wrapper, x, y, seed),
    }
    trained, missing = {}, {}
    for name, make in makers.items():
        try:
            model = make()
        except CannotRebuild as error:
            missing[name] = str(error)
            continue
        # What is transferred from it is told by the name of its source.
        model.name = name
        _train(model, name, teachers[name], folder, progress)
        restart(model, seed)
        # The architecture attacked ends as the model attacked does.
        ends = None if name == "substitute" else wrapper.from_logits
        trained[name] = KerasModelWrapper(model, ends)
        if plan == "quick":
            break
    if missing:
        warnings.warn(
            f"No {' and no '.join(missing)} to transfer examples from: "
            f"{[*missing.values()][0]}. Give other models as `sources`.",
            stacklevel=3,
        )
    return trained, missing


def _train(model, name, teach, folder, progress):
    """Give a model the weights out of the folder; trained the first time."""
    kept = folder.get(f"{name}.npz")
    if kept is not None:
        model.set_weights([kept[str(i)] for i in range(len(kept))])
        return
    teach(model, functools.partial(progress, f"training {name}"))
    weights = {str(i): w for i, w in enumerate(model.get_weights())}
    folder.put(f"{name}.npz", weights)


def _fit(wrapper, x, y, plan, seed, model, progress):
    """Fitted to the labels."""
    restart(model, seed)
    model.compile(keras.optimizers.Adam(1e-3), _loss(wrapper, x))
    epochs = _EPOCHS[plan]
    # Examples carry over from rounded products as well.
    with low_precision(model, fast_dtype()):
        model.fit(
            ShuffledBatches(
                *seeded_subset(x, y, _IMAGES[plan], seed), _BATCH_SIZE, seed
            ),
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_epoch_end=lambda epoch, logs: progress(epoch + 1, epochs)
                )
            ],
        )


def _loss(wrapper, x):
    """Cross-entropy of what the model attacked returns."""
    scores = np.asarray(wrapper.model(x[:_BATCH_SIZE], training=False))
    logits = np.asarray(wrapper(x[:_BATCH_SIZE]))
    one = scores.shape[-1] == 1
    # Noise moves logits too, but does not make them sum to one.
    probabilities = (
        not np.array_equal(logits[:, -scores.shape[-1] :], scores)
        and ((scores >= 0) & (scores <= 1)).all()
        and (one or np.allclose(scores.sum(-1), 1, atol=1e-2))
    )
    kind = (
        keras.losses.BinaryCrossentropy
        if one
        else keras.losses.SparseCategoricalCrossentropy
    )
    return kind(from_logits=not probabilities)


def _teach(wrapper, x, y, seed, model, progress):
    """Taught by answers on few images, as a stranger would have."""
    images, _ = seeded_subset(x, y, _SEED_IMAGES, seed)
    train_substitute(
        wrapper,
        images,
        model,
        clip_min=min(0.0, float(x.min())),
        clip_max=float(x.max()),
        seed=seed,
        verbose=0,
    )
    progress(1, 1)
