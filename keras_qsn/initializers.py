"""Where thresholds start, and the kernels of a network to be certified."""

import keras
import numpy as np

from keras_qsn._core.tracing import layers_of
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


def initialize_for_intervals(model, seed):
    """New weights under which interval bounds neither grow nor vanish.

    Kernels of all layers but the last: `N(0, 2 pi / fan_in^2)`, so that the
    expected `|W|` of a neuron's inputs sums to 2, which ReLU halves (Shi et
    al., 2021). Biases to zero.

    Args:
        model: Built Keras model, changed in place.
        seed: Integer.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> initialize_for_intervals(model, seed=1)
    >>> kernel = np.asarray(model.layers[0].kernel)
    >>> round(float(np.abs(kernel).sum((0, 1, 2)).mean()), 1)
    2.0

    Reference:
        - Shi et al., 2021: https://arxiv.org/abs/2103.17268
    """
    rng = np.random.default_rng(seed)
    layers = [q for q in layers_of(model) if hasattr(q, "kernel")]
    for layer in layers[:-1]:
        fan_in = int(np.prod(layer.kernel.shape[:-1]))
        # Of a hashed layer the buckets that its kernel is made of.
        weights = getattr(layer, "buckets", layer.kernel)
        draw = rng.normal(0, np.sqrt(2 * np.pi) / fan_in, weights.shape)
        weights.assign(draw)
        if layer.bias is not None:
            layer.bias.assign(np.zeros(layer.bias.shape))
