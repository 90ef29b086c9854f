"""The contract with a detector of adversarial images."""

import math

import numpy as np
import tensorflow as tf

from keras_qsn._core.files import fingerprint
from keras_qsn._core.numbers import check_number
from keras_qsn.classifier.facts import facts_of
from keras_qsn.classifier.inputs import as_arrays


class Detector:
    """Base class of detectors: a score for each image, and a threshold.

    An image is rejected if `score(x) > threshold`. A subclass implements
    `call`, from a batch of images, a tensor, to their scores, a tensor of
    shape `(images,)`, where larger is more suspicious. In operations of Keras
    or TensorFlow the attacks of `evaluate_robustness` follow its gradient.

    Attributes:
        threshold: Float; `None` before `fit`. Can be set.
        false_positive_rate: Float in `[0, 1)`, share of the legitimate images
            that `fit` may reject. Defaults to `0.05`.
        batch_size: Integer >= 1. Images scored at once. Defaults to `128`.

    Example:

    >>> class Roughness(Detector):
    ...     def call(self, x):
    ...         return tf.reduce_mean(abs(x[:, 1:] - x[:, :-1]), [1, 2, 3])
    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> detector = Roughness().fit(x)
    >>> detector.detect(np.zeros((1, 28, 28, 1), "float32"))
    array([False])

    Limitations:
        A score without a gradient, such as one of `tf.numpy_function`, hides
        it: who attacks it is left with queries. Scores must not depend on
        chance. Layers in it that hide their gradient get no surrogate.
    """

    threshold = None
    false_positive_rate = 0.05
    batch_size = 128

    def call(self, x):
        """The scores of a batch, as a tensor."""
        raise TypeError(f"{type(self).__name__} does not implement `call`.")

    def fit(self, x):
        """Set the threshold from legitimate images alone.

        It is the score at sorted index
        `ceil(N (1 - false_positive_rate)) - 1`, counted from 0.

        Args:
            x: Float images, or a batched `tf.data.Dataset`.

        Returns:
            The detector.

        Raises:
            ValueError: If there are no images, or as `score` does.
        """
        scores = np.sort(self.score(x))
        if not len(scores):
            raise ValueError(
                "`x` must hold at least one legitimate image, of whose scores "
                "the threshold is one. Received: none"
            )
        # Rounded, or 10 * (1 - 0.7) would be a little more than 3.
        kept = round(len(scores) * (1 - self.false_positive_rate), 6)
        self.threshold = float(scores[math.ceil(kept) - 1])
        return self

    def score(self, x):
        """The score of each image.

        Args:
            x: Float images, or a batched `tf.data.Dataset`.

        Returns:
            A float32 NumPy array of shape `(images,)`.

        Raises:
            ValueError: If `call` gives anything but a number for each image.
        """
        x = np.asarray(as_arrays(x)[0], "float32")
        scores = np.zeros(0, "float32")
        for start in range(0, len(x), self.batch_size):
            batch = x[start : start + self.batch_size]
            found = np.asarray(self._function(x.shape[1:])(tf.constant(batch)))
            if found.shape != (len(batch),):
                raise ValueError(
                    f"`{type(self).__name__}.call` must give one score for "
                    f"each image, shape (images,). Received: {found.shape} of "
                    f"{len(batch)} images. Reduce what it gives, for example "
                    "by `tf.reduce_max(scores, axis=-1)`."
                )
            scores = np.append(scores, found.astype("float32"))
        bad = int((~np.isfinite(scores)).sum())
        if bad:
            raise ValueError(
                "Scores must be finite. Received: NaN or infinite for "
                f"{bad} of {len(x)} images from {type(self).__name__}. Look "
                "for a division by zero or a logarithm of zero in its `call`."
            )
        return scores

    def detect(self, x):
        """Whether each image is rejected.

        Args:
            x: Float images, or a batched `tf.data.Dataset`.

        Returns:
            A boolean NumPy array of shape `(images,)`.

        Raises:
            ValueError: If there is no threshold yet.
        """
        if self.threshold is None:
            raise ValueError(
                "The detector has no threshold yet. Call `fit(x)` with "
                "legitimate images first, or set `threshold`."
            )
        return self.score(x) > self.threshold

    def fingerprint(self, shape):
        """A short text that differs for other scores or another threshold.

        Args:
            shape: Shape of one image.

        Raises:
            ValueError: If the scores depend on chance.
        """
        facts = facts_of(self.call, shape)
        if facts.random:
            raise ValueError(
                "A detector must give the same image the same score. Received: "
                f"a {type(self).__name__} that draws random numbers. Fix its "
                "seeds, or give the mean of several draws."
            )
        weights = fingerprint(*(v.numpy() for v in facts.variables))
        told = f"{facts.architecture} {weights} {self.threshold!r}"
        return fingerprint(np.array(told))

    def told(self):
        """The detector as plain values."""
        return {"detector": type(self).__name__, "threshold": self.threshold}

    def __getstate__(self):
        """Without what is compiled: another process does that itself."""
        state = {**vars(self)}
        state.pop("_compiled", None)
        return state

    def _function(self, shape):
        """`call`, compiled for images of this shape."""
        compiled = vars(self).setdefault("_compiled", {})
        if shape not in compiled:
            function = tf.function(self.call, autograph=False)
            spec = tf.TensorSpec([None, *shape], tf.float32)
            try:
                compiled[shape] = function.get_concrete_function(spec)
            except (TypeError, ValueError, tf.errors.OpError) as error:
                raise ValueError(
                    "A detector must give scores of these images. Received: "
                    f"images of shape {shape} for a {type(self).__name__}: "
                    f"{error}. Is it made for this shape, and `call` of "
                    "operations on tensors?"
                ) from error
        return compiled[shape]


def check_rate(false_positive_rate):
    """Return a share of legitimate images to reject, or say what came."""
    if not 0 <= check_number("false_positive_rate", false_positive_rate) < 1:
        raise ValueError(
            "`false_positive_rate` must lie in [0, 1). Received: "
            f"false_positive_rate={false_positive_rate}"
        )
    return float(false_positive_rate)


def check_detector(detector):
    """Return a detector that can reject, or say what is missing."""
    if not isinstance(detector, Detector):
        raise TypeError(
            "`detector` must be a `Detector`, such as "
            "`FeatureSqueezingDetector(model, squeezers).fit(x)`. Received: "
            f"detector={detector!r}. Make one of a score of your own by a "
            "subclass of `keras_qsn.defenses.Detector` with a method `call`."
        )
    if detector.threshold is None or not np.isfinite(detector.threshold):
        raise ValueError(
            "`detector` must have a threshold, a finite number. Received: a "
            f"{type(detector).__name__} with threshold={detector.threshold}. "
            "Call its `fit(x)` with legitimate images that are not those of "
            "the evaluation, or set it."
        )
    return detector
