"""APE-GAN: a network that takes the adversarial perturbation out again."""

import keras
import tensorflow as tf

from keras_qsn._core.numbers import check_at_least
from keras_qsn._core.numbers import check_count
from keras_qsn.defenses.gan import GAN
from keras_qsn.defenses.gan import check_pixels

_CONTENT_LOSSES = ("rmse", "mse")


@keras.saving.register_keras_serializable(package="keras_qsn")
class APEGAN(GAN):
    """Trains a purifier on pairs of adversarial and clean images.

    The generator `G` maps an image to a purified one; the discriminator `D`
    tells clean images from purified ones. With BCE the binary cross-entropy:

        loss of D = BCE(D(x), 1) + BCE(D(G(x_adv)), 0)
        loss of G = content_weight * d(G(x_adv), x)
                    + adversarial_weight * BCE(D(G(x_adv)), 1)

    where `d` is the root of the mean squared error of a batch, or the mean
    squared error. A batch is one step of `D` and `generator_steps` of `G`.

    `fit(x_adv, x)` takes the adversarial images as inputs and the clean ones
    as targets. Pairs of clean images, `fit(concat(x_adv, x), concat(x, x))`,
    teach `G` to leave those alone; the authors' code trains on the pairs it
    is given. The purifier is then a model in front of any classifier, which
    is not trained again: `squeezed(classifier, gan.purifier)`.

    Args:
        generator: Keras model from images to images of the same shape.
        discriminator: Keras model from such images to one logit.
        content_loss: `"rmse"` (default), the authors' code, or `"mse"`.
        content_weight: Float >= 0. Defaults to `1.8`: the authors' 0.9 is for
            pixels in `[-1, 1]`, where distances are twice those in `[0, 1]`.
        adversarial_weight: Float >= 0. Defaults to `0.02`, the authors' code;
            another implementation has `"mse"` with weights 0.7 and 0.3.
        generator_steps: Integer >= 1. Defaults to `2`, the authors' code.
        **kwargs: Base `Model` arguments such as `name`.

    Attributes:
        purifier: The generator.

    Call arguments:
        inputs: Float images in `[0, 1]`, which are purified.

    Raises:
        TypeError: If a network is no Keras model, or images are integers.
        ValueError: If an argument is out of range, the networks do not fit
            one another, or `fit` is given images without their clean ones, or
            arrays of pixels outside of `[0, 1]`.

    `compile()` takes the authors' Adam(2e-4, beta_1=0.5). They train for 2
    epochs on MNIST and 5 on CIFAR-10 in batches of 64. Metrics are the loss
    of either network and `reconstruction_error`, the mean squared error of
    purified images.

    Example:

    >>> x, y = np.full((8, 28, 28, 1), 0.5, "float32"), np.arange(8)
    >>> classifier = cleverhans_cnn(seed=0)
    >>> x_adv = FastGradientMethod(eps=0.15).generate(classifier, x, y)
    >>> gan = APEGAN(*ape_gan_networks((28, 28, 1), width=4, seed=0))
    >>> gan.compile()
    >>> history = gan.fit(x_adv, x, verbose=0)
    >>> squeezed(classifier, gan.purifier).output_shape
    (None, 10)

    Limitations:
        It takes out the perturbations that it was trained on. The purifier is
        differentiable, and Carlini and Wagner (2017) defeat it with CW-L2
        through both networks: attack the purified classifier, not the bare
        one. A GAN that collapsed makes images of its own:
        `check_reconstruction` says so.

    Reference:
        - Shen et al., 2017: https://arxiv.org/abs/1707.05474, and the
          authors' code: https://github.com/shenqixiaojiang/APE-GAN
        - Carlini and Wagner, 2017: https://arxiv.org/abs/1711.08478
    """

    own_optimizer = {"learning_rate": 2e-4, "beta_1": 0.5}
    paired = True

    def __init__(
        self,
        generator,
        discriminator,
        content_loss="rmse",
        content_weight=1.8,
        adversarial_weight=0.02,
        generator_steps=2,
        **kwargs,
    ):
        super().__init__(generator, discriminator, **kwargs)
        if generator.input_shape[1:] != generator.output_shape[1:]:
            raise ValueError(
                "`generator` must make images of the shape it is given. "
                f"Received: a model from {generator.input_shape[1:]} to "
                f"{generator.output_shape[1:]}"
            )
        if content_loss not in _CONTENT_LOSSES:
            raise ValueError(
                f"`content_loss` must be one of {_CONTENT_LOSSES}. "
                f"Received: content_loss={content_loss!r}"
            )
        self.content_loss = content_loss
        self.content_weight = check_at_least(
            "content_weight", content_weight, 0
        )
        self.adversarial_weight = check_at_least(
            "adversarial_weight", adversarial_weight, 0
        )
        self.generator_steps = check_count("generator_steps", generator_steps)
        self._generator_loss = keras.metrics.Mean("generator_loss")
        self._discriminator_loss = keras.metrics.Mean("discriminator_loss")
        self._error = keras.metrics.Mean("reconstruction_error")

    @property
    def purifier(self):
        return self.generator

    @property
    def trackers(self):
        return [self._generator_loss, self._discriminator_loss, self._error]

    def train_step(self, data):
        x_adv, x = self._pairs(data)
        purified = self.generator(x_adv, training=True)
        with tf.GradientTape() as tape:
            loss = _cross_entropy(self.discriminator(x, training=True), 1.0)
            loss += _cross_entropy(
                self.discriminator(purified, training=True), 0.0
            )
        self.descend(
            loss, tape, self.discriminator, self.discriminator_optimizer
        )
        self._discriminator_loss.update_state(loss)
        for _ in range(self.generator_steps):
            with tf.GradientTape() as tape:
                purified = self.generator(x_adv, training=True)
                error = tf.reduce_mean(tf.square(purified - x))
                loss = self._loss(error, purified, training=True)
            self.descend(loss, tape, self.generator, self.optimizer)
        self._generator_loss.update_state(loss)
        self._error.update_state(error, tf.shape(x)[0])
        return self.get_metrics_result()

    def test_step(self, data):
        x_adv, x = self._pairs(data)
        purified = self.generator(x_adv, training=False)
        error = tf.reduce_mean(tf.square(purified - x))
        loss = _cross_entropy(self.discriminator(x, training=False), 1.0)
        loss += _cross_entropy(
            self.discriminator(purified, training=False), 0.0
        )
        self._discriminator_loss.update_state(loss)
        self._generator_loss.update_state(
            self._loss(error, purified, training=False)
        )
        self._error.update_state(error, tf.shape(x)[0])
        return self.get_metrics_result()

    def get_config(self):
        return {
            **super().get_config(),
            "content_loss": self.content_loss,
            "content_weight": self.content_weight,
            "adversarial_weight": self.adversarial_weight,
            "generator_steps": self.generator_steps,
        }

    def _loss(self, error, purified, training):
        """The generator's, of the mean squared error of a batch."""
        if self.content_loss == "rmse":
            # The root has no slope at 0.
            error = tf.sqrt(error + keras.config.epsilon())
        judged = self.discriminator(purified, training=training)
        adversarial = _cross_entropy(judged, 1.0)
        return (
            self.content_weight * error + self.adversarial_weight * adversarial
        )

    def _pairs(self, data):
        x_adv, x, weights = keras.utils.unpack_x_y_sample_weight(data)
        shape = self.generator.input_shape
        if x is None or weights is not None:
            raise ValueError(
                "`fit` and `evaluate` must be given adversarial images and "
                "the clean ones they come from, `fit(x_adv, x)`. Received: "
                + ("sample weights too." if weights is not None else "one.")
            )
        for images in (x_adv, x):
            if not images.shape.is_compatible_with(shape):
                raise ValueError(
                    f"`x_adv` and `x` must be images of shape {shape[1:]}. "
                    f"Received: images of shape {tuple(images.shape[1:])}"
                )
        return check_pixels(x_adv), check_pixels(x)


def _cross_entropy(logits, label):
    """Mean binary cross-entropy of logits that all have one label."""
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(
            tf.fill(tf.shape(logits), label), logits
        )
    )
