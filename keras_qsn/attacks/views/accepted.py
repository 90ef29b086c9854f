"""A model beside a detector: who is rejected, has fooled nobody."""

import weakref

import tensorflow as tf

from keras_qsn.attacks.losses import ROUNDING
from keras_qsn.attacks.views.base import View

_TINY = 1e-12


class Accepted(View):
    """The logits where a detector accepts an image; elsewhere, no lead.

    Of a rejected image the logits, `a(z) = r (z - max z) / spread - 1`, keep
    their order, and are within what rounding may take of one another: no
    class is ahead. The gradient is the one of `z` at `a(z)`, of the model
    alone: that of the score is followed by `DetectorEvasion`.

    Args:
        detector: A `Detector` with a threshold.
    """

    threat = "adaptive"

    def __init__(self, detector):
        self.detector = detector

    def get_config(self):
        return self.detector.told()

    @property
    def key(self):
        # What is kept for a model must not keep a detector that holds it.
        detector = self.detector
        return type(self), weakref.ref(detector), detector.threshold

    def see(self, logits_fn, wrapper):
        def seen(x):
            logits = tf.cast(logits_fn(x), tf.float32)
            rejected = excess(self.detector, self.detector.call(x)) > 0
            made = tf.where(rejected[:, None], _level(logits), logits)
            # A zero that carries the gradient: the forward value is exact.
            return tf.stop_gradient(made) + (logits - tf.stop_gradient(logits))

        return seen


def excess(detector, scores):
    """How far scores are above the threshold, or so near that another size
    of batch may put them there."""
    scores = tf.cast(scores, tf.float32)
    largest = tf.maximum(tf.abs(scores), abs(detector.threshold))
    above = scores - detector.threshold
    return above + tf.stop_gradient(ROUNDING * largest)


def _level(logits):
    below = logits - tf.reduce_max(logits, 1, keepdims=True)
    spread = tf.maximum(-tf.reduce_min(below, 1, keepdims=True), _TINY)
    return ROUNDING / 2 * below / spread - 1
