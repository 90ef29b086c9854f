"""A schedule of the radius that `QuSecNet` trains with."""

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
        objectives = getattr(self.model, "objectives", ())
        self._radii = [o.radius for o in objectives if o.radius is not None]
        if not self._radii:
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
        for radius in self._radii:
            radius.assign(eps)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["eps"] = float(self._radii[0].numpy())
