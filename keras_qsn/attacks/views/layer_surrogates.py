"""Another gradient through layers that hide theirs."""

import contextlib

import keras
import tensorflow as tf

from keras_qsn._core.config import plain
from keras_qsn.attacks.views.base import View
from keras_qsn.classifier.parts import parts_named


class LayerSurrogates(View):
    """The same logits, with other gradients through the layers named.

    Forward, each layer `f` as it is; backward, that of its surrogate `s`:
    `y = f(x)`, `dy/dx = ds/dx` (BPDA).

    Args:
        surrogates: `{layer name: surrogate}`. A surrogate is a function or a
            Keras layer, from what the layer is given to the shape of what it
            makes of it; `"identity"`; or `"own"`, the layer's method
            `surrogate`. `"name/activation"` is the activation inside the
            layer `name`.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Lambda(tf.round, name="rounding"),
    ...     keras.layers.Dense(3),
    ... ])
    >>> view = LayerSurrogates({"rounding": "identity"})
    >>> attack = ViewedAttack(FastGradientMethod(eps=0.1), view)
    >>> attack.run(model, np.full((2, 4), 0.5, "float32")).blind
    array([False, False])

    Limitations:
        A surrogate points the right way only on average. Where one is far
        from its layer, such as the identity for one that turns brightness
        around, it misleads: give another.

    Reference:
        - Athalye et al., 2018: https://arxiv.org/abs/1802.00420
    """

    threat = "adaptive"

    def __init__(self, surrogates):
        if not isinstance(surrogates, dict):
            raise TypeError(
                "`surrogates` must be a dictionary, {layer name: surrogate}. "
                f"Received: surrogates={surrogates!r}"
            )
        for name, surrogate in surrogates.items():
            check_surrogate(name, surrogate)
        self.surrogates = dict(surrogates)

    def get_config(self):
        return {"surrogates": {k: _told(v) for k, v in self.surrogates.items()}}

    @property
    def key(self):
        # The surrogates themselves: two networks may have one name.
        return type(self), tuple(self.surrogates.items())

    def see(self, logits_fn, wrapper):
        pairs = [
            (part, _calling(part, surrogate))
            for name, surrogate in self.surrogates.items()
            for part in parts_named(wrapper.network, name)
        ]

        def seen(x):
            with contextlib.ExitStack() as stack:
                for part, call in pairs:
                    stack.enter_context(part.replaced(call))
                return logits_fn(x)

        return seen


def check_surrogate(name, surrogate):
    """Refuse what is no surrogate."""
    if not (callable(surrogate) or surrogate in ("identity", "own")):
        raise TypeError(
            "A surrogate must be a function, a Keras layer, 'identity' or "
            "'own', the layer's method `surrogate`. Received: "
            f"{surrogate!r} for '{name}'"
        )


def surrogate_function(part, surrogate):
    """A surrogate as a function of what the part is given.

    Raises:
        ValueError: If the layer has none of its own.
    """
    if surrogate == "identity":
        return lambda inputs: inputs
    if surrogate != "own":
        return surrogate
    own = getattr(part.owner, "surrogate", None)
    if not callable(own):
        raise ValueError(
            f"'{part.name}' must have a method `surrogate(inputs)`, for "
            f"'own'. Received: a {type(part.owner).__name__} without one. "
            "Give a function, a Keras layer or 'identity'."
        )
    return own


def _calling(part, surrogate):
    function, stand_in = part.function, surrogate_function(part, surrogate)

    def call(inputs, *args, **kwargs):
        made = function(inputs, *args, **kwargs)
        y = tf.stop_gradient(made)
        if not tf.is_tensor(y) or not y.dtype.is_floating:
            return made
        other = tf.cast(stand_in(inputs), y.dtype)
        if not y.shape.is_compatible_with(other.shape):
            raise ValueError(
                f"The surrogate of '{part.name}' must make what it makes, of "
                f"shape {tuple(y.shape)}. Received: a surrogate that makes "
                f"{tuple(other.shape)}"
            )
        # A zero that carries the gradient: the forward value is exact.
        return y + (other - tf.stop_gradient(other))

    return call


def _told(surrogate):
    if isinstance(surrogate, keras.Layer):
        return f"{type(surrogate).__name__} '{surrogate.name}'"
    return plain(surrogate)
