"""How far a purifier moves images: a detector, and a check of the purifier."""

import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_positive
from keras_qsn.classifier.detector import Detector
from keras_qsn.classifier.detector import check_rate
from keras_qsn.classifier.inputs import as_arrays
from keras_qsn.defenses.defense_gan import DefenseGANProjection
from keras_qsn.defenses.projection import mean_squares


def check_reconstruction(purifier, x, limit=0.5, batch_size=32):
    """Refuse a purifier that does not know images like these any more.

    A generator that collapsed makes a few images whatever it is given. Its
    reconstruction error is held against that of the mean image `m` of `x`,
    the best that one image can do:

        error = sum |P(x) - x|^2 / sum |m - x|^2

    0 is perfect, and whoever always makes one image has at least 1.

    Args:
        purifier: Keras layer or model from images to purified ones, such as a
            `DefenseGANProjection` or `APEGAN(...).purifier`.
        x: Float images that it was not trained on, not adversarial; or a
            batched `tf.data.Dataset`.
        limit: Float > 0. The largest error accepted. Defaults to `0.5`, ours.
        batch_size: Integer >= 1. Images at once. Defaults to `32`.

    Returns:
        The error, a float.

    Raises:
        TypeError: If the images are integers.
        ValueError: If the error is above `limit` or no number, with the
            figure and how many images are further from what is made of them
            than from the mean image; if all images are the same, or there
            are none; or if the purifier makes them of another shape.

    Example:

    >>> x = np.random.default_rng(0).random((8, 28, 28, 1), "float32")
    >>> check_reconstruction(MedianSmoothing(1), x)
    0.0

    Limitations:
        A low error is no robustness: the identity has none. A generator may
        have lost some classes alone; the count of images tells that sooner
        than the error.

    Reference:
        - Samangouei et al., 2018: https://arxiv.org/abs/1805.06605
    """
    x = as_arrays(x)[0]
    if not np.issubdtype(x.dtype, np.floating):
        raise TypeError(
            "`x` must hold floating-point images, as the purifier takes them. "
            f"Received: dtype={x.dtype}. Convert them first: "
            '`x.astype("float32") / 255`.'
        )
    if not len(x):
        raise ValueError(
            "`x` must hold at least two images, shape (images, ...). "
            f"Received: x.shape={x.shape}"
        )
    x = x.astype("float32")
    limit = check_positive("limit", limit)
    batch_size = check_count("batch_size", batch_size)
    made = [
        np.asarray(purifier(tf.constant(x[i : i + batch_size])))
        for i in range(0, len(x), batch_size)
    ]
    made = np.concatenate(made)
    if made.shape != x.shape:
        raise ValueError(
            "A purifier must make images of the shape that it is given. "
            f"Received: {made.shape} of images of shape {x.shape}"
        )
    to_mean = np.asarray(mean_squares(x - x.mean(0)))
    if not to_mean.any():
        raise ValueError(
            "`x` must hold different images, to tell what a generator makes "
            f"of them. Received: {len(x)} that are all the same."
        )
    errors = np.asarray(mean_squares(made - x))
    error = float(errors.sum() / to_mean.sum())
    if not error <= limit:
        further = int((~(errors <= to_mean)).sum())
        raise ValueError(
            "The purifier must make images like these: a reconstruction error "
            f"of at most limit={limit:g} of that of their mean image. "
            f"Received: {error:.3g}, and {further} of {len(x)} images further "
            "from what it makes of them than from the mean image. Its GAN "
            "collapsed, or has hardly been trained; or the projection takes "
            "too few steps, or too large ones (`learning_rate`)."
        )
    return error


class ReconstructionDetector(Detector):
    """Tells adversarial images by how far they are from a generator's.

        score(x) = mean (P(x) - x)^2

    with the projection `P` of Defense-GAN. An image is rejected if its score
    is above `threshold`, which `fit` sets from legitimate images alone.

    The gradient of the score is `2 (x - P(x)) / pixels`, that of a squared
    distance to a set: at the end of a descent `P(x)` does not move it.

    Args:
        projection: `DefenseGANProjection` with `fixed_starts=True`.
        false_positive_rate: Float in `[0, 1)`, share of the legitimate images
            that may be rejected. Defaults to `0.05`.
        batch_size: Integer >= 1. Images scored at once. Defaults to `128`.

    Attributes:
        threshold: Float; `None` before `fit`. Can be set.

    Raises:
        TypeError: If `projection` is none.
        ValueError: If it starts at random, or another argument is out of
            range.

    Example:

    >>> generator, _ = defense_gan_networks((28, 28, 1), width=4, seed=0)
    >>> detector = ReconstructionDetector(DefenseGANProjection(
    ...     generator, num_restarts=1, num_steps=5, fixed_starts=True
    ... ))
    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> int(detector.fit(x).detect(x).sum())
    2

    Limitations:
        An attacker who knows of it stays near the generator's images, where
        there are adversarial ones: give it to `evaluate_robustness`, with the
        model that it stands beside.

    Reference:
        - Samangouei et al., 2018, section 4.3:
          https://arxiv.org/abs/1805.06605
        - Athalye et al., 2018: https://arxiv.org/abs/1802.00420
    """

    def __init__(self, projection, false_positive_rate=0.05, batch_size=128):
        if not isinstance(projection, DefenseGANProjection):
            raise TypeError(
                "`projection` must be a `DefenseGANProjection`. Received: "
                f"{projection!r}"
            )
        if not projection.fixed_starts:
            raise ValueError(
                "A detector must give the same image the same score. "
                "Received: a projection that starts at random. Make it with "
                "`fixed_starts=True`."
            )
        self.projection = projection
        self.false_positive_rate = check_rate(false_positive_rate)
        self.batch_size = check_count("batch_size", batch_size)

    def call(self, x):
        """The scores of a batch, as a tensor."""
        made = tf.stop_gradient(self.projection(x))
        return mean_squares(tf.cast(made, x.dtype) - x)
