"""A model's quantizers, opened for attacks: replaced, bypassed or read.

Everything is done while a function is traced; the model stays as it is.
"""

import numpy as np
import tensorflow as tf

from keras_qsn._core.tracing import layers_of
from keras_qsn._core.tracing import replaced
from keras_qsn.classifier.compiled import compiled_logits
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.layers import QuantLayer


def quantizers_of(wrapper):
    """The model's quantization layers.

    Raises:
        ValueError: If there is none.
    """
    found = [q for q in layers_of(wrapper.model) if isinstance(q, QuantLayer)]
    if not found:
        raise ValueError(
            "The attack expects a model with a quantization layer. Received: "
            f"model '{wrapper.model.name}' without one. Attack it with "
            "ordinary attacks: nothing in it is quantized."
        )
    return found


def as_seen(model, x):
    """The images behind the model's quantizer; as they are without one."""
    try:
        wrapper = KerasModelWrapper.of(model)
        opened = OpenedModel(wrapper, 0.0, 1.0, compiled=True)
    except ValueError:
        return x
    return np.asarray(opened.quantize(x))


class OpenedModel:
    """A model in two: its quantizer, and the network behind it.

    Called with images it returns logits, as an attack's view must.

    Args:
        wrapper: The model's `KerasModelWrapper`; its first quantizer must
            map each pixel by itself, without reversing the order of values.
        clip_min: Smallest pixel value.
        clip_max: Largest pixel value.
        compiled: Whether its parts are functions built once for the model as
            it is now, as in attacks, and not traced at each call, as in
            training. Defaults to `False`.
        seen: The model as an attack sees it, if not as it is: a function from
            images to logits, with a hashable `key`, its `rounding`, and with
            `through`, by which the network behind the quantizer is seen alike.

    Raises:
        ValueError: If there is no such quantizer.
    """

    # It is more than a function from images to logits.
    fixed = False

    def __init__(self, wrapper, clip_min, clip_max, compiled=False, seen=None):
        self.wrapper = wrapper
        self._compiled = compiled
        self._seen = seen
        if seen is not None:
            self.rounding = seen.rounding
        self._layer = quantizers_of(wrapper)[0]
        low, high = self._layer.value_range
        self.hard = self._layer.hard
        self.step = (high - low) / (self._layer.num_levels - 1)
        self._check(clip_min, clip_max)

    def __call__(self, x):
        return (self._seen or self.wrapper.get_logits)(x)

    @property
    def key(self):
        """Hashable; the same for the same quantizer and network."""
        return "opened", self._seen.key if self._seen else "logits"

    def quantize(self, x):
        """What the network behind the quantizer sees of the images."""
        return self._part("quantize", self._quantize, x)

    def behind(self, levels):
        """Logits of quantized images."""
        return self._part("behind", self._behind, levels)

    def _part(self, name, function, x):
        if self._compiled:
            function = compiled_logits(
                self.wrapper, x.shape[1:], (*self.key, name), function
            )
        return function(x)

    def _quantize(self, x):
        seen = []

        def call(layer, inputs, **_):
            seen.append(type(layer).call(layer, inputs))
            return seen[-1]

        with replaced([self._layer], "call", call):
            self.wrapper.get_logits(x)
        return seen[0]

    def _behind(self, levels):
        def network(x):
            # Last, so that no view puts the quantizer back.
            with replaced([self._layer], "call", lambda *_, **__: levels):
                return self.wrapper.get_logits(x)

        look = self._seen.through(network) if self._seen else network
        return look(tf.zeros_like(levels))

    def invert(self, levels, x, low, high):
        """The images nearest to `x` in `[low, high]` with these levels.

        By bisection, pixel by pixel, since the quantizer is monotone. A pixel
        whose level is out of reach ends at `low` or `high`.
        """
        # Hard levels are told apart, not compared to the last bit.
        tolerance = self.step / 2 if self.hard else 0.0
        y = self.quantize(x)
        up, down = levels - tolerance > y, levels + tolerance < y
        # `near` has not reached the level, `far` is to have.
        near, far = x, tf.where(up, high, tf.where(down, low, x))

        def halve(i, near, far):
            middle = (near + far) / 2
            y = self.quantize(middle)
            reached = tf.where(
                up, y >= levels - tolerance, y <= levels + tolerance
            )
            return (
                i + 1,
                tf.where(reached, near, middle),
                tf.where(reached, middle, far),
            )

        return tf.while_loop(
            lambda i, near, far: i < _BISECTIONS,
            halve,
            (0, near, far),
            parallel_iterations=1,
        )[2]

    def _check(self, clip_min, clip_max):
        """Refuse a quantizer that mixes pixels or turns their order."""
        shape = [n or _ANY_LENGTH for n in self.wrapper.input_shape]
        rng = np.random.default_rng(0)
        low, high = np.sort(rng.uniform(clip_min, clip_max, (2, 1, *shape)), 0)
        mixed = np.where(rng.random((1, *shape)) < 0.5, low, high)
        # Numbers, also where the attack is traced into a training step.
        with tf.init_scope():
            a, b, c = (
                np.asarray(self.quantize(tf.constant(x, tf.float32)))
                for x in (low, high, mixed)
            )
        if a.shape != low.shape or not (
            (a <= b).all() and np.where(mixed == low, c == a, c == b).all()
        ):
            raise ValueError(
                "The attack expects a quantizer that maps each pixel of the "
                "image by itself and keeps their order, so only scaling may "
                f"come before it. Received: layer '{self._layer.name}', "
                "which sees something else. Use `BPDA` instead."
            )


# Of images for a model that takes any size.
_ANY_LENGTH = 32
# Float32 pixels are told apart by 24 halvings of the range.
_BISECTIONS = 26
