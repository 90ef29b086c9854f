"""Bounded ReLU and Gaussian data augmentation, made to be used together."""

import keras
import numpy as np

from keras_qsn._core.numbers import check_count
from keras_qsn.classifier.rebuilt import from_config
from keras_qsn.defenses.rewriting import check_model

# How Keras names the layer in a config.
_RELU = ("keras.layers", "ReLU")


def with_bounded_relu(model, max_value=1.0):
    """The same network with every ReLU bounded: `min(max(x, 0), t)`.

    A bounded ReLU (BReLU) with `t = max_value` lets no perturbation grow
    beyond `t` from one layer to the next. It is `keras.layers.ReLU(t)`, which
    takes the place of each `ReLU` layer and of each `"relu"` activation, also
    those of layers and models inside others. A `ReLU` layer that is bounded
    lower already keeps its bound.

    The copy has the weights of `model`, but is no longer trained: its
    accuracy drops wherever activations were above `t`. Compile and fit it, as
    the paper does from the start.

    Args:
        model: Keras model that can be saved: Sequential, functional, or of a
            class with a `get_config`; its layers built in or registered. Of a
            `QuSecNet` give the `model` inside.
        max_value: Float > 0, the bound `t`. Defaults to `1.0` (recalled from
            the paper, not verified).

    Returns:
        A new model, not compiled, that loads without custom objects where
        `model` does. `model` is left as it is.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it has no ReLU, or `max_value` is out of range.

    Example:

    >>> model = with_bounded_relu(cleverhans_cnn(seed=0))
    >>> [q.activation.max_value for q in model.layers[:3]]
    [1.0, 1.0, 1.0]

    Limitations:
        Not seen: a ReLU called as a function (`keras.ops.relu`, a `Lambda`,
        inside a layer of your own) and other activations. As a defence it is
        broken: Carlini and Wagner (2017) defeat it, with Gaussian data
        augmentation, at slightly larger distortion. Where all activations sit
        at the bound its gradient is zero: distrust FGSM and PGD alone.

    Reference:
        - Zantedeschi et al., 2017: https://arxiv.org/abs/1707.06728
        - Carlini and Wagner, 2017: https://arxiv.org/abs/1711.08478
    """
    check_model(model)
    if not 0 < max_value < float("inf"):
        raise ValueError(
            "`max_value` must be a finite number above 0. "
            f"Received: max_value={max_value}"
        )
    config = model.get_config()
    bounded = _bounded(config, float(max_value))
    if bounded == config:
        raise ValueError(
            "`model` must have a ReLU to be bounded: a `ReLU` layer or an "
            f"activation 'relu'. Received: model '{model.name}' without one "
            f"above {max_value}. A ReLU called as a function is not seen: "
            "make it a `keras.layers.ReLU()`."
        )
    copy = from_config(model, **bounded)
    copy.set_weights(model.get_weights())
    return copy


def gaussian_augmentation(x, y, sigma=0.3, copies=10, seed=0, clip=(0.0, 1.0)):
    """Images and noisy copies of them, with the original labels.

    Copy `j` of image `i` is `clip(x_i + n_ij)` with `n_ij ~ N(0, sigma^2)`
    for each pixel. First come the images, then one whole copy after the
    other: shuffle (`fit` does).

    Args:
        x: Float images, shape `(images, ...)`.
        y: Their labels, shape `(images,)` or one-hot.
        sigma: Float >= 0, standard deviation of the noise in pixel units.
            Defaults to `0.3` for MNIST; CIFAR-10 takes 0.05 (both recalled
            from the paper, not verified).
        copies: Integer >= 0, noisy copies of each image. Defaults to `10`
            (recalled from the paper, not verified).
        seed: Integer. Decides the noise.
        clip: Pair of floats, the pixel range kept; `None` for none. Defaults
            to `(0, 1)`.

    Returns:
        Images of shape `((copies + 1) * images, ...)` and their labels, as
        NumPy arrays of the dtypes given. Beside them, memory holds a few
        times `x`.

    Raises:
        TypeError: If the images are not floating-point numbers.
        ValueError: If an argument is out of range, images and labels do not
            fit, or a pixel is NaN or outside `clip`.

    Example:

    >>> x, y = np.full((5, 28, 28, 1), 0.5, "float32"), np.arange(5)
    >>> x_noisy, y_noisy = gaussian_augmentation(x, y, copies=2)
    >>> x_noisy.shape, y_noisy[5:10].tolist()
    ((15, 28, 28, 1), [0, 1, 2, 3, 4])

    Limitations:
        Smooths the network around the training images; no attack is seen in
        training, and none is stopped for good: Carlini and Wagner (2017)
        defeat it, with `with_bounded_relu`, at slightly larger distortion.

    Reference:
        - Zantedeschi et al., 2017: https://arxiv.org/abs/1707.06728
        - Carlini and Wagner, 2017: https://arxiv.org/abs/1711.08478
    """
    x, y = np.asarray(x), np.asarray(y)
    if not np.issubdtype(x.dtype, np.floating):
        raise TypeError(
            f"`x` must hold floating-point images. Received: dtype={x.dtype}. "
            'Convert them first, for example `x.astype("float32") / 255`.'
        )
    if x.ndim == 0 or y.shape[:1] != x.shape[:1]:
        raise ValueError(
            "`x` and `y` must have one label for each image. Received: "
            f"x.shape={x.shape}, y.shape={y.shape}"
        )
    if not 0 <= sigma < float("inf"):
        raise ValueError(
            f"`sigma` must be a finite number >= 0. Received: sigma={sigma}"
        )
    copies = check_count("copies", copies, 0)
    low, high = (-np.inf, np.inf) if clip is None else clip
    if not ((x >= low) & (x <= high)).all():
        raise ValueError(
            f"`x` must lie in `clip`. Received: clip={clip} and pixels from "
            f"{x.min():.6g} to {x.max():.6g}. Rescale the images, or say "
            "what range they have; `sigma` is in the same units."
        )
    rng = np.random.default_rng(seed)
    kind = np.float64 if x.dtype == np.float64 else np.float32
    images = np.empty((copies + 1, *x.shape), x.dtype)
    images[0] = x
    for noisy in images[1:]:
        noise = sigma * rng.standard_normal(x.shape, kind)
        noisy[:] = np.clip(x + noise, low, high)
    return images.reshape(-1, *x.shape[1:]), np.concatenate([y] * (copies + 1))


def _bounded(config, max_value):
    """A model's config with each ReLU in it bounded."""
    if isinstance(config, (list, tuple)):
        return type(config)(_bounded(part, max_value) for part in config)
    if not isinstance(config, dict):
        return config
    if (config.get("module"), config.get("class_name")) == _RELU:
        bound = config["config"]["max_value"]
        bound = max_value if bound is None else min(bound, max_value)
        return {**config, "config": {**config["config"], "max_value": bound}}
    return {
        key: _brelu(max_value, config.get("dtype"))
        if key.endswith("activation") and value == "relu"
        else _bounded(value, max_value)
        for key, value in config.items()
    }


def _brelu(max_value, dtype):
    """The config of a bounded ReLU, in the precision of its layer."""
    layer = keras.layers.ReLU(max_value, name="bounded_relu", dtype=dtype)
    return keras.saving.serialize_keras_object(layer)
