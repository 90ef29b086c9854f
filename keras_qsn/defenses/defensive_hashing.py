"""The defensive hash classifier: hashed layers, then inhibited gradients."""

import keras

from keras_qsn._core.convolution import FastConv2D
from keras_qsn._core.numbers import check_count
from keras_qsn.defenses.gradient_inhibition import inhibit_gradients
from keras_qsn.defenses.hashing import HashedConv2D
from keras_qsn.defenses.hashing import HashedDense
from keras_qsn.defenses.largest_tau import largest_tau
from keras_qsn.defenses.rewriting import check_kernels
from keras_qsn.defenses.rewriting import check_model
from keras_qsn.defenses.rewriting import layers_inside
from keras_qsn.defenses.rewriting import replaced_by
from keras_qsn.defenses.rewriting import rewritten

# Of the very class: a subclass may compute something else.
_HASHED = {keras.layers.Dense: HashedDense}
_CONVOLUTIONS = {
    keras.layers.Conv2D: HashedConv2D,
    FastConv2D: HashedConv2D,
}


def with_hashed_layers(model, compression=1 / 8, convolutions=False, seed=0):
    """A network like this one with hashed layers, not trained.

    Every `Dense`, and with `convolutions` every `Conv2D`, becomes a
    `HashedDense` or a `HashedConv2D` of the same settings, also those of
    models and layers inside others.

    Args:
        model: Keras model that can be saved, its layers built in or
            registered. Of a `QuSecNet` give the `model` inside.
        compression: Float in `(0, 1]`, or a list of one for each layer that
            is hashed, in order. Defaults to `1 / 8`, ours.
        convolutions: Whether convolutions are hashed, too. Defaults to
            `False`, ours: the papers do not say.
        seed: Integer >= 0; the hashes of layer `i` are those of `seed + i`.
            Defaults to `0`.

    Returns:
        A new model, not compiled, with initial weights.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it has no such layer, or one that is quantized, adapted
            by LoRA, or made by the code of a subclass; or if an argument is
            out of range.

    Example:

    >>> model = with_hashed_layers(cleverhans_cnn(seed=0), convolutions=True)
    >>> [type(layer).__name__ for layer in model.layers[2:]]
    ['HashedConv2D', 'Flatten', 'HashedDense']

    Limitations:
        Smaller, but no defence by itself: see `HashedDense`.

    Reference:
        - Chen et al., 2015 (HashedNets): https://arxiv.org/abs/1504.04788
    """
    check_model(model)
    seed = check_count("seed", seed, 0)
    kinds = {**_HASHED, **(_CONVOLUTIONS if convolutions else {})}
    chosen = [q for q in layers_inside(model) if type(q) in kinds]
    if not chosen:
        names = " or ".join(dict.fromkeys(kind.__name__ for kind in kinds))
        raise ValueError(
            f"`model` must have a layer to be hashed, {names}. Received: "
            f"model '{model.name}' without one"
        )
    check_kernels(chosen)
    shares = compression
    if not isinstance(compression, (list, tuple)):
        shares = [compression] * len(chosen)
    if len(shares) != len(chosen):
        raise ValueError(
            "`compression` must be a number, or one for each layer that is "
            f"hashed, {', '.join(layer.name for layer in chosen)}. "
            f"Received: compression={compression}"
        )

    def change(number, part):
        own = {"compression": shares[number], "seed": seed + number}
        config = {**part["config"], **own}
        return replaced_by(kinds[type(chosen[number])], part, **config)

    return rewritten(model, chosen, change)


def defensive_hashing(
    model,
    fit,
    x,
    y,
    compression=1 / 8,
    convolutions=False,
    max_drop=0.01,
    spread=0.5,
    seed=0,
):
    """The whole framework: a hashed network, trained, gradients inhibited.

    `with_hashed_layers`, `fit`, then `inhibit_gradients` with the `tau` that
    `largest_tau` finds on held-out images. Reconstruction: the paper's
    abstract says that both are chained, not how; order and defaults are ours.

    Args:
        model: As for `with_hashed_layers`; its weights are not used.
        fit: Function of the hashed model, which compiles and trains it.
        x: Held-out images, as for `largest_tau`.
        y: Their classes; `None` with a dataset.
        compression: As for `with_hashed_layers`.
        convolutions: As for `with_hashed_layers`.
        max_drop: As for `largest_tau`.
        spread: As for `inhibit_gradients`; `0` for the plain variant.
            Defaults to `0.5`, randomised.
        seed: Integer >= 0, decides hashes and draws. Defaults to `0`.

    Returns:
        The defended model, not compiled, and its `tau`.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it has no dense layer, or an argument is out of range.

    Example:

    >>> x, y = np.eye(4, dtype="float32"), np.arange(4)
    >>> def fit(model):
    ...     model.compile("adam", "sparse_categorical_crossentropy")
    ...     model.fit(x, y, verbose=0)
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(4, "softmax")]
    ... )
    >>> model, tau = defensive_hashing(network, fit, x, y, max_drop=1.0)
    >>> model.layers[0].tau == tau == 10.0
    True

    Limitations:
        As for `inhibit_gradients`: attacks that follow the logits, in
        expectation where it draws, undo it.

    Reference:
        - Liu et al., 2023: https://doi.org/10.1109/TNNLS.2021.3089128
    """
    hashed = with_hashed_layers(model, compression, convolutions, seed)
    fit(hashed)
    tau = largest_tau(hashed, x, y, max_drop, spread)
    return inhibit_gradients(hashed, tau, spread, seed), tau
