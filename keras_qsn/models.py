"""The paper's network, and Cleverhans' view of any Keras model."""

import keras
import numpy as np

from keras_qsn.classifier.ensemble import ensemble
from keras_qsn.classifier.preprocessing import with_preprocessing
from keras_qsn.classifier.queries import QueryError
from keras_qsn.classifier.queries import QueryModel
from keras_qsn.classifier.wrapper import KerasModelWrapper

__all__ = [
    "KerasModelWrapper",
    "QueryError",
    "QueryModel",
    "cleverhans_cnn",
    "ensemble",
    "with_preprocessing",
]


def cleverhans_cnn(
    input_shape=(28, 28, 1), num_classes=10, quantizer=None, seed=None
):
    """The CNN of the paper and of the Cleverhans tutorials.

        [quantizer] - Conv(64, 8x8, /2, same) - ReLU - Conv(128, 6x6, /2,
        valid) - ReLU - Conv(128, 5x5, valid) - ReLU - Flatten - Dense logits

    The paper trains it with Adam, learning rate 1e-3, batch size 128, for 6
    to 10 epochs.

    Args:
        input_shape: Image shape `(height, width, channels)`, at least 26
            pixels high and wide. Defaults to MNIST's `(28, 28, 1)`; CIFAR-10
            is `(32, 32, 3)`.
        num_classes: Integer >= 2. Defaults to `10`.
        quantizer: Optional layer to put in front, such as
            `keras_qsn.layers.TrainableQuantization()`.
        seed: Optional integer. The same seed gives the same weights.

    Returns:
        A built `keras.Sequential` whose output is logits.

    Raises:
        ValueError: If `input_shape` is not an image of at least 26x26
            pixels, or `num_classes` is below 2.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> model.count_params(), model.output_shape
    (710218, (None, 10))

    Limitations:
        Trained without attacks it has no robustness: FGSM at eps 0.3 leaves
        a few percent on MNIST.

    Reference:
        - Ali et al., 2018, section IV: https://arxiv.org/abs/1811.01437
        - Cleverhans v3.1 `basic_cnn.ModelBasicCNN`:
          https://github.com/cleverhans-lab/cleverhans
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < 26:
        raise ValueError(
            "`input_shape` must be (height, width, channels) of at least "
            "26x26 pixels, as in (28, 28, 1). "
            f"Received: input_shape={tuple(input_shape)}"
        )
    if num_classes < 2:
        raise ValueError(
            "`num_classes` must be at least 2. "
            f"Received: num_classes={num_classes}"
        )
    convolutions = [
        dict(filters=64, kernel_size=8, strides=2, padding="same"),
        dict(filters=128, kernel_size=6, strides=2, padding="valid"),
        dict(filters=128, kernel_size=5, strides=1, padding="valid"),
    ]
    # One seed for each layer, all drawn from the caller's.
    seeds = (
        np.random.default_rng(seed)
        .integers(2**31, size=len(convolutions) + 1)
        .tolist()
    )
    model = keras.Sequential([keras.Input(input_shape)])
    if quantizer is not None:
        model.add(quantizer)
    for convolution, layer_seed in zip(convolutions, seeds):
        model.add(
            keras.layers.Conv2D(
                **convolution,
                activation="relu",
                kernel_initializer=keras.initializers.HeNormal(layer_seed),
            )
        )
    model.add(keras.layers.Flatten())
    model.add(
        keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.HeNormal(seeds[-1]),
            name="logits",
        )
    )
    return model
