"""A mask that is known to protect nothing, and whether attacks see through.

The model's quantizers, if it has any, are bypassed, and one of 33 hard levels
is put before it: what PGD breaks without it, the cube attack must break
behind it.
"""

import numpy as np

from keras_qsn import attacks
from keras_qsn._core.tracing import replaced
from keras_qsn.classifier.opened import OpenedModel
from keras_qsn.classifier.opened import quantizers_of
from keras_qsn.evaluation.checks.crafting import SharedView
from keras_qsn.evaluation.checks.crafting import crafted
from keras_qsn.layers import QuantLayer

_IMAGES = 24
_LEVELS = 33


def broken(probe):
    """Which images are broken without the mask, and which behind it.

    Returns:
        Two boolean arrays, for the probe's first images.
    """
    x, y = probe.x[:_IMAGES], probe.y[:_IMAGES]
    seen = probe.seen
    key, view = seen.key, seen
    if probe.facts.quantized:
        key = "without quantizers", seen.key
        view = seen.through(_without(seen.wrapper))
    logits_fn = SharedView(seen.wrapper, x.shape[1:], key, view)
    batches = probe.batches(len(x))

    def fooled(images):
        return probe.forward(key, view, images).argmax(-1) != y

    descent = probe.descent(20)
    probe.note(descent)
    plain = fooled(crafted(descent, lambda: logits_fn, x, y, batches))
    masked = _Masked(logits_fn, probe.threat, x.shape[1:])
    behind = np.zeros(len(x), bool)
    # What few steps find, many would.
    for cube in (_cube(probe, 5, 1), _cube(probe, 20, 3)):
        if (plain & ~behind).any():
            probe.note(cube)
            x_adv = crafted(cube, lambda: masked, x, y, batches)
            shown = np.asarray(masked.behind.show(masked.quantize(x_adv)))
            behind |= fooled(shown)
    return plain, behind


def _cube(probe, nb_iter, nb_restarts):
    return probe.threat.attack(
        attacks.CubeAttack, nb_iter=nb_iter, nb_restarts=nb_restarts
    )


def _without(wrapper):
    """The model's logits with nothing quantized."""
    layers = quantizers_of(wrapper)

    def view(x):
        with replaced(layers, "call", lambda layer, inputs, **_: inputs):
            return wrapper.get_logits(x)

    return view


class _Masked(OpenedModel):
    """A quantizer of many hard levels, before a network that has none."""

    def __init__(self, logits_fn, threat, shape):
        self.behind = _Behind(logits_fn, threat)
        self._layer = QuantLayer(_LEVELS, 500.0, hard=True)
        self._layer.build((None, *shape))
        self.hard = True
        self.step = 1 / (_LEVELS - 1)

    def __call__(self, x):
        return self.behind(self.quantize(x))

    def quantize(self, x):
        return self._layer(self.behind.hide(x))


class _Behind:
    """The network as a function of levels, which are in `[0, 1]` whatever
    the range of pixels."""

    def __init__(self, logits_fn, threat):
        self._logits_fn = logits_fn
        self._low = np.asarray(threat.clip_min, "float32")
        self._width = np.asarray(threat.clip_max, "float32") - self._low

    def __call__(self, levels):
        return self._logits_fn(self.show(levels))

    def gain_gradient(self, levels, labels, of_margin):
        """As that of a `SharedView`."""
        slope, logits = self._logits_fn.gain_gradient(
            self.show(levels), labels, of_margin
        )
        return self._width * slope, logits

    def show(self, levels):
        """The pixels that the network gets to see."""
        return self._low + self._width * levels

    def hide(self, x):
        """Pixels as shares of their range."""
        return (x - self._low) / self._width
