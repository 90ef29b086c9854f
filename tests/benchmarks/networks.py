"""Networks that the benchmarks train, by name."""

import keras
import numpy as np

from keras_qsn.models import cleverhans_cnn

# Filters, kernel size and strides of each convolution, without padding.
CONVOLUTIONS = {
    "3x3": [(32, 3, 1), (32, 3, 2), (64, 3, 1), (64, 3, 2), (128, 3, 1)],
    "5x5": [(48, 5, 1), (96, 4, 2), (128, 3, 1), (192, 4, 2)],
}
NAMES = ("paper", *CONVOLUTIONS)
_DENSE = 256


def network(name, input_shape, quantizer=None, seed=None):
    """A network: the paper's, or convolutions, a dense layer and logits."""
    if name == "paper":
        return cleverhans_cnn(input_shape, quantizer=quantizer, seed=seed)
    convolutions = CONVOLUTIONS[name]
    seeds = iter(
        np.random.default_rng(seed)
        .integers(2**31, size=len(convolutions) + 2)
        .tolist()
    )

    def start():
        return keras.initializers.HeNormal(next(seeds))

    model = keras.Sequential([keras.Input(input_shape)])
    if quantizer is not None:
        model.add(quantizer)
    for filters, size, strides in convolutions:
        model.add(
            keras.layers.Conv2D(
                filters,
                size,
                strides,
                activation="relu",
                kernel_initializer=start(),
            )
        )
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(_DENSE, "relu", kernel_initializer=start()))
    model.add(keras.layers.Dense(10, kernel_initializer=start()))
    return model
