"""Where the thresholds of a quantization layer stay."""

import keras


@keras.saving.register_keras_serializable(package="keras_qsn")
class ThresholdRange(keras.constraints.Constraint):
    """Constraint that clips thresholds to an interval after every update.

    `t <- min(max(t, minimum), maximum)`, in units of the value range. On
    MNIST under an L-infinity ball of radius `eps` only thresholds inside
    `(eps, 1 - eps)` shrink the set of images an attacker can reach.

    Args:
        minimum: Float in `[0, 1]`. Defaults to `0.0`.
        maximum: Float in `[0, 1]`, at least `minimum`. Defaults to `1.0`.

    Raises:
        ValueError: If the interval is empty or leaves `[0, 1]`.

    Example:

    >>> constraint = ThresholdRange(0.3, 0.7)
    >>> constraint(np.array([0.1, 0.5, 0.9], "float32")).numpy().tolist()
    [0.30000001192092896, 0.5, 0.699999988079071]
    """

    def __init__(self, minimum=0.0, maximum=1.0):
        if not 0.0 <= minimum <= maximum <= 1.0:
            raise ValueError(
                "`minimum` and `maximum` must satisfy "
                "0 <= minimum <= maximum <= 1 (thresholds are in units of "
                "`value_range`). "
                f"Received: minimum={minimum}, maximum={maximum}"
            )
        self.minimum = float(minimum)
        self.maximum = float(maximum)

    def __call__(self, w):
        return keras.ops.clip(w, self.minimum, self.maximum)

    def get_config(self):
        return {"minimum": self.minimum, "maximum": self.maximum}
