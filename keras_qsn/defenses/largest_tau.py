"""How far gradient inhibition may go before clean accuracy pays."""

import numpy as np

from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_positive
from keras_qsn._core.numbers import check_share
from keras_qsn.classifier.inputs import as_arrays
from keras_qsn.classifier.inputs import check_images
from keras_qsn.classifier.inputs import check_labels
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.defenses.gradient_inhibition import dense_layers
from keras_qsn.defenses.gradient_inhibition import inhibit_gradients
from keras_qsn.defenses.gradient_inhibition import inhibited
from keras_qsn.defenses.gradient_inhibition import stored

# Steps of the way up in each decade, from this share of the largest.
_PER_DECADE = 8
_FIRST = 1e-4
# Halvings of the step in which the accuracy falls too far.
_HALVINGS = 6


def largest_tau(
    model, x, y, max_drop=0.01, spread=0.0, max_tau=10.0, batch_size=128
):
    """The largest `tau` of `inhibit_gradients` that clean accuracy bears.

    Accuracy on the images given is measured for a rising `tau`, 8 steps a
    decade from `max_tau / 10,000` on, up to the first that costs more than
    `max_drop`; the last step is then halved 6 times. Of the `tau`s that were
    measured below the one returned, none costs more. Where the network draws
    `tau` at random, its largest draw, `tau (1 + spread)`, is what is measured.

    Args:
        model: As for `inhibit_gradients`, trained.
        x: Held-out images, an array or a batched `tf.data.Dataset` of images
            and labels: neither those of training nor those of an evaluation.
        y: Their classes, integers or one-hot; `None` with a dataset.
        max_drop: Float from 0 to 1, the share of the images that may be lost,
            beside those gained. Defaults to `0.01`, ours: one point.
        spread: As for `inhibit_gradients`. Defaults to `0`, plain.
        max_tau: Float > 0, where the search ends: once `tau` is far above all
            weights only their signs count, and more changes nothing. Defaults
            to `10.0`.
        batch_size: Integer >= 1. Images at once. Defaults to `128`.

    Returns:
        A float, no more than `max_tau`; `0.0` where none that was measured is
        borne.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it has no dense layer, images or labels do not fit, or
            another argument is out of range.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> weights = np.array([[0.5, 0.1], [0.0, 0.1]]), np.array([0.0, 0.0])
    >>> model.set_weights(weights)
    >>> x, y = np.array([[1.0, 0.5], [0.0, 1.0]]), np.array([0, 1])
    >>> round(largest_tau(model, x, y, max_drop=0.0), 1)
    0.7

    Limitations:
        The accuracy need not fall all the way: a larger `tau` beyond the
        first drop may be borne again. It says nothing of robustness.

    Reference:
        - Liu et al., 2023: https://doi.org/10.1109/TNNLS.2021.3089128
          (reconstruction: how the paper chooses is unknown)
    """
    dense_layers(model)
    max_drop = check_share("max_drop", max_drop)
    spread = check_share("spread", spread)
    max_tau = check_positive("max_tau", max_tau)
    batch_size = check_count("batch_size", batch_size)
    wrapper = KerasModelWrapper.of(model)
    x, y = as_arrays(x, y)
    x = check_images(x, -np.inf, np.inf, wrapper)
    y = check_labels(y, len(x), wrapper.num_classes)
    copy = inhibit_gradients(model, 0.0)
    weights = [stored(layer) for layer in dense_layers(copy)]
    start = [weight.numpy() for weight in weights]
    wrapper = KerasModelWrapper.of(copy)

    def right(tau):
        for weight, value in zip(weights, start):
            weight.assign(inhibited(value, tau * (1 + spread)))
        return int((wrapper.predict(x, batch_size) == y).sum())

    # With room for the rounding of the product: 0.29 of 100 are 29.
    least = right(0.0) - int(max_drop * len(x) + 1e-9)
    steps = int(round(-np.log10(_FIRST) * _PER_DECADE))
    good = 0.0
    for step in range(steps + 1):
        tau = max_tau * 10 ** ((step - steps) / _PER_DECADE)
        if right(tau) < least:
            return _between(good, tau, lambda tau: right(tau) >= least)
        good = tau
    return good


def _between(good, bad, fits):
    """The largest value that fits, of those that halving tries."""
    for _ in range(_HALVINGS):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good
