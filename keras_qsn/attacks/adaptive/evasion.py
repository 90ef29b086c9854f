"""PGD that knows of a detector beside the model."""

import tensorflow as tf

from keras_qsn._core.numbers import check_at_least
from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks.steps import per_image
from keras_qsn.attacks.views.accepted import Accepted
from keras_qsn.attacks.views.accepted import excess
from keras_qsn.attacks.white_box.gradient import ProjectedGradientDescent
from keras_qsn.classifier.detector import check_detector

_TINY = 1e-12
DIRECTIONS = ("sum", "selective", "orthogonal")


class DetectorEvasion(ProjectedGradientDescent):
    """PGD that fools a model and is accepted by the detector beside it.

    With `f` the gradient of the attacker's gain, `d` that of minus the score,
    both of length 1, and the rejected images those above the threshold, a
    step goes along

        "sum"         f + weight * d, the second where x is rejected
        "selective"   f until the model is fooled, from then on d
        "orthogonal"  f - <f, d> d until it is fooled, then d - <f, d> f

    The last two are selective and orthogonal PGD: one of the two is followed
    at a time; and, orthogonal, what one step wins another does not undo.

    Args:
        *args: As for `ProjectedGradientDescent`.
        detector: A `Detector` with a threshold.
        direction: One of the three. Defaults to `"orthogonal"`.
        weight: Float >= 0, of the score in the sum. Defaults to `1.0`.
        confidence: Float from 0 to 1. A model is fooled once another logit is
            ahead by this share of their spread; above 0 for a model that
            answers at random, or half of its answers stay right. Defaults to
            `0.0`.
        **kwargs: As for `ProjectedGradientDescent`. With `early_stop=True` an
            image stops once it fools the model and is accepted.

    Raises:
        TypeError: If `detector` is not a `Detector`.
        ValueError: If a parameter is out of range, or the detector has no
            threshold.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.random.default_rng(0).random((4, 28, 28, 1), "float32")
    >>> squeezers = recommended_squeezers("mnist")
    >>> detector = FeatureSqueezingDetector(model, squeezers).fit(x)
    >>> attack = DetectorEvasion(0.3, nb_iter=10, detector=detector)
    >>> x_adv = attack.generate(model, x, verbose=0)
    >>> attack.get_config()["detector"]["detector"]
    'FeatureSqueezingDetector'

    Limitations:
        A score without a gradient is not followed, and one that misleads is:
        queries, such as `SquareAttack` through the detector's eyes in
        `evaluate_robustness`, need neither. A config names the detector, and
        does not hold it. What `run` reports as success is the model's answer
        alone; ask the detector, too.

    Reference:
        - Bryniarski et al., 2022 (selective and orthogonal PGD):
          https://arxiv.org/abs/2106.15023
        - Carlini & Wagner, 2017 (the sum): https://arxiv.org/abs/1705.07263
    """

    threat = "adaptive"
    # It keeps to the boundary, where what is rejected is not.
    climbs = False

    def __init__(
        self,
        *args,
        detector,
        direction="orthogonal",
        weight=1.0,
        confidence=0.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.detector = check_detector(detector)
        if direction not in DIRECTIONS:
            raise ValueError(
                f"`direction` must be one of {', '.join(DIRECTIONS)}. "
                f"Received: direction={direction!r}"
            )
        self.direction = direction
        self.weight = check_at_least("weight", weight, 0)
        self._keep_shares(confidence=confidence)
        self.views = (Accepted(detector),)

    def get_config(self):
        return {**super().get_config(), "detector": self.detector.told()}

    def _fooled(self, logits, labels, targeted, rounding):
        sure = _ahead(logits, labels, targeted) >= self.confidence
        return super()._fooled(logits, labels, targeted, rounding) & sure

    def _gradient(self, logits_fn, x, labels, targeted):
        uphill, logits = super()._gradient(logits_fn, x, labels, targeted)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            above = excess(self.detector, self.detector.call(x))
        uphill = _unit(uphill)
        accepted = _unit(-losses.gradient_of(tape, above, x))
        ahead = _ahead(logits, labels, targeted) - self.confidence
        fooled = per_image(ahead, x) > 0
        if self.direction == "sum":
            rejected = tf.cast(per_image(above, x) > 0, x.dtype)
            return uphill + self.weight * rejected * accepted, logits
        if self.direction == "orthogonal":
            common = per_image(_dot(uphill, accepted), x)
            uphill, accepted = (
                uphill - common * accepted,
                accepted - common * uphill,
            )
        return tf.where(fooled, accepted, uphill), logits


def _ahead(logits, labels, targeted):
    """The attacker's lead, as a share of the spread of the logits."""
    ahead = losses.lead(logits, labels)
    spread = tf.reduce_max(logits, 1) - tf.reduce_min(logits, 1)
    return (-ahead if targeted else ahead) / tf.maximum(spread, _TINY)


def _unit(gradient):
    length = tf.maximum(norms.size(gradient, 2), _TINY)
    return gradient / per_image(length, gradient)


def _dot(a, b):
    return tf.reduce_sum(tf.reshape(a * b, [tf.shape(a)[0], -1]), 1)
