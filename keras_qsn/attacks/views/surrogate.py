"""Another gradient through the quantizers of a model."""

import tensorflow as tf

from keras_qsn._core.numbers import check_positive
from keras_qsn._core.tracing import replaced
from keras_qsn.attacks.views.base import View
from keras_qsn.classifier.opened import quantizers_of


class Surrogate(View):
    """The same logits, with another gradient through the quantizers.

    Args:
        steepness: Float > 0, or a scalar tensor: that of a soft quantizer
            whose gradient is used. Defaults to `None`: the identity's.
    """

    threat = "adaptive"

    def __init__(self, steepness=None):
        if not (steepness is None or tf.is_tensor(steepness)):
            steepness = check_positive("steepness", steepness)
        self.steepness = steepness

    @property
    def numbers(self):
        return () if self.steepness is None else ("steepness",)

    def see(self, logits_fn, wrapper):
        layers = quantizers_of(wrapper)

        def call(layer, inputs, **_):
            x = tf.cast(inputs, layer.variable_dtype)
            y = tf.stop_gradient(type(layer).call(layer, inputs))
            if self.steepness is None:
                surrogate = layer.surrogate(x)
            else:
                surrogate = _soft(layer, x, self.steepness)
            # A zero that carries the gradient: the forward value is exact.
            surrogate -= tf.stop_gradient(surrogate)
            return y + tf.cast(surrogate, y.dtype)

        def seen(x):
            with replaced(layers, "call", call):
                return logits_fn(x)

        return seen


class AnnealedSurrogate(View):
    """A soft `Surrogate` that steepens in the course of a search.

    Of an attack that does not say how far it is, only the first is seen.
    """

    threat = "adaptive"
    numbers = ("first_steepness", "last_steepness")

    def __init__(self, first_steepness=2.0, last_steepness=50.0):
        self._keep_positive(
            first_steepness=first_steepness,
            last_steepness=last_steepness,
        )

    def at(self, share):
        ratio = self.last_steepness / self.first_steepness
        return Surrogate(self.first_steepness * ratio**share)

    def see(self, logits_fn, wrapper):
        return self.at(0.0).see(logits_fn, wrapper)


def _soft(layer, x, steepness):
    """The soft staircase by plain autodiff, for a steepness that varies."""
    low, high = layer.value_range
    unit = (x - low) / (high - low)
    thresholds = tf.convert_to_tensor(layer.thresholds)
    total = tf.zeros_like(x)
    for k in range(layer.num_thresholds):
        total += tf.sigmoid(steepness * (unit - thresholds[..., k]))
    return low + (high - low) * total / (layer.num_levels - 1)
