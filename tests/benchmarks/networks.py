"""Networks that the benchmarks train, by name."""

import keras
import numpy as np

from keras_qsn.models import cleverhans_cnn

# Filters, kernel size and strides of each convolution, without padding; and
# the units of the dense layer behind them.
CONVOLUTIONS = {
    "3x3": ([(32, 3, 1), (32, 3, 2), (64, 3, 1), (64, 3, 2), (128, 3, 1)], 256),
    "5x5": ([(48, 5, 1), (96, 4, 2), (128, 3, 1), (192, 4, 2)], 256),
    # The paper's, half as wide again, which pads its images for the first.
    "wide": ([(96, 8, 2), (192, 6, 2), (192, 5, 1)], None),
}
_PADDED = {"wide": 3}
NAMES = ("paper", *CONVOLUTIONS, "resnet20")


def network(name, input_shape, quantizer=None, seed=None):
    """A network: the paper's, a ResNet-20, or of convolutions above."""
    if name == "paper":
        return cleverhans_cnn(input_shape, quantizer=quantizer, seed=seed)
    if name == "resnet20":
        return resnet20(input_shape, quantizer, seed)
    convolutions, dense = CONVOLUTIONS[name]
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
    if name in _PADDED:
        model.add(keras.layers.ZeroPadding2D(_PADDED[name]))
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
    if dense is not None:
        model.add(keras.layers.Dense(dense, "relu", kernel_initializer=start()))
    model.add(keras.layers.Dense(10, kernel_initializer=start()))
    return model


def resnet20(input_shape, quantizer=None, seed=None):
    """ResNet-20 of He et al. (2016), its shortcuts projected (option B)."""
    layers = keras.layers
    seeds = iter(np.random.default_rng(seed).integers(2**31, size=22).tolist())

    def normalized(x, filters, size, strides=1):
        x = layers.Conv2D(
            filters,
            size,
            strides,
            "same",
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(next(seeds)),
        )(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = x = keras.Input(input_shape)
    if quantizer is not None:
        x = quantizer(x)
    x = layers.ReLU()(normalized(x, 16, 3))
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if filters > 16 and not block else 1
            y = layers.ReLU()(normalized(x, filters, 3, strides))
            y = normalized(y, filters, 3)
            if strides > 1:
                x = normalized(x, filters, 1, strides)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    start = keras.initializers.HeNormal(next(seeds))
    return keras.Model(inputs, layers.Dense(10, kernel_initializer=start)(x))


def small(seed):
    """A CNN of 57,000 weights for digits: logits."""
    layers = keras.layers
    starts = (
        keras.initializers.GlorotUniform(number)
        for number in np.random.default_rng(seed)
        .integers(2**31, size=4)
        .tolist()
    )
    relu = {"activation": "relu"}
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 5, 2, **relu, kernel_initializer=next(starts)),
            layers.Conv2D(32, 3, 2, **relu, kernel_initializer=next(starts)),
            layers.Flatten(),
            layers.Dense(64, **relu, kernel_initializer=next(starts)),
            layers.Dense(10, kernel_initializer=next(starts)),
        ]
    )
