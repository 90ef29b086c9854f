"""DivQAT: answers that differ from those of the float network."""

import tensorflow as tf

from keras_qsn._core.numbers import check_at_least
from keras_qsn._core.numbers import check_positive
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.training import terms
from keras_qsn.training.companion import check_companion
from keras_qsn.training.objectives.base import Objective
from keras_qsn.training.outputs import log_probabilities
from keras_qsn.training.outputs import returns_logits

DIRECTIONS = ("quantized", "float")

# Below which no probability of the float network counts as smaller: the
# divergence of a class from it is then at most 16.1.
_FLOOR = 1e-7


class DivQAT(Objective):
    """Quantization-aware training against extraction (a reconstruction).

    With `q` the probabilities of the network in training and `p` those of the
    float network, not below 1e-7, at the images that the first is given:

        loss = L(y, q) - weight * mean_i min(KL(q_i || p_i), cap)

    Labels keep the class; what a thief would learn from the other
    probabilities is driven away from what the float network knows. An image
    at the cap adds no gradient.

    Only the abstract of the paper could be had: that a divergence from the
    float network's predictions is maximised. Its direction, weight and cap are
    options, their defaults ours. With `weight=0` this is plain
    quantization-aware training, to the bit.

    Args:
        original: Built Keras classifier in float, of the same images and
            classes, in its inference mode: what `quantization_aware` was
            given.
        weight: Float >= 0. Choose the largest that keeps the accuracy on
            held-out images. Defaults to `0.1`.
        direction: `"quantized"`, `KL(q || p)` as above, or `"float"`,
            `KL(p || q)`, which fights the labels where `p` is sure. Defaults
            to `"quantized"`.
        cap: Float > 0, in nats. Defaults to `16.0`.

    Raises:
        TypeError: If `original` is no Keras model.
        ValueError: If a number is out of range; or, once there is a
            `QuSecNet`, if `original` is its model, or has other classes or
            images.

    Example:

    >>> x, y = np.random.default_rng(0).random((8, 28, 28, 1)), np.arange(8)
    >>> original = cleverhans_cnn(seed=0)
    >>> twin = quantization_aware(original, x)
    >>> net = QuSecNet(twin, DivQAT(original))
    >>> net.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    >>> history = net.fit(x, y, verbose=0)

    Limitations:
        No defence against adversarial examples. A thief who takes the class
        alone does not see what was driven away: measure agreement on labels
        as well. Too large a weight costs all at once: of a small network on
        the embedded digits (3 epochs of 640 images, 300 test images) 0.4 left
        91 % right, 0.6 left 47 %.

    Reference:
        - Khaled et al., 2025 (abstract): https://arxiv.org/abs/2512.23948
    """

    def __init__(self, original, weight=0.1, direction="quantized", cap=16.0):
        self.original = KerasModelWrapper.of(original)
        self.weight = check_at_least("weight", weight, 0)
        if direction not in DIRECTIONS:
            raise ValueError(
                f"`direction` must be one of {DIRECTIONS}. "
                f"Received: direction={direction!r}"
            )
        self.direction = direction
        self.cap = check_positive("cap", cap)

    def build(self, net):
        super().build(net)
        check_companion("original", self.original, net.wrapper)
        self._are_logits = returns_logits(net.wrapper)

    def loss(self, batch, loss):
        if not self.weight:
            return loss
        with batch.tape.stop_recording():
            logits = self.original.get_logits(batch.given)
            p = tf.maximum(tf.nn.log_softmax(logits), tf.math.log(_FLOOR))
        q = log_probabilities(batch.outputs, self._are_logits)
        ends = (q, p) if self.direction == "quantized" else (p, q)
        apart = tf.minimum(terms.divergence(*ends), self.cap)
        return loss - self.weight * terms.mean(apart, batch.sample_weight)
