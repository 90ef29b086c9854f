"""A Keras model as a detector."""

import keras
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn.classifier.detector import Detector
from keras_qsn.classifier.detector import check_rate


class ModelDetector(Detector):
    """A detector whose score is the one output of a Keras model.

    `score(x) = model(x)`, such as the logit of a network that was trained to
    tell adversarial images from others, or an autoencoder's error at the
    image. `model.save(...)` keeps it, all but the threshold, which `fit` sets
    from legitimate images.

    Args:
        model: Keras model from a batch of images to their scores, of shape
            `(images,)` or `(images, 1)`; larger is more suspicious.
        false_positive_rate: Float in `[0, 1)`, share of the legitimate images
            that `fit` may reject. Defaults to `0.05`.
        batch_size: Integer >= 1. Images scored at once. Defaults to `128`.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it gives anything but one number for each image, or
            another argument is out of range.

    Example:

    >>> image = keras.Input((28, 28, 1))
    >>> smooth = keras.layers.AveragePooling2D(3, 1, "same")(image)
    >>> error = keras.ops.mean(abs(image - smooth), [1, 2, 3])
    >>> detector = ModelDetector(keras.Model(image, error))
    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> int(detector.fit(0.5 * x).detect(x).sum())
    40

    Limitations:
        A network trained to detect the examples of some attacks is fooled by
        an attack that knows of it, as a classifier is: give it to
        `evaluate_robustness`.

    Reference:
        - Carlini & Wagner, 2017, on ten detectors:
          https://arxiv.org/abs/1705.07263
    """

    def __init__(self, model, false_positive_rate=0.05, batch_size=128):
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`model` must be a Keras model. Received: "
                f"model={model!r}. Of a function make a subclass of "
                "`keras_qsn.defenses.Detector`."
            )
        # A subclass says none; `score` looks at what it gives.
        shape = getattr(model, "output_shape", (None,))
        shape = shape if model.built else "not built"
        if shape not in ((None,), (None, 1)):
            raise ValueError(
                "`model` must give one score for each image, shape (images,) "
                f"or (images, 1). Received: '{model.name}', {shape}. Reduce "
                "what it gives, for example by `keras.ops.max(scores, -1)`."
            )
        self.model = model
        self.false_positive_rate = check_rate(false_positive_rate)
        self.batch_size = check_count("batch_size", batch_size)

    def call(self, x):
        """The scores of a batch, as a tensor."""
        scores = tf.cast(self.model(x, training=False), tf.float32)
        return tf.reshape(scores, [-1])
