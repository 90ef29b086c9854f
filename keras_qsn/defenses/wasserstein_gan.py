"""The Wasserstein GAN whose generator Defense-GAN projects onto."""

import keras
import tensorflow as tf

from keras_qsn._core.numbers import check_at_least
from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_positive
from keras_qsn.defenses.gan import GAN
from keras_qsn.defenses.gan import check_generator
from keras_qsn.defenses.gan import check_pixels

# What is drawn in a step, each from numbers of its own.
_DRAWS = ("critic", "penalty", "generator", "test")
_LIPSCHITZ = ("gradient_penalty", "weight_clipping")


@keras.saving.register_keras_serializable(package="keras_qsn")
class WassersteinGAN(GAN):
    """Trains a generator of images like those it is given (WGAN).

    With `z ~ N(0, I)`, the critic `D` and the generator `G`:

        loss of D = mean D(G(z)) - mean D(x) + penalty
        loss of G = -mean D(G(z))

    Each batch is a step of the critic, every `critic_steps`-th one a step of
    the generator, too. The critic must not be steep. Of `lipschitz`:

        "gradient_penalty"  penalty = penalty_weight mean (|D'(u)|_2 - 1)^2,
                            u at random between an image and a made one
        "weight_clipping"   its weights are clipped to +-clip_value

    The default is the penalty, which the authors of Defense-GAN train with:
    clipping drives weights to the two ends, and to simpler images.

    `fit(x)` takes images in `[0, 1]`; labels beside them are not used.

    Args:
        generator: Keras model from vectors to images.
        discriminator: Keras model from such images to one number, the critic;
            without batch normalization, since a penalty is of one image.
        lipschitz: `"gradient_penalty"` (default) or `"weight_clipping"`.
        penalty_weight: Float >= 0. Defaults to `10.0`.
        clip_value: Float > 0. Defaults to `0.01`.
        critic_steps: Integer >= 1. Defaults to `5`.
        seed: Integer. Decides `z` and `u`. Defaults to `0`.
        **kwargs: Base `Model` arguments such as `name`.

    Call arguments:
        inputs: Vectors `z`, of which images are made.

    Raises:
        TypeError: If a network is no Keras model, or images are integers.
        ValueError: If an argument is out of range, the networks do not fit
            one another or the images, or `fit` is given an array of pixels
            outside of `[0, 1]`.

    `compile()` takes the authors' Adam(1e-4, beta_1=0.5, beta_2=0.9). They
    train for 200,000 steps of the generator on batches of 50. Metrics are the
    losses, which mean little by themselves, and `wasserstein`, the critic's
    estimate of the distance between images and made ones; the smaller the
    better.

    Example:

    >>> gan = WassersteinGAN(
    ...     *defense_gan_networks((28, 28, 1), width=4, seed=0)
    ... )
    >>> gan.compile()
    >>> x = np.full((8, 28, 28, 1), 0.5, "float32")
    >>> history = gan.fit(x, batch_size=4, verbose=0)
    >>> gan(np.zeros((2, 128), "float32")).shape
    TensorShape([2, 28, 28, 1])

    Limitations:
        No defence by itself: `DefenseGANProjection` is. A generator that
        makes a few images only (collapse) has low losses too:
        `check_reconstruction` looks at held-out images.

    Reference:
        - Arjovsky et al., 2017 (WGAN): https://arxiv.org/abs/1701.07875
        - Gulrajani et al., 2017 (penalty): https://arxiv.org/abs/1704.00028
        - Samangouei et al., 2018: https://arxiv.org/abs/1805.06605
    """

    own_optimizer = {"learning_rate": 1e-4, "beta_1": 0.5, "beta_2": 0.9}

    def __init__(
        self,
        generator,
        discriminator,
        lipschitz="gradient_penalty",
        penalty_weight=10.0,
        clip_value=0.01,
        critic_steps=5,
        seed=0,
        **kwargs,
    ):
        super().__init__(check_generator(generator), discriminator, **kwargs)
        if lipschitz not in _LIPSCHITZ:
            raise ValueError(
                f"`lipschitz` must be one of {_LIPSCHITZ}. "
                f"Received: lipschitz={lipschitz!r}"
            )
        self.lipschitz = lipschitz
        self.penalty_weight = check_at_least(
            "penalty_weight", penalty_weight, 0
        )
        self.clip_value = check_positive("clip_value", clip_value)
        self.critic_steps = check_count("critic_steps", critic_steps)
        self.seed = check_count("seed", seed, 0)
        self._generator_loss = keras.metrics.Mean("generator_loss")
        self._critic_loss = keras.metrics.Mean("critic_loss")
        self._distance = keras.metrics.Mean("wasserstein")

    @property
    def trackers(self):
        return [self._generator_loss, self._critic_loss, self._distance]

    def train_step(self, data):
        x = self._images(data)
        made = self._made(tf.shape(x)[0], "critic", training=True)
        with tf.GradientTape() as tape:
            distance = self._apart(x, made, training=True)
            loss = -distance
            if self.lipschitz == "gradient_penalty":
                loss += self.penalty_weight * self._penalty(x, made)
        critic, optimizer = self.discriminator, self.discriminator_optimizer
        self.descend(loss, tape, critic, optimizer)
        if self.lipschitz == "weight_clipping":
            for weight in critic.trainable_variables:
                weight.assign(
                    tf.clip_by_value(weight, -self.clip_value, self.clip_value)
                )
        self._critic_loss.update_state(loss)
        self._distance.update_state(distance, tf.shape(x)[0])
        tf.cond(
            optimizer.iterations % self.critic_steps == 0,
            lambda: self._train_generator(tf.shape(x)[0]),
            lambda: False,
        )
        return self.get_metrics_result()

    def test_step(self, data):
        x = self._images(data)
        made = self._made(tf.shape(x)[0], "test", training=False)
        distance = self._apart(x, made, training=False)
        self._distance.update_state(distance, tf.shape(x)[0])
        return {"wasserstein": self._distance.result()}

    def get_config(self):
        return {
            **super().get_config(),
            "lipschitz": self.lipschitz,
            "penalty_weight": self.penalty_weight,
            "clip_value": self.clip_value,
            "critic_steps": self.critic_steps,
            "seed": self.seed,
        }

    def _train_generator(self, count):
        with tf.GradientTape() as tape:
            made = self._made(count, "generator", training=True)
            loss = -tf.reduce_mean(self.discriminator(made, training=True))
        self.descend(loss, tape, self.generator, self.optimizer)
        self._generator_loss.update_state(loss)
        return True

    def _made(self, count, draw, training):
        """Images of the generator, of fresh vectors."""
        z = tf.random.stateless_normal(
            [count, self.generator.input_shape[1]], self._fresh_seed(draw)
        )
        return self.generator(z, training=training)

    def _apart(self, x, made, training):
        """The critic's estimate of the distance."""
        return tf.reduce_mean(self.discriminator(x, training=training)) - (
            tf.reduce_mean(self.discriminator(made, training=training))
        )

    def _penalty(self, x, made):
        """How far slopes between images and made ones are from 1."""
        shape = [tf.shape(x)[0], *[1] * (len(x.shape) - 1)]
        share = tf.random.stateless_uniform(shape, self._fresh_seed("penalty"))
        between = x + share * (made - x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(between)
            judged = self.discriminator(between, training=True)
        slope = tf.reshape(tape.gradient(judged, between), [tf.shape(x)[0], -1])
        # The norm of a zero has no gradient.
        size = tf.sqrt(tf.reduce_sum(tf.square(slope), 1) + 1e-12)
        return tf.reduce_mean(tf.square(size - 1))

    def _fresh_seed(self, draw):
        """Of the steps so far, which a file keeps: training goes on."""
        steps = tf.cast(self.discriminator_optimizer.iterations, tf.int32)
        return tf.stack([self.seed, len(_DRAWS) * steps + _DRAWS.index(draw)])

    def _images(self, data):
        x = keras.utils.unpack_x_y_sample_weight(data)[0]
        if not x.shape.is_compatible_with(self.generator.output_shape):
            raise ValueError(
                "`x` must hold images of the shape that the generator makes, "
                f"{self.generator.output_shape[1:]}. Received: images of "
                f"shape {tuple(x.shape[1:])}"
            )
        return check_pixels(x)
