"""Teaching a copy what the victim has answered."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.convolution import fast_convolutions
from keras_qsn.datasets import ShuffledBatches
from keras_qsn.training.outputs import log_probabilities
from keras_qsn.training.outputs import returns_logits


def cross_entropy(answers, log_p):
    """Of each image: `- sum_c answer_c log p_c`."""
    return -tf.reduce_sum(answers * log_p, -1)


class Teaching:
    """Trains a copy, in place, on images and the probabilities wanted there.

    By Adam, on the mean of a loss; in the second half of `fit` the learning
    rate falls to 0 as half a cosine.

    Args:
        copy: The copy's `KerasModelWrapper`.
        learning_rate: Of the first epoch.
        batch_size: Images in a step.
        seed: Decides the order of the images.
        loss: Function from answers and the copy's log probabilities, both of
            shape `(images, classes)`, to a number for each image. Defaults to
            the cross-entropy.
    """

    def __init__(
        self, copy, learning_rate, batch_size, seed, loss=cross_entropy
    ):
        self._model = copy.model
        self._are_logits = returns_logits(copy)
        self._start = [v.numpy() for v in copy.model.variables]
        self._loss = loss
        self._learning_rate = learning_rate
        self._batch_size = batch_size
        self._seed = seed
        self._optimizer = keras.optimizers.Adam(learning_rate)
        self._optimizer.build(copy.model.trainable_variables)
        self._fresh = [v.numpy() for v in self._optimizer.variables]
        with fast_convolutions(copy.model):
            shape, classes = copy.input_shape, copy.num_classes
            self._step = tf.function(
                self._one_step, autograph=False
            ).get_concrete_function(
                tf.TensorSpec([None, *shape], tf.float32),
                tf.TensorSpec([None, classes], tf.float32),
            )

    def restart(self):
        """Give the copy the weights back with which it came."""
        for owner, values in (
            (self._model, self._start),
            (self._optimizer, self._fresh),
        ):
            for variable, value in zip(owner.variables, values):
                variable.assign(value)

    def pace(self, share):
        """Go on with this share of the learning rate."""
        self._optimizer.learning_rate = self._learning_rate * share

    def step(self, x, answers):
        """One step on a batch; returns the loss."""
        return self._step(tf.constant(x), tf.constant(answers))

    def fit(self, x, answers, epochs, progress=lambda epoch: None):
        """Train for a number of epochs.

        Args:
            x: Float32 array of images.
            answers: Their answers, of shape `(images, classes)`.
            epochs: How many.
            progress: Function called with the number of epochs done.
        """
        batches = ShuffledBatches(x, answers, self._batch_size, self._seed)
        for epoch in range(epochs):
            over = max(0.0, 2 * epoch / epochs - 1)
            self.pace((1 + np.cos(np.pi * over)) / 2)
            for i in range(len(batches)):
                self.step(*batches[i])
            batches.on_epoch_end()
            progress(epoch + 1)
        self.pace(1.0)

    def _one_step(self, x, answers):
        with tf.GradientTape() as tape:
            returned = self._model(x, training=True)
            log_p = log_probabilities(returned, self._are_logits)
            loss = tf.reduce_mean(self._loss(answers, log_p))
            loss += tf.add_n([0.0, *self._model.losses])
        variables = self._model.trainable_variables
        gradients = tape.gradient(loss, variables)
        self._optimizer.apply(gradients, variables)
        return loss
