"""Defense-GAN: an image is replaced by the nearest one a generator makes."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_number
from keras_qsn._core.numbers import check_positive
from keras_qsn._core.progress import Progress
from keras_qsn.defenses.gan import check_generator
from keras_qsn.defenses.projection import make_projection

_GRADIENTS = ("straight_through", "unrolled", "none")


@keras.saving.register_keras_serializable(package="keras_qsn")
class DefenseGANProjection(keras.layers.Layer):
    """Replaces each image by the nearest one that a generator makes.

    With the generator `G`, from `R` random starts `z ~ N(0, I / latent_dim)`,
    `L` steps of gradient descent with momentum on

        e(z) = mean (G(z) - x)^2

    each; the output is the `G(z)` of least error at the end. After 80 % of
    the steps the learning rate is a tenth. Put it in front of a classifier
    trained on originals, or on what it makes of them:
    `squeezed(classifier, projection)`.

    The descents of a batch, `R` of each image, run side by side, at most
    `descents_at_once` of them: memory does not grow with images times `R`.

    Args:
        generator: Keras model from vectors to images, such as
            `WassersteinGAN(...).generator`. The layer has a copy, which is
            not trained.
        num_restarts: Integer >= 1, `R`. Defaults to `10`.
        num_steps: Integer >= 1, `L`. Defaults to `200`.
        learning_rate: Float > 0. Defaults to `10.0`, the authors' for images
            of 28x28 pixels; of fewer pixels each weighs more, and less will
            do.
        momentum: Float in `[0, 1)`. Defaults to `0.7`.
        gradient: What backpropagation to the image computes.
            `"straight_through"` (default): the identity (BPDA), so that
            ordinary attacks go through. `"unrolled"`: that of the descent
            that was best, exactly, through all its steps. `"none"`: none, as
            published, which blinds whoever follows it. Evaluations that find
            the gradient hidden take the identity, this layer's `surrogate`.
        fixed_starts: If `True`, the same `R` starts for each image and each
            call: the layer is a function, as detectors and minimal distances
            need. Defaults to `False`, as published: fresh ones, and
            evaluations attack and judge in expectation.
        seed: Integer >= 0, decides the starts. Defaults to `0`.
        descents_at_once: Integer >= 1. Defaults to `512`. Each takes about
            three times what the generator's layers make of one image.
        **kwargs: Base `Layer` arguments. `trainable` defaults to `False`.

    Call arguments:
        inputs: Float images, in the range that the generator makes.

    Input shape:
        `(batch, height, width, channels)`, as the generator makes them.

    Output shape:
        Same as the input.

    Raises:
        TypeError: If `generator` is no Keras model, or the images are
            integers.
        ValueError: If an argument is out of range, the generator does not
            take vectors, or it makes images of another shape than the inputs.

    Example:

    >>> generator, _ = defense_gan_networks((28, 28, 1), width=4, seed=0)
    >>> projection = DefenseGANProjection(
    ...     generator, num_restarts=2, num_steps=5
    ... )
    >>> model = squeezed(cleverhans_cnn(seed=0), projection)
    >>> model(np.full((1, 28, 28, 1), 0.5, "float32")).shape
    TensorShape([1, 10])

    Limitations:
        BPDA leaves 55 % of MNIST at a normalized L2 distance of 0.005, and
        the exact projection onto the generator's images, which the descent
        approaches, has 0 % (Athalye et al., 2018): images that the classifier
        gets wrong are among those the generator makes. Of few steps the
        unrolled gradient breaks more than the identity: evaluate both, and
        count the worse. It can be no better than its generator: see
        `check_reconstruction`.

    Reference:
        - Samangouei et al., 2018: https://arxiv.org/abs/1805.06605, and the
          authors' code: https://github.com/kabkabm/defensegan
        - Athalye et al., 2018: https://arxiv.org/abs/1802.00420
    """

    def __init__(
        self,
        generator,
        num_restarts=10,
        num_steps=200,
        learning_rate=10.0,
        momentum=0.7,
        gradient="straight_through",
        fixed_starts=False,
        seed=0,
        descents_at_once=512,
        **kwargs,
    ):
        kwargs.setdefault("trainable", False)
        # The layer casts by itself: float16 cannot hold small steps.
        super().__init__(autocast=False, **kwargs)
        # A copy: frozen here, the given one may be trained on.
        self.generator = keras.models.clone_model(check_generator(generator))
        self.generator.set_weights(generator.get_weights())
        self.generator.trainable = self.trainable
        self.num_restarts = check_count("num_restarts", num_restarts)
        self.num_steps = check_count("num_steps", num_steps)
        self.learning_rate = check_positive("learning_rate", learning_rate)
        if not 0 <= check_number("momentum", momentum) < 1:
            raise ValueError(
                f"`momentum` must lie in [0, 1). Received: momentum={momentum}"
            )
        self.momentum = float(momentum)
        if gradient not in _GRADIENTS:
            raise ValueError(
                f"`gradient` must be one of {_GRADIENTS}. Received: "
                f"gradient={gradient!r}"
            )
        self.gradient = gradient
        self.fixed_starts = bool(fixed_starts)
        self.seed = check_count("seed", seed, 0)
        self.descents_at_once = check_count(
            "descents_at_once", descents_at_once
        )
        if not self.fixed_starts:
            self._chance = keras.random.SeedGenerator(self.seed)
        self._project = make_projection(self)

    def build(self, input_shape):
        made = self.generator.output_shape
        if tuple(input_shape[1:]) != made[1:]:
            raise ValueError(
                "A projection expects images of the shape that its generator "
                f"makes, {made[1:]}. Received: input_shape="
                f"{tuple(input_shape)}. Train a generator for them."
            )

    def call(self, inputs):
        inputs = tf.convert_to_tensor(inputs)
        if not inputs.dtype.is_floating:
            raise TypeError(
                "A projection expects floating-point images. Received: "
                f"dtype={inputs.dtype.name}. Convert them first: "
                '`x.astype("float32") / 255`.'
            )
        x = tf.cast(inputs, self.variable_dtype)
        y = self._project(x, self._starts(tf.shape(x)[0]))
        return tf.cast(y, self.compute_dtype)

    def surrogate(self, inputs):
        """What attacks differentiate in its place: the identity (BPDA)."""
        return inputs

    def project(self, x, batch_size=32, progress=None, verbose="auto"):
        """The projections of many images, with progress.

        Args:
            x: Float images, shape `(images, height, width, channels)`.
            batch_size: Images at once. Defaults to `32`.
            progress: Optional function called with `"projection"`, the number
                of images done, and their count.
            verbose: `0`, `1` or `"auto"`: a bar never, always, or for what
                takes over a second where there is no `progress`.

        Returns:
            A NumPy array of the shape of `x`.
        """
        x, made = np.asarray(x), []
        batch_size = check_count("batch_size", batch_size)
        progress = Progress(progress, verbose)
        for start in range(0, len(x), batch_size):
            made.append(np.asarray(self(x[start : start + batch_size])))
            done = min(start + batch_size, len(x))
            progress("projection", done, len(x))
        return np.concatenate(made) if made else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "generator": keras.saving.serialize_keras_object(self.generator),
            "num_restarts": self.num_restarts,
            "num_steps": self.num_steps,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "gradient": self.gradient,
            "fixed_starts": self.fixed_starts,
            "seed": self.seed,
            "descents_at_once": self.descents_at_once,
        }

    @classmethod
    def from_config(cls, config):
        """The layer that `get_config` describes."""
        generator = keras.saving.deserialize_keras_object(config["generator"])
        return cls(**{**config, "generator": generator})

    def _starts(self, count):
        """Vectors of shape `(count, R, latent)`."""
        latent = self.generator.input_shape[1]
        if self.fixed_starts:
            # Of NumPy, whose first numbers do not depend on how many follow.
            rng = np.random.default_rng(self.seed)
            normal = rng.standard_normal((self.num_restarts, latent))
            normal = tf.constant(normal, self.variable_dtype)
            normal = tf.tile(normal[None], [count, 1, 1])
        else:
            normal = tf.random.stateless_normal(
                [count, self.num_restarts, latent],
                tf.cast(self._chance.next(), tf.int32),
                dtype=self.variable_dtype,
            )
        return normal / tf.sqrt(tf.cast(latent, normal.dtype))
