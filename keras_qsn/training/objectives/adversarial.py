"""Adversarial training: attacked images in place of clean ones."""

import keras
import tensorflow as tf

from keras_qsn.attacks.base import Attack
from keras_qsn.training.metrics import Share
from keras_qsn.training.objectives.base import Objective
from keras_qsn.training.outputs import class_scores
from keras_qsn.training.outputs import returns_logits


class AttackObjective(Objective):
    """Base class of objectives with an attack, of some radius.

    Crafts examples on the current weights, in inference mode. `evaluate` and
    validation report `adv_accuracy`, the accuracy under the full attack; a
    subclass counts it in training.

    Random starts follow from the attack's seed and an image's place: in
    `evaluate` and validation its place in the data, so that the same data
    give the same number, and training goes on as without; in training its
    place among all images attacked so far. Replicas of a distribution
    strategy share no start.
    """

    def __init__(self, attack):
        if not isinstance(attack, Attack):
            raise TypeError(
                "`attack` must be a `keras_qsn.attacks.Attack`, such as "
                f"`FastGradientMethod(eps=0.3)`. Received: attack={attack!r}"
            )
        if attack.eps is None:
            raise ValueError(
                "`attack` must have a radius, `eps`: without one it breaks "
                "every image, however far it must go, and `adv_accuracy` is "
                f"near 0 whatever the model. Received: attack={attack!r}. "
                "Take an attack inside a ball, such as "
                "`ProjectedGradientDescent(eps=0.3)`."
            )
        self.attack = attack
        self.value_range = attack.clip_min, attack.clip_max

    def build(self, net):
        super().build(net)
        self.radius = net.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.attack.eps),
            trainable=False,
            name="eps",
        )
        self._crafted = net.add_weight(
            shape=(),
            initializer="zeros",
            trainable=False,
            dtype="int32",
            aggregation="only_first_replica",
            name="crafted",
        )
        # Of one evaluation only: no weight, it is not kept.
        self._evaluated = tf.Variable(
            0,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self._accuracy = Share(net.free_name("adv_accuracy"))
        self.metrics = [self._accuracy]
        # Of several columns the scores are scores, whatever they are.
        several = net.wrapper.num_classes > 2
        self._are_logits = several or returns_logits(net.wrapper)

    def reset(self):
        self._evaluated.assign(0)

    def evaluate(self, x, labels):
        x_adv = self.craft(x, labels, training=False)
        with self.net.convolutions(training=False):
            self.count(labels, self.net.wrapper.get_logits(x_adv))

    def craft(self, x, labels, training, view=None):
        """Adversarial examples.

        Args:
            x: Images.
            labels: Their classes.
            training: Whether at the radius of training, or at the attack's.
            view: What the attack looks at. Defaults to `None`: its own view.
        """
        counter = self._crafted if training else self._evaluated
        eps = self.radius if training else self.attack.eps
        place = places(counter, tf.shape(x)[0])
        seeds = tf.stack([tf.fill(tf.shape(place), self.attack.seed), place], 1)
        with self.net.convolutions(training):
            if view is None:
                view = self.attack.seen(self.net.wrapper)
            eps = tf.convert_to_tensor(eps, tf.float32)
            return self.attack.craft(view, x, labels, eps, seeds)

    def count(self, labels, outputs):
        """Count in `adv_accuracy` what the network says of examples."""
        scores = class_scores(outputs, self._are_logits)
        predicted = tf.argmax(scores, -1, output_type=tf.int32)
        self._accuracy.update_state(tf.equal(labels, predicted))


class AdversarialTraining(AttackObjective):
    """The compiled loss, of batches that are attacked in part.

    In each batch, the first `clean_share` of the images stay as they are and
    the others are replaced by adversarial examples, crafted on the current
    weights in inference mode, with the true labels; loss, metrics and sample
    weights are Keras' own on that batch (Kurakin et al., 2017).
    `adv_accuracy` is, during `fit`, that of the adversarial part of each
    batch, in `evaluate` and validation that under the full attack.

    Args:
        attack: `keras_qsn.attacks.Attack` with a radius.
        clean_share: Float in `[0, 1)`. Share of each batch left clean,
            rounded down (0.29 of 100 are 29). Defaults to `0.5`; `0` trains
            on adversarial examples alone.

    Raises:
        TypeError: If `attack` is not an attack.
        ValueError: If it has no radius, or `clean_share` is outside `[0, 1)`.

    Example:

    Madry et al. train on PGD alone, on MNIST 40 steps of 0.01; Wong et al. on
    one step of 1.25 eps from a random start.

    >>> attack = ProjectedGradientDescent(0.3, eps_iter=0.01, nb_iter=40)
    >>> madry = AdversarialTraining(attack, clean_share=0.0)
    >>> attack = ProjectedGradientDescent(0.3, eps_iter=1.25 * 0.3, nb_iter=1)
    >>> wong = AdversarialTraining(attack, clean_share=0.0)
    >>> net = QuSecNet(cleverhans_cnn(seed=0), wong)

    Limitations:
        Training on single-step examples can collapse: accuracy under FGSM
        rises while accuracy under PGD falls to zero (catastrophic
        overfitting, Wong et al., 2020). Validate with another attack than the
        one trained on.

    Reference:
        - Kurakin et al., 2017, adversarial training on mixed batches:
          https://arxiv.org/abs/1611.01236
        - Madry et al., 2018: https://arxiv.org/abs/1706.06083
        - Wong et al., 2020: https://arxiv.org/abs/2001.03994
    """

    def __init__(self, attack, clean_share=0.5):
        super().__init__(attack)
        if not 0.0 <= clean_share < 1.0:
            raise ValueError(
                "`clean_share` must lie in [0, 1); for plain training give "
                f"no attack. Received: clean_share={clean_share}"
            )
        self.clean_share = clean_share

    def images(self, x, labels):
        clean = num_clean(tf.shape(x)[0], self.clean_share)
        x_adv = self.craft(x[clean:], labels[clean:], training=True)
        return tf.concat([x[:clean], x_adv], 0)

    def loss(self, batch, loss):
        clean = num_clean(tf.shape(batch.x)[0], self.clean_share)
        self.count(batch.labels[clean:], batch.outputs[clean:])
        return loss


def num_clean(count, share):
    """How many of `count` images are `share` of them, rounded down.

    In float64, and with room for its rounding: 0.29 of 100 are 29.
    """
    exact = tf.cast(count, tf.float64) * tf.constant(share, tf.float64)
    return tf.cast(tf.floor(exact + 1e-9), tf.int32)


def places(counter, count):
    """The places of a batch's `count` images among all, which it counts.

    Replicas of a distribution strategy number theirs one after the other, as
    the data come.
    """
    seen, before, whole = tf.convert_to_tensor(counter), 0, count
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync > 1:
        counts = replica.all_gather(count[None], axis=0)
        before = tf.reduce_sum(counts[: replica.replica_id_in_sync_group])
        whole = tf.reduce_sum(counts)
    counter.assign(seen + whole)
    return seen + before + tf.range(count)
