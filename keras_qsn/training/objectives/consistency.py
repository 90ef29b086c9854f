"""Superimposing: an image under a little of another keeps its answer."""

import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_number
from keras_qsn._core.numbers import check_positive
from keras_qsn.training import terms
from keras_qsn.training.objectives.adversarial import places
from keras_qsn.training.objectives.base import Objective
from keras_qsn.training.outputs import log_probabilities
from keras_qsn.training.outputs import returns_logits


class ConsistencyTraining(Objective):
    """Superimposing: consistent answers, for one more forward pass.

    With `p` the class probabilities and `x'` another image of the batch:

        loss = L(y, x) + weight * KL(p(x) || p((1 - alpha) x + alpha x'))

    where `L` is the compiled loss and the second term a mean over the batch,
    of which sample weights count. The label is not mixed, no attack is run.
    Partners and `alpha` are drawn anew in each step.

    A reconstruction: the paper's text could not be had. Loss and `weight` are
    those of a public implementation that names it, which describes `alpha` as
    0.3 and draws it from Beta(2, 10); drawing one for each image is ours.

    Args:
        weight: Float > 0. Defaults to `10.0`.
        alpha: Share of the other image: a float in `(0, 1)`, the same for
            all; or two integers `(a, b)`, at least 1: drawn for each image
            from Beta(a, b). Defaults to `(2, 10)`, a mean of 1/6.
        stop_gradient: Whether `p(x)` is a target that no gradient goes
            through, as in virtual adversarial training. Defaults to `False`.
        seed: Integer. Decides partners and shares. Defaults to `0`.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is out of range.

    Example:

    >>> net = QuSecNet(cleverhans_cnn(seed=0), ConsistencyTraining())
    >>> fixed = ConsistencyTraining(weight=5.0, alpha=0.3)

    Limitations:
        No attack is part of it: it smooths the network along the lines
        between images, and an adversary takes other ones. Expect it to help
        against examples from other models and small perturbations, and judge
        it with `evaluate_robustness`.

    Reference:
        - Seiler, Trautmann and Kerschke, IJCNN 2020, "Enhancing Resilience of
          Deep Learning Networks By Means of Transferable Adversaries"
    """

    def __init__(self, weight=10.0, alpha=(2, 10), stop_gradient=False, seed=0):
        self.weight = check_positive("weight", weight)
        self.alpha = _check_alpha(alpha)
        self.stop_gradient = bool(stop_gradient)
        self.seed = check_count("seed", seed, np.iinfo("int32").min)

    def build(self, net):
        super().build(net)
        self._are_logits = returns_logits(net.wrapper)
        # Of the network, so that training goes on from a backup.
        self._superimposed = net.add_weight(
            shape=(),
            initializer="zeros",
            trainable=False,
            dtype="int32",
            aggregation="only_first_replica",
            name="superimposed",
        )

    def loss(self, batch, loss):
        count = tf.shape(batch.given)[0]
        place = places(self._superimposed, count)[0]
        mixed = superimpose(
            batch.given, self.alpha, tf.stack([self.seed, place])
        )
        own, other = (
            log_probabilities(returned, self._are_logits)
            for returned in (batch.outputs, self.net(mixed, training=True))
        )
        if self.stop_gradient:
            own = tf.stop_gradient(own)
        apart = terms.mean(terms.divergence(own, other), batch.sample_weight)
        return loss + self.weight * apart


def superimpose(x, alpha, seed):
    """`(1 - alpha) x + alpha x'`, with `x'` the images in another order.

    Args:
        x: Float tensor of images.
        alpha: Float, or two integers, as for `ConsistencyTraining`.
        seed: Two integers, or a tensor of them, that decide order and shares.
    """
    count = tf.shape(x)[0]
    order = tf.random.stateless_uniform([count], tf.random.fold_in(seed, 0))
    partners = tf.gather(x, tf.argsort(order))
    share = alpha
    if isinstance(alpha, tuple):
        share = beta(*alpha, count, tf.random.fold_in(seed, 1))
        share = tf.reshape(share, [-1] + [1] * (len(x.shape) - 1))
    return x + share * (partners - x)


def beta(a, b, count, seed):
    """Draws from Beta(a, b): of `a + b - 1` uniform numbers, the a-th.

    For whole numbers, exact, and of operations that XLA has.
    """
    uniform = tf.random.stateless_uniform([count, a + b - 1], seed)
    return tf.sort(uniform, -1)[:, a - 1]


def _check_alpha(alpha):
    if isinstance(alpha, (tuple, list)):
        if len(alpha) != 2:
            raise ValueError(
                "`alpha` must be a share or the two numbers of a beta "
                f"distribution. Received: alpha={alpha}"
            )
        return tuple(check_count("alpha", value) for value in alpha)
    if not 0 < check_number("alpha", alpha) < 1:
        raise ValueError(
            "`alpha` must lie between 0 and 1, or be two integers for a draw "
            f"from Beta(a, b). Received: alpha={alpha}"
        )
    return float(alpha)
