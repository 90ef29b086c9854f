"""Feature squeezing: classify, or compare with, an image of less detail."""

import keras
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn.classifier.detector import Detector
from keras_qsn.classifier.detector import check_rate
from keras_qsn.classifier.inputs import as_arrays
from keras_qsn.classifier.inputs import check_images
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.defenses.non_local_means import NonLocalMeans
from keras_qsn.defenses.squeezers import BitDepthReduction
from keras_qsn.defenses.squeezers import MedianSmoothing


def recommended_squeezers(dataset):
    """The squeezers of the paper's best detector for a data set.

        "mnist"     1 bit, median 2x2
        "cifar10"   5 bits, median 2x2, non-local means (13, 3, 2)
        "imagenet"  5 bits, median 2x2, non-local means (11, 3, 4)

    Args:
        dataset: `"mnist"`, `"cifar10"` or `"imagenet"`.

    Returns:
        A list of new layers.

    Raises:
        ValueError: If `dataset` is none of these.

    Example:

    >>> [type(layer).__name__ for layer in recommended_squeezers("mnist")]
    ['BitDepthReduction', 'MedianSmoothing']

    Reference:
        - Xu et al., 2018: https://arxiv.org/abs/1704.01155
    """
    if dataset == "mnist":
        return [BitDepthReduction(1), MedianSmoothing(2)]
    means = {"cifar10": (13, 3, 2), "imagenet": (11, 3, 4)}
    if dataset not in means:
        raise ValueError(
            "`dataset` must be 'mnist', 'cifar10' or 'imagenet'. "
            f"Received: dataset={dataset!r}. For other data, give the "
            "detector a list of layers."
        )
    return [
        BitDepthReduction(5),
        MedianSmoothing(2),
        NonLocalMeans(*means[dataset]),
    ]


def squeezed(model, squeezer):
    """A model that classifies the squeezed image, with the same weights.

    `squeezed(model, s)(x) = model(s(x))`. As in the paper, nothing is trained
    again; the layers are those of `model`, not copies. They stay on one level
    with the squeezer, so that attacks and checks find a quantizer among them.

    Args:
        model: Built Sequential or functional Keras model with one input.
        squeezer: Keras layer, such as `BitDepthReduction(1)`, or a purifier
            such as `APEGAN(...).purifier`.

    Returns:
        A functional Keras model, not compiled.

    Raises:
        TypeError: If `squeezer` is not a layer.
        ValueError: If `model` is not such a model, or images of another shape
            go into the squeezer or come out of it.

    Example:

    >>> model = squeezed(cleverhans_cnn(seed=0), BitDepthReduction(1))
    >>> type(model.layers[1]).__name__, model.layers[-1].name
    ('BitDepthReduction', 'logits')

    A defence of your own is a layer, and whatever takes a model judges it.
    Let the gradient through, as here, or only attacks without one can:

    >>> @keras.saving.register_keras_serializable("mine")
    ... class Rounded(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         rest = keras.ops.stop_gradient(inputs % 0.25)
    ...         return inputs - rest
    >>> model = squeezed(cleverhans_cnn(seed=0), Rounded())
    >>> x = np.full((2, 28, 28, 1), 0.4, "float32")
    >>> result = FastGradientMethod(eps=0.3).run(model, x, [3, 4], verbose=0)
    >>> result.success.tolist()
    [True, True]

    Limitations:
        A bit depth hides the gradient and a filter does not; either way an
        attacker who knows the squeezer attacks through it. Attack the
        squeezed model, never the one inside: He et al. (2017) show what the
        second is worth.

    Reference:
        - Xu et al., 2018: https://arxiv.org/abs/1704.01155
        - He et al., 2017: https://arxiv.org/abs/1706.04701
    """
    if not isinstance(squeezer, keras.layers.Layer):
        raise TypeError(
            "`squeezer` must be a Keras layer, such as `MedianSmoothing(2)`. "
            f"Received: squeezer={squeezer!r}"
        )
    if len(getattr(model, "inputs", None) or []) != 1:
        raise ValueError(
            "`model` must be a built Sequential or functional Keras model "
            f"with one input. Received: model={model!r}. Start it with "
            "`keras.Input(shape)`; of a `QuSecNet` give the `model` inside."
        )
    entry = model.inputs[0]
    images = keras.Input(batch_shape=entry.shape, dtype=entry.dtype)
    _check_shape("takes", getattr(squeezer, "input_shape", None), entry.shape)
    seen = squeezer(images)
    _check_shape("makes", seen.shape, entry.shape)
    # Called as a layer the model would be nested: a single opaque layer.
    return keras.Model(images, model.call(seen))


