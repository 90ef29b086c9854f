"""Where the thresholds of a quantization layer start."""

import keras

from keras_qsn.quantization import equally_spaced_thresholds


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
        self._thresholds = equally_spaced_thresholds(num_levels, variant)
        self.num_levels = int(num_levels)
        self.variant = variant

    def __call__(self, shape, dtype=None):
        thresholds = keras.ops.convert_to_tensor(
            self._thresholds, dtype or "float32"
        )
        return keras.ops.broadcast_to(thresholds, shape)

    def get_config(self):
        return {"num_levels": self.num_levels, "variant": self.variant}
