"""A network that makes images to ask about, taught without a gradient."""

import keras
import numpy as np
import tensorflow as tf

_SLOPE = 0.2


class Generator:
    """A generator of images between two pixel values, and its training.

        z - Dense(h/4 * w/4 * 2k) - BN - x2 - Conv(2k) BN LReLU - x2 -
        Conv(k) BN LReLU - Conv(channels) BN - tanh, scaled to the range

    with 3x3 kernels, leaky ReLUs of slope 0.2, and statistics of the batch.

    Args:
        input_shape: Image shape `(height, width, channels)`.
        latent_dim: Length of `z`.
        width: `k` above.
        learning_rate: Of Adam.
        limits: Smallest and largest pixel value.
        rng: `np.random.Generator` of weights and draws.

    Raises:
        ValueError: If `input_shape` is no image.
    """

    def __init__(
        self, input_shape, latent_dim, width, learning_rate, limits, rng
    ):
        if len(input_shape) != 3 or None in input_shape:
            raise ValueError(
                "The copy must take images of one size, (height, width, "
                f"channels): they are generated. Received: {input_shape}"
            )
        self._rng = rng
        self._latent_dim = latent_dim
        self._limits = limits
        self._network = _network(input_shape, latent_dim, width, rng)
        self._learning_rate = learning_rate
        self._optimizer = keras.optimizers.Adam(learning_rate)
        self._optimizer.build(self._network.trainable_variables)
        shape = tf.TensorSpec([None, *input_shape], tf.float32)
        latent = tf.TensorSpec([None, latent_dim], tf.float32)
        self._make = tf.function(
            lambda z: self._network(z, training=True), autograph=False
        ).get_concrete_function(latent)
        self._follow = tf.function(
            self._one_step, autograph=False
        ).get_concrete_function(latent, shape)

    def pace(self, share):
        """Go on with this share of the learning rate."""
        self._optimizer.learning_rate = self._learning_rate * share

    def draw(self, count):
        """Vectors `z` of images to come."""
        shape = (count, self._latent_dim)
        return self._rng.standard_normal(shape, "float32")

    def directions(self, count, number):
        """Unit vectors, `number` for each of so many images."""
        shape = (count, number, *self._network.output_shape[1:])
        u = self._rng.standard_normal(shape, "float32")
        axes = tuple(range(2, u.ndim))
        return u / np.sqrt((u * u).sum(axes, keepdims=True))

    def before_tanh(self, z):
        """What the last layer but one makes of these vectors."""
        return self._make(tf.constant(z)).numpy()

    def images(self, before_tanh):
        """The images of what was made."""
        low, high = self._limits
        x = low + (high - low) * (np.tanh(before_tanh) + 1) / 2
        return np.clip(x, low, high).astype("float32")

    def follow(self, z, gradient):
        """One step against a gradient with respect to `before_tanh(z)`."""
        self._follow(tf.constant(z), tf.constant(gradient))

    def _one_step(self, z, gradient):
        with tf.GradientTape() as tape:
            made = self._network(z, training=True)
            along = tf.reduce_sum(made * gradient)
        variables = self._network.trainable_variables
        self._optimizer.apply(tape.gradient(along, variables), variables)


def _network(input_shape, latent_dim, width, rng):
    """From vectors to what a tanh makes images of."""
    layers = keras.layers
    height, length, channels = input_shape
    rows, columns = -(-height // 4), -(-length // 4)

    def start():
        return keras.initializers.GlorotUniform(int(rng.integers(2**31)))

    def larger(filters):
        return (
            layers.UpSampling2D(2),
            layers.Conv2D(
                filters, 3, padding="same", kernel_initializer=start()
            ),
            layers.BatchNormalization(),
            layers.LeakyReLU(_SLOPE),
        )

    surplus = (0, 4 * rows - height), (0, 4 * columns - length)
    return keras.Sequential(
        [
            keras.Input((latent_dim,)),
            layers.Dense(
                rows * columns * 2 * width, kernel_initializer=start()
            ),
            layers.Reshape((rows, columns, 2 * width)),
            layers.BatchNormalization(),
            *larger(2 * width),
            *larger(width),
            layers.Cropping2D(surplus),
            layers.Conv2D(
                channels, 3, padding="same", kernel_initializer=start()
            ),
            layers.BatchNormalization(center=False, scale=False),
        ],
        name="generator",
    )
