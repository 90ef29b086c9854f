"""A Keras model whose steps check the batches that they are given."""

import contextlib
import inspect

import keras
import numpy as np
import tensorflow as tf


class CheckedModel(keras.Model):
    """Base class: `fit` and `evaluate` refuse data that are not for a model.

    A subclass sets `_check`, a `BatchCheck`, and `wrapper`, the
    `KerasModelWrapper` inside, and supplies `_train` and `_test`: the steps,
    on images, labels and sample weights.

    Attributes:
        own_callbacks: Callbacks that come before the user's in `fit`.
    """

    own_callbacks = ()

    def fit(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.fit`; refuses images and labels that do not fit.

        Arrays are checked before training, other data batch by batch.
        """
        bound = inspect.signature(super().fit).bind(x, y, *args, **kwargs)
        given = bound.arguments
        self._check_whole(x, y)
        validation = given.get("validation_data")
        if isinstance(validation, (tuple, list)):
            self._check_whole(*validation[:2])
        else:
            self._check_whole(validation, None)
        if self.own_callbacks:
            given["callbacks"] = self._with_own(given.get("callbacks"))
        with self._check.readable():
            return super().fit(*bound.args, **bound.kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.evaluate`; refuses data that do not fit."""
        self._check_whole(x, y)
        with self._check.readable():
            return super().evaluate(x, y, *args, **kwargs)

    def make_train_function(self, force=False):
        before = self.train_function
        with self._checks_outside_xla():
            super().make_train_function(force)
        if self.train_function is not before:
            self.train_function = self._traced_once(
                self.train_function, self.optimizer
            )
        return self.train_function

    def make_test_function(self, force=False):
        before = self.test_function
        with self._checks_outside_xla():
            super().make_test_function(force)
        if self.test_function is not before:
            self.test_function = self._traced_once(self.test_function)
        return self.test_function

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return _of_every_worker(
            self._compiled(self._train, self._check(x, y), y, sample_weight)
        )

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return _of_every_worker(
            self._compiled(self._test, self._check(x, y), y, sample_weight)
        )

    def _with_own(self, callbacks):
        """What `fit` takes as `callbacks`, with the model's own in front."""
        if isinstance(callbacks, keras.callbacks.CallbackList):
            return keras.callbacks.CallbackList(
                [*self.own_callbacks, callbacks],
                model=self,
                **(callbacks.params or {}),
            )
        return [*self.own_callbacks, *keras.tree.flatten(callbacks or [])]

    @contextlib.contextmanager
    def _checks_outside_xla(self):
        """XLA drops checks: in here, Keras makes functions without it."""
        wanted, self.jit_compile = self.jit_compile, False
        try:
            yield
        finally:
            self.jit_compile = wanted

    def _traced_once(self, function, optimizer=None):
        """A function of batches, to which variables are there already.

        Keras makes those of compiled metrics and of the optimizer in the
        first step, and TensorFlow traces a step that makes variables twice,
        attack and all. Under a strategy Keras has made them, in its scope.
        """

        def run(batches):
            if isinstance(batches, tf.data.Iterator):
                self._build_metrics(batches.element_spec)
                weights = self.trainable_weights
                if optimizer is not None and weights and not optimizer.built:
                    optimizer.build(weights)
            return function(batches)

        return run

    def _build_metrics(self, batch):
        """Build the compiled metrics for batches of such a specification."""
        metrics = self._compile_metrics
        if metrics is None or metrics.built or not isinstance(batch, tuple):
            return
        images = keras.KerasTensor((None, *self.wrapper.input_shape))
        for labels in batch[1:2]:
            metrics.build(labels, self.compute_output_spec(images))

    def _compiled(self, step, *args):
        """A step behind its checks, by XLA where the user has asked for it."""
        if self.jit_compile:
            step = tf.function(step, jit_compile=True, autograph=False)
        return step(*args)

    def _check_whole(self, x, y):
        """Refuse arrays that do not fit, before any training."""
        if isinstance(x, tf.data.Dataset) and x.cardinality() == 0:
            raise ValueError(
                "`x` must hold at least one batch. Received: an empty "
                "tf.data.Dataset."
            )
        if isinstance(x, np.ndarray) or tf.is_tensor(x):
            self._check.arrays(x, y)


def _of_every_worker(logs):
    """Metrics as Keras can average them over the workers of a cluster.

    It averages along the first axis there, which a scalar has not.
    """
    strategy = tf.distribute.get_strategy()
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return {name: value[None] for name, value in logs.items()}
    return logs
