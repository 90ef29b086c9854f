"""The mean over draws of a model that answers at random."""

import itertools

import keras
import tensorflow as tf

from keras_qsn._core.tracing import replaced
from keras_qsn.attacks import steps
from keras_qsn.attacks.views.base import View


class Expectation(View):
    """The mean of the logits over draws of a random model.

    The draws are the same at each look, so that a search follows one
    function: draw `i` is that of `keras.random`'s generators with the seed
    folded out of `seed`, `i` and the number of the call.

    Args:
        draws: Integer >= 1. Defaults to `10`.
        seed: Integer, decides the draws. Defaults to `0`.
    """

    def __init__(self, draws=10, seed=0):
        self._keep_counts(draws=draws)
        self.seed = int(seed)

    def see(self, logits_fn, wrapper):
        def mean(x):
            (total,) = steps.repeat(
                lambda i, total: (
                    total + drawn(logits_fn, wrapper, [self.seed, i])(x),
                ),
                self.draws,
                (tf.zeros([tf.shape(x)[0], wrapper.num_classes]),),
            )
            return total / self.draws

        return mean


def drawn(logits_fn, wrapper, seed):
    """The logits of one draw of a random model.

    Args:
        logits_fn: Function from images to logits.
        wrapper: `KerasModelWrapper` of the model.
        seed: Two integers that decide the draw.
    """
    generators = {*_generators(wrapper.model)}

    def once(x):
        calls = itertools.count()

        def draw(generator, ordered=True):
            return tf.random.fold_in(seed, next(calls))

        with replaced(generators, "next", draw):
            return tf.cast(logits_fn(x), tf.float32)

    return once


def _generators(model):
    """The seed generators that the layers of a model hold."""
    for layer in model._flatten_layers():
        for value in vars(layer).values():
            for part in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(part, keras.random.SeedGenerator):
                    yield part
