"""A generator and a discriminator, each with an optimizer of its own."""

import keras
import numpy as np
import tensorflow as tf

_FIXED = {"loss", "loss_weights", "metrics", "weighted_metrics"}


class GAN(keras.Model):
    """Base class: what GANs have in common in `compile`, `fit` and a file.

    A subclass supplies `train_step`, `test_step` and `trackers`. Calling the
    model calls the generator.

    Args:
        generator: Built Sequential or functional Keras model.
        discriminator: Built Sequential or functional Keras model, from images
            to one number each.
        **kwargs: Base `Model` arguments such as `name`.

    Raises:
        TypeError: If one of them is no Keras model.
        ValueError: If one of them is not built, or the discriminator does not
            take what the generator makes.
    """

    # The optimizer of `compile()`, and its settings.
    own_optimizer = {}
    # Whether `fit(x, y)` takes images as `y`, too.
    paired = False

    def __init__(self, generator, discriminator, **kwargs):
        super().__init__(**kwargs)
        self.generator = check_network("generator", generator)
        self.discriminator = check_network("discriminator", discriminator)
        made, judged = generator.output_shape, discriminator.input_shape
        if made[1:] != judged[1:] or discriminator.output_shape[1:] != (1,):
            raise ValueError(
                "`discriminator` must make one number of each image that "
                f"`generator` makes, of shape {made[1:]}. Received: a model "
                f"from {judged[1:]} to {discriminator.output_shape[1:]}"
            )
        self.built = True

    def compile(self, optimizer=None, **kwargs):
        """As `keras.Model.compile`, for training without a loss of yours.

        Args:
            optimizer: Keras optimizer of the generator, or its name; the
                discriminator has a copy of it. Defaults to `None`: the one
                that the class names.
            **kwargs: Further arguments of `keras.Model.compile`, such as
                `jit_compile`.

        Raises:
            ValueError: If there are losses or metrics among them.
        """
        for name in _FIXED & kwargs.keys():
            raise ValueError(
                f"`{name}` must not be given: a {type(self).__name__} has its "
                f"own losses and metrics. Received: {name}={kwargs[name]!r}"
            )
        if optimizer is None:
            optimizer = keras.optimizers.Adam(**self.own_optimizer)
        # Copies: one given to two models would be built for both.
        optimizer = keras.optimizers.get(optimizer)
        config = keras.optimizers.serialize(optimizer)
        generator, discriminator = (
            keras.optimizers.deserialize(config) for _ in range(2)
        )
        super().compile(generator, **kwargs)
        self.discriminator_optimizer = discriminator
        self._settings = {"optimizer": config, **kwargs}
        generator.build(self.generator.trainable_variables)
        discriminator.build(self.discriminator.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.fit`; refuses arrays of pixels outside of `[0, 1]`.

        Of a dataset it does not look at the pixels.

        Raises:
            ValueError: If a pixel is NaN, infinite or outside of `[0, 1]`.
        """
        _check_range("x", x)
        _check_range("y", y if self.paired else None)
        return super().fit(x, y, *args, **kwargs)

    def get_compile_config(self):
        return getattr(self, "_settings", None)

    def compile_from_config(self, config):
        optimizer = keras.optimizers.deserialize(config["optimizer"])
        self.compile(**{**config, "optimizer": optimizer})

    def call(self, inputs, training=None):
        return self.generator(inputs, training=training)

    @property
    def trackers(self):
        """The metrics, in the order that they are shown."""
        raise TypeError(f"{type(self).__name__} does not say its `trackers`.")

    @property
    def metrics(self):
        return self.trackers

    def get_config(self):
        return {
            **super().get_config(),
            **{
                name: keras.saving.serialize_keras_object(network)
                for name, network in (
                    ("generator", self.generator),
                    ("discriminator", self.discriminator),
                )
            },
        }

    @classmethod
    def from_config(cls, config):
        """The model that `get_config` describes."""
        networks = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("generator", "discriminator")
        }
        return cls(**{**config, **networks})

    @staticmethod
    def descend(loss, tape, network, optimizer):
        """One step of an optimizer on the weights of its network."""
        weights = network.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)


def check_network(name, network):
    """Return a Sequential or functional model, or say what came."""
    if not isinstance(network, keras.Model):
        raise TypeError(
            f"`{name}` must be a Keras model. Received: {network!r} of type "
            f"{type(network).__name__}"
        )
    if len(getattr(network, "inputs", None) or []) != 1 or not isinstance(
        network.output_shape, tuple
    ):
        raise ValueError(
            f"`{name}` must be a built Sequential or functional model with "
            f"one input and one output. Received: '{network.name}'. Start it "
            "with `keras.Input(shape)`."
        )
    return network


def check_generator(generator):
    """Return a Keras model of vectors, or say what came."""
    check_network("generator", generator)
    if len(generator.input_shape) != 2:
        raise ValueError(
            "`generator` must take vectors, shape (batch, latent). "
            f"Received: input shape {generator.input_shape}"
        )
    return generator


def check_pixels(images):
    """Return a batch of images as float32, or say what came."""
    images = tf.convert_to_tensor(images)
    if not images.dtype.is_floating:
        raise TypeError(
            "A GAN expects floating-point images in [0, 1]. Received: "
            f"dtype={images.dtype.name}. Convert them first: "
            '`x.astype("float32") / 255`.'
        )
    return tf.cast(images, tf.float32)


def _check_range(name, images):
    """Refuse an array of what are no pixels."""
    if not isinstance(images, np.ndarray) and not tf.is_tensor(images):
        return
    images = np.asarray(images)
    # What is no number lies nowhere. Integers are refused by their type.
    inside = (images >= 0) & (images <= 1)
    if np.issubdtype(images.dtype, np.floating) and not inside.all():
        raise ValueError(
            f"`{name}` must hold images of pixels in [0, 1]. Received: "
            f"{int((~inside).sum())} of {images.size} pixels outside of it or "
            f"NaN, from {images.min():.6g} to {images.max():.6g}. Rescale the "
            "images, for example `x / 255`, and mend what is no number."
        )
