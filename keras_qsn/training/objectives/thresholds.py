"""Thresholds that train on a cost, or at a rate, of their own."""

import keras

from keras_qsn.training.objectives.base import Objective


class ThresholdTraining(Objective):
    """Trains the thresholds of quantization layers apart from the weights.

        t <- t - learning_rate * d(loss)/dt    (Eq. 3)

    of the same forward pass that the weights are trained on. Without it, the
    compiled optimizer trains thresholds like all other weights.

    Args:
        loss: Optional Keras loss, such as
            `keras_qsn.losses.ProbabilityMeanSquaredError()`. Defaults to
            `None`: the compiled loss, with what objectives given before made
            of it.
        learning_rate: Float or Keras schedule, the paper's eta. Defaults to
            `1e-3`.

    Raises:
        ValueError: As a `QuSecNet` is made, if its model has no trainable
            thresholds.

    Example:

    >>> model = cleverhans_cnn(quantizer=TrainableQuantization(), seed=0)
    >>> thresholds = ThresholdTraining(ProbabilityMeanSquaredError(), 0.1)
    >>> net = QuSecNet(model, [FastGradientMethod(eps=0.3), thresholds])

    Reference:
        - Ali et al., 2018, Eqs. 2 to 8 and Fig. 5:
          https://arxiv.org/abs/1811.01437
    """

    def __init__(self, loss=None, learning_rate=1e-3):
        self._cost = keras.losses.get(loss)
        self.learning_rate = learning_rate

    def build(self, net):
        super().build(net)
        self.trains = [
            layer.thresholds
            for layer in net.wrapper.quantizers
            if layer.trainable
        ]
        if not self.trains:
            raise ValueError(
                "`ThresholdTraining` needs a model with trainable thresholds, "
                "such as one that starts with `TrainableQuantization`. "
                "Received: a model with layers "
                f"{[layer.name for layer in net.model.layers]}"
            )
        # Of the network, so that a backup holds it.
        net.threshold_optimizer = keras.optimizers.SGD(self.learning_rate)
        net.threshold_optimizer.build(self.trains)

    def loss(self, batch, loss):
        cost = loss
        if self._cost is not None:
            cost = self._cost(batch.y, batch.outputs, batch.sample_weight)
        thresholds = [variable.value for variable in self.trains]
        # Of the same pass: a second one would move statistics and draws.
        with batch.tape.stop_recording():
            gradients = batch.tape.gradient(cost, thresholds)
            self.net.threshold_optimizer.apply(gradients, self.trains)
        return loss
