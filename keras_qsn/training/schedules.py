"""Schedules: what `QuSecNet` trains with, epoch by epoch."""

import keras
import numpy as np


class EpsScheduler(keras.callbacks.Callback):
    """Sets the `eps` that `QuSecNet` trains with, epoch by epoch.

    Adversarial training from scratch at full strength can stall on a constant
    prediction; a ramp avoids it. `evaluate` and validation keep the attack's
    own `eps`. The value used appears in the logs as `eps`.

    Args:
        schedule: Function from the epoch (from 0) to `eps`.

    Raises:
        ValueError: If the model being trained is not a `QuSecNet` with an
            attack, or the schedule returns a negative or infinite value.

    Example:

    >>> ramp = EpsScheduler(lambda epoch: 0.3 * min(1.0, epoch / 5))
    >>> ramp.schedule(10)
    0.3
    """

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def on_epoch_begin(self, epoch, logs=None):
        if getattr(self.model, "eps", None) is None:
            raise ValueError(
                "`EpsScheduler` needs a `QuSecNet` that was given an attack. "
                f"Received: {self.model!r}"
            )
        eps = float(self.schedule(epoch))
        if not (np.isfinite(eps) and eps >= 0):
            raise ValueError(
                "`schedule` must return a finite number >= 0. "
                f"Received: {eps} at epoch {epoch}"
            )
        self.model.eps.assign(eps)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["eps"] = float(self.model.eps.numpy())


class GrowingBox(keras.callbacks.Callback):
    """Sets how much of the box counts, batch by batch; `fit` adds it.

    Where nobody knows how many batches an epoch has, the first one of a `fit`
    keeps the growth it starts with, and tells the others. An epoch longer
    than that waits for the next one: the box never shrinks, and never runs
    ahead of its epochs.
    """

    def on_train_begin(self, logs=None):
        self._steps = (self.params or {}).get("steps")

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        share = min(batch / self._steps, 1) if self._steps else 0
        training = self.model.certification
        self.model.growth.assign(training.growth(self._epoch + share))
        self._begun = batch

    def on_epoch_end(self, epoch, logs=None):
        # The last batch begun is the one at which the data were found to end.
        self._steps = self._steps or self._begun
        if logs is not None:
            logs["box"] = float(self.model.growth.numpy())


def with_callbacks(own, callbacks, model):
    """What `fit` takes as `callbacks`, with others in front.

    Args:
        own: List of Keras callbacks.
        callbacks: A callback, a list of them, a `CallbackList` or `None`.
        model: Keras model being trained.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return keras.callbacks.CallbackList(
            [*own, callbacks], model=model, **(callbacks.params or {})
        )
    return [*own, *keras.tree.flatten(callbacks or [])]
