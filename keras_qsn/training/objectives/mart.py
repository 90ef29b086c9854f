"""MART: what counts most is what is misclassified as it is."""

import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_positive
from keras_qsn.training import terms
from keras_qsn.training.objectives.adversarial import AttackObjective
from keras_qsn.training.outputs import log_probabilities
from keras_qsn.training.outputs import returns_logits


class MART(AttackObjective):
    """Misclassification-aware adversarial training.

    With `p` the class probabilities, `x'` the adversarial example of `x` and
    `y` its class:

        loss = L(y, x') - log(1 - max_{k != y} p_k(x'))
               + beta * KL(p(x) || p(x')) * (1 - p_y(x))

    where `L` is the compiled loss; with cross-entropy the first two are the
    paper's boosted cross-entropy. The others are means over the batch, of
    which sample weights count. An image on which the network is sure without
    the attack adds little to the last.

    Loss and compiled metrics of `fit` are those on the examples;
    `adv_accuracy` is, during `fit`, that on each batch's examples, in
    `evaluate` and validation that under the full attack itself.

    Args:
        attack: `keras_qsn.attacks.Attack` with a radius: PGD in the paper;
            any will do, such as `CubeAttack` for a quantized network.
        beta: Float > 0, the paper's lambda. Defaults to `5.0`.

    Raises:
        TypeError: If `attack` is not an attack.
        ValueError: If it has no radius, or `beta` is not above 0.

    Example:

    >>> attack = ProjectedGradientDescent(eps=0.3, nb_iter=10)
    >>> net = QuSecNet(cleverhans_cnn(seed=0), MART(attack, beta=5.0))

    Limitations:
        Takes two passes through the network beside those of the attack. With
        two classes the second term is the cross-entropy once more. Its gain
        over `AdversarialTraining` is what an attack like its own leaves:
        measure with `evaluate_robustness`.

    Reference:
        - Wang et al., 2020: https://openreview.net/forum?id=rklOg6EFwS
    """

    def __init__(self, attack, beta=5.0):
        super().__init__(attack)
        self.beta = check_positive("beta", beta)

    def build(self, net):
        super().build(net)
        self._are_logits = returns_logits(net.wrapper)

    def images(self, x, labels):
        return self.craft(x, labels, training=True)

    def loss(self, batch, loss):
        self.count(batch.labels, batch.outputs)
        clean, attacked = (
            log_probabilities(returned, self._are_logits)
            for returned in (
                self.net(batch.x, training=True),
                batch.outputs,
            )
        )
        missed = 1 - tf.exp(tf.gather(clean, batch.labels, batch_dims=1))
        apart = terms.divergence(clean, attacked) * missed
        values = self.beta * apart - runner_up_miss(attacked, batch.labels)
        return loss + terms.mean(values, batch.sample_weight)


def runner_up_miss(log_p, labels):
    """`log(1 - max_{k != y} p_k)` of each image, of the logarithm of `p`.

    As the logarithm of the sum of all the other probabilities, which is not
    rounded to that of 0 where the network is sure of a wrong class.
    """
    classes = log_p.shape[-1]
    own = tf.one_hot(labels, classes, True, False, dtype=tf.bool)
    runner_up = tf.argmax(tf.where(own, -np.inf, log_p), -1)
    taken = tf.one_hot(runner_up, classes, True, False, dtype=tf.bool)
    return tf.reduce_logsumexp(tf.where(taken, -np.inf, log_p), -1)
