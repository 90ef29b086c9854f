"""Attacks of the checks, run step by step on compiled logits.

A check attacks few images, and a large network costs more to build into an
attack than such an attack takes. So the network and its gradient alone are
compiled, once for all checks, and what is around them is not.
"""

import functools

import numpy as np
import tensorflow as tf

from keras_qsn.attacks.losses import gradient_of
from keras_qsn.attacks.running import compiled_gradient
from keras_qsn.classifier.compiled import compiled_logits


class SharedView:
    """A view's logits, differentiated outside of any graph.

    By default of the model's logits; another view, a function from images to
    a tensor, comes with a hashable key, the same for the same view.
    """

    def __init__(self, wrapper, shape, key="logits", view=None):
        self._parts = wrapper, tuple(shape), key, view
        self._forward = compiled_logits(*self._parts)

    def __call__(self, x):
        return self._with_gradient(x)

    def gain_gradient(self, x, labels, of_margin):
        """Gradient of the attacker's gain, and logits, as attacks ask it of
        a view that has it."""
        return self._gain_gradient(x, labels, tf.constant(of_margin))

    @functools.cached_property
    def _gain_gradient(self):
        return compiled_gradient(*self._parts)

    @property
    def _with_gradient(self):
        @tf.custom_gradient
        def call(x):
            def gradient(upstream, variables=()):
                slope = self._backward(x, upstream)
                return (slope, [None] * len(variables)) if variables else slope

            return self._forward(x), gradient

        return call

    @functools.cached_property
    def _backward(self):
        """Compiled where an attack asks for more than `gain_gradient`."""
        wrapper, shape, key, _ = self._parts

        def pull_back(x, upstream):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                y = self._forward(x)
            return gradient_of(tape, y, x, upstream)

        def compiled():
            given, made = self._forward.inputs[0], self._forward.outputs[0]
            traced = tf.function(pull_back, autograph=False)
            return traced.get_concrete_function(
                tf.TensorSpec(given.shape, given.dtype),
                tf.TensorSpec(made.shape, made.dtype),
            )

        return wrapper.compiled(("checks", key, shape), compiled)


def crafted(attack, view, x, labels, batches, *others, index=None):
    """The images that an attack makes of `x`.

    Args:
        attack: An `Attack`.
        view: Function from a batch of each of `others` to what the attack
            sees: a compiled function from images to logits, or what calls it.
        x: Images.
        labels: Their classes.
        batches: List of slices.
        *others: Float arrays with an entry for each image.
        index: Integers that, with the attack's seed, decide each image's
            start. Defaults to `None`: 0, 1, 2, ...

    Returns:
        A NumPy array like `x`.
    """
    index = np.arange(len(x)) if index is None else index
    seeds = np.stack([np.full(len(x), attack.seed), index], 1)
    made = np.empty_like(x)
    for batch in batches:
        made[batch] = attack.craft(
            view(*(tf.constant(other[batch]) for other in others)),
            tf.constant(x[batch]),
            tf.constant(labels[batch], tf.int32),
            tf.constant(attack.eps or 0.0, tf.float32),
            tf.constant(seeds[batch], tf.int32),
        )
    return made