def _check_shape(verb, shape, expected):
    """Refuse a squeezer made for other images than the classifier."""
    if shape is not None and (
        len(shape) != len(expected)
        or any(
            None not in pair and pair[0] != pair[1]
            for pair in zip(shape[1:], expected[1:])
        )
    ):
        raise ValueError(
            "`squeezer` must take and make images of the shape that `model` "
            f"takes, {tuple(expected[1:])}. Received: a layer that {verb} "
            f"{tuple(shape[1:])}. Make or train one for these images."
        )


class FeatureSqueezingDetector(Detector):
    """Tells adversarial images by how far squeezing moves the prediction.

    With `p` the class probabilities and `s` the squeezers:

        score(x) = max_s |p(x) - p(s(x))|_1, in [0, 2]

    An image is called adversarial if its score is above `threshold`, which
    `fit` sets from legitimate images alone: the score at sorted index
    `ceil(N (1 - false_positive_rate)) - 1`, counted from 0.

    Args:
        model: Keras classifier, of logits or of probabilities, or a
            `KerasModelWrapper` around one, for images in `[0, 1]`.
        squeezers: List of Keras layers, such as
            `recommended_squeezers("mnist")`.
        false_positive_rate: Float in `[0, 1)`, share of the legitimate images
            that may be called adversarial. Defaults to `0.05`.
        batch_size: Integer >= 1. Images scored at once. Defaults to `128`.

    Attributes:
        threshold: Float; `None` before `fit`. Can be set. The authors
            publish 1.2358 (MNIST) and 1.7547 (CIFAR-10) for their networks.

    Raises:
        TypeError: If a squeezer is not a layer.
        ValueError: If there is none, or another argument is out of range.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> detector = FeatureSqueezingDetector(
    ...     model, recommended_squeezers("mnist")
    ... )
    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> int(detector.fit(x).detect(x).sum())
    2

    Limitations:
        An attacker who knows of it adds `max(score - threshold, 0)` to the
        loss, and He et al. (2017) defeat this very detector so, with little
        more distortion. A detection rate on examples made against the bare
        model is no robustness: give it to `evaluate_robustness`. The rate of
        false positives holds for images like those given to `fit` only.

    Reference:
        - Xu et al., 2018: https://arxiv.org/abs/1704.01155
        - He et al., 2017: https://arxiv.org/abs/1706.04701
    """

    def __init__(
        self, model, squeezers, false_positive_rate=0.05, batch_size=128
    ):
        squeezers = list(squeezers)
        if not squeezers:
            raise ValueError(
                "`squeezers` must hold at least one layer. Received: "
                "squeezers=[]. Take `recommended_squeezers(dataset)`."
            )
        for squeezer in squeezers:
            if not isinstance(squeezer, keras.layers.Layer):
                raise TypeError(
                    "`squeezers` must be Keras layers, such as "
                    f"`MedianSmoothing(2)`. Received: {squeezer!r} in it."
                )
        self._wrapper = KerasModelWrapper.of(model)
        self.squeezers = squeezers
        self.false_positive_rate = check_rate(false_positive_rate)
        self.batch_size = check_count("batch_size", batch_size)

    def score(self, x):
        """How far squeezing moves the prediction of each image.

        Args:
            x: Float images in `[0, 1]`, or a batched `tf.data.Dataset`.

        Returns:
            A float32 NumPy array of shape `(images,)`, in `[0, 2]`.
        """
        x = as_arrays(x)[0]
        return super().score(check_images(x, 0.0, 1.0, self._wrapper))

    def call(self, x):
        """The scores of a batch, as a tensor."""
        bare, *moved = (
            tf.cast(self._wrapper.get_probs(seen), tf.float32)
            for seen in (x, *(squeezer(x) for squeezer in self.squeezers))
        )
        return tf.reduce_max(tf.norm(moved - bare, ord=1, axis=-1), axis=0)
