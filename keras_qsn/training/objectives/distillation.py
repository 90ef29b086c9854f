"""Defensive distillation: answers at a temperature, for labels a teacher's."""

import keras
import tensorflow as tf

from keras_qsn._core.numbers import check_positive
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.training.companion import check_companion
from keras_qsn.training.objectives.base import Objective
from keras_qsn.training.outputs import class_scores
from keras_qsn.training.outputs import returns_logits


class DefensiveDistillation(Objective):
    """Trains at a temperature what is deployed without one.

    With `z` the logits, `t` those of a teacher and `T` the temperature, the
    compiled loss `L` and metrics are, while training, of `z / T`:

        teacher (no `teacher` given):  loss = L(y, z / T)
        student:  loss = -sum_c softmax(t / T)_c log softmax(z / T)_c

    the second a mean over the batch, of which sample weights count, and of
    the clean images, whatever an attack behind it makes of them; losses of
    regularizers are added. `evaluate`, validation and the trained model are at
    temperature 1: its logits are about `T` times as large as others.

    Args:
        temperature: Float > 0, the paper's `T`. Defaults to `100.0`, the
            highest the paper takes; `20.0` is usual, too.
        teacher: Built Keras classifier that was trained at this temperature,
            of the same images and classes, in its inference mode; or `None`
            (default), to train one on the labels.

    Raises:
        TypeError: If `teacher` is no Keras model.
        ValueError: If `temperature` is not above 0; or, once there is a
            `QuSecNet`, if its model does not return logits, it is the teacher
            itself, the teacher has other classes or images, or another
            objective comes first, whose loss this one would replace.

    Example:

    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> x, y = np.zeros((8, 28, 28, 1), "float32"), np.arange(8)
    >>> def trained(objective):
    ...     net = QuSecNet(cleverhans_cnn(seed=0), objective)
    ...     net.compile("adam", loss)
    ...     net.fit(x, y, verbose=0)
    ...     return net.model
    >>> teacher = trained(DefensiveDistillation(20.0))
    >>> student = trained(DefensiveDistillation(20.0, teacher))

    Both start from the same weights here, as in the code of Carlini and
    Wagner, which takes those after one epoch at temperature 1.

    Limitations:
        A masked gradient and nothing else: the softmax of large logits is 0
        and 1 in float32, and its cross-entropy flat. Attacks on logits
        (Carlini and Wagner, 2017), their margin or their quotient, examples
        from any other network, and the attacks of this package, which follow
        log odds, break it as they break an undefended network.

    Reference:
        - Papernot et al., 2016: https://arxiv.org/abs/1511.04508
        - Carlini and Wagner, 2017: https://arxiv.org/abs/1608.04644
    """

    def __init__(self, temperature=100.0, teacher=None):
        self.temperature = check_positive("temperature", temperature)
        if teacher is not None:
            teacher = KerasModelWrapper.of(teacher)
        self.teacher = teacher
        # A Keras loss, so that sample weights and replicas count.
        self._cross_entropy = keras.losses.CategoricalCrossentropy(
            from_logits=True
        )

    def build(self, net):
        super().build(net)
        if net.objectives[0] is not self:
            raise ValueError(
                "`DefensiveDistillation` must be the first objective: its "
                "loss takes the place of the compiled one, and of what is "
                f"added to that. Received: {type(net.objectives[0]).__name__} "
                "before it"
            )
        if not returns_logits(net.wrapper):
            raise ValueError(
                "`DefensiveDistillation` expects a model that returns logits, "
                "which it divides by the temperature. Received: model "
                f"'{net.model.name}', which returns probabilities. End it "
                "with a `Dense` layer without activation."
            )
        if self.teacher is not None:
            check_companion("teacher", self.teacher, net.wrapper)

    def outputs(self, forward):
        return forward() / self.temperature

    def loss(self, batch, loss):
        if self.teacher is None:
            return loss
        with batch.tape.stop_recording():
            soft = self.soft_labels(batch.x)
        scores = class_scores(batch.outputs, are_logits=True)
        loss = self._cross_entropy(soft, scores, batch.sample_weight)
        return loss + sum(self.net.losses)

    def soft_labels(self, x):
        """The teacher's class probabilities at the temperature."""
        return tf.nn.softmax(self.teacher.get_logits(x) / self.temperature)
