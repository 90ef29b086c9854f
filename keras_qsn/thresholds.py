"""Thresholds of a quantization layer: where they start, where they stay."""

import keras

from keras_qsn import quantization


@keras.saving.register_keras_serializable(package="keras_qsn")
class EquallySpaced(keras.initializers.Initializer):
    """Initializer that cuts the value range into bins of equal width.

    `t_k = k / n` along the last axis, the same for every pixel.

    Args:
        num_levels: Integer >= 2, the number of output levels `n`.
        variant: `"standard"` (`k = 1..n-1`) or `"authors"` (`k = 1..n`).

    Raises:
        ValueError: If `num_levels` or `variant` is none of these.

    Example:

    >>> EquallySpaced(num_levels=4)(shape=(1, 3)).numpy().tolist()
    [[0.25, 0.5, 0.75]]

    Reference:
        - Ali et al., 2018, text below Eq. 1: https://arxiv.org/abs/1811.01437
    """

    def __init__(self, num_levels, variant="standard"):
        self._thresholds = quantization.equally_spaced_thresholds(
            num_levels, variant
        )
        self.num_levels = int(num_levels)
        self.variant = variant

    def __call__(self, shape, dtype=None):
        thresholds = keras.ops.convert_to_tensor(
            self._thresholds, dtype or "float32"
        )
        return keras.ops.broadcast_to(thresholds, shape)

    def get_config(self):
        return {"num_levels": self.num_levels, "variant": self.variant}


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
