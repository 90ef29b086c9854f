"""TRADES: what a perturbation may change of the answer, beside the loss."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks.white_box.gradient import ProjectedGradientDescent
from keras_qsn.training import terms
from keras_qsn.training.objectives.adversarial import AttackObjective
from keras_qsn.training.outputs import log_probabilities
from keras_qsn.training.outputs import returns_logits


class TRADES(AttackObjective):
    """Clean accuracy, and answers that an attack does not change.

    With `p` the class probabilities and `x'` the adversarial example of `x`:

        loss = L(y, x) + beta * KL(p(x) || p(x'))

    where `L` is the compiled loss, on the clean images, and the second term a
    mean over the batch, of which sample weights count. `x'` maximises that
    divergence, or what the attack itself raises.

    `adv_accuracy` is, during `fit`, that on each batch's examples, in
    `evaluate` and validation that under the full attack itself.

    Args:
        attack: `keras_qsn.attacks.Attack` with a radius. The paper takes PGD
            of 10 steps of 0.007 within 0.031 on CIFAR-10, and 40 of 0.01
            within 0.3 on MNIST.
        beta: Float > 0, the paper's `1 / lambda`. Defaults to `6.0`; the
            paper takes 1 to 6.
        maximize: `"divergence"` (default), for a `ProjectedGradientDescent`
            with a random start and no early stop; or `"own"`, what the attack
            raises, for any attack.

    Raises:
        TypeError: If `attack` is not an attack.
        ValueError: If it has no radius or cannot maximise the divergence, or
            another argument is out of range.

    Example:

    >>> attack = ProjectedGradientDescent(eps=0.3, nb_iter=10)
    >>> net = QuSecNet(cleverhans_cnn(seed=0), TRADES(attack, beta=6.0))

    Limitations:
        Starts are uniform in the ball; the paper's lie within 0.001 of the
        image, where the divergence has next to no slope. Behind a hard
        quantizer the gradient of both is a surrogate's.

    Reference:
        - Zhang et al., 2019: https://arxiv.org/abs/1901.08573
    """

    def __init__(self, attack, beta=6.0, maximize="divergence"):
        super().__init__(attack)
        if not (np.isfinite(beta) and beta > 0):
            raise ValueError(
                f"`beta` must be a finite number above 0. Received: beta={beta}"
            )
        if maximize not in ("divergence", "own"):
            raise ValueError(
                "`maximize` must be 'divergence' or 'own'. "
                f"Received: maximize={maximize!r}"
            )
        # At the image itself the divergence has no slope, and an image that
        # stops would leave the batch whose clean answers it is compared with.
        if maximize == "divergence" and not (
            isinstance(attack, ProjectedGradientDescent)
            and attack.rand_init
            and not attack.early_stop
        ):
            raise ValueError(
                "`attack` must be a `ProjectedGradientDescent` with a random "
                "start and without early stop, to maximise the divergence. "
                f"Received: attack={attack!r}. With `maximize='own'` any "
                "attack will do."
            )
        self.beta = float(beta)
        self.maximize = maximize

    def build(self, net):
        super().build(net)
        self._are_logits = returns_logits(net.wrapper)

    def loss(self, batch, loss):
        x, labels = batch.given, batch.labels
        with batch.tape.stop_recording():
            if self.maximize == "divergence":
                view, first = self._apart_from(x), tf.zeros_like(labels)
                x_adv = self.craft(x, first, training=True, view=view)
            else:
                x_adv = self.craft(x, labels, training=True)
        outputs = self.net(x_adv, training=True)
        self.count(labels, outputs)
        answers = (
            log_probabilities(returned, self._are_logits)
            for returned in (batch.outputs, outputs)
        )
        apart = terms.divergence(*answers)
        return loss + self.beta * terms.mean(apart, batch.sample_weight)

    def _apart_from(self, x):
        """A view of two scores: the second leads by the divergence.

        Its label is the first, whose cross-entropy grows with the divergence
        alone: steps along its gradient are steps along the divergence's.
        """
        logits_fn = self.attack.seen(self.net.wrapper)
        with self.net.convolutions(training=True):
            clean = tf.nn.log_softmax(logits_fn(x))

        def scores(x_adv):
            apart = terms.divergence(clean, tf.nn.log_softmax(logits_fn(x_adv)))
            return tf.stack([tf.zeros_like(apart), apart], 1)

        return scores
