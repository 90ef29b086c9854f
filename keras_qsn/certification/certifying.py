"""Prove that no image of a ball changes the class."""

import numpy as np

from keras_qsn._core.executors import executor_of
from keras_qsn._core.files import fingerprint
from keras_qsn._core.kept import Folder
from keras_qsn._core.kept import versions
from keras_qsn._core.kept import work_folder
from keras_qsn._core.numbers import check_number
from keras_qsn._core.progress import Progress
from keras_qsn.certification.bounds.compiled import CompiledBounds
from keras_qsn.certification.escalation import Escalation
from keras_qsn.certification.proving import Prover
from keras_qsn.classifier.inputs import check_weights
from keras_qsn.classifier.inputs import in_words
from keras_qsn.classifier.inputs import labelled_images
from keras_qsn.classifier.memory import images_at_once
from keras_qsn.classifier.wrapper import KerasModelWrapper

METHODS = ("interval", "crown", "crown-full", "branching")

# Up to which `cost_of_crown` the hidden layers are bounded by CROWN unasked:
# about a second for an image.
_AFFORDABLE = 2**24


def certify(
    model,
    x,
    y=None,
    eps=0.1,
    methods=None,
    time_limit=60.0,
    batch_size=None,
    value_range=None,
    folder=None,
    progress=None,
    verbose="auto",
    workers=1,
):
    """Prove, image by image, that no image within `eps` changes the class.

    For each image `x` with label `y`, a lower bound of

        min_{|x' - x|_inf <= eps} min_{j != y} logit_y(x') - logit_j(x')

    is computed; if it is above zero the image is certified. A hard quantizer
    at the input makes the ball an exact box of levels. Methods are tried in
    turn, each on what the one before left:

    - `"interval"`: interval bounds, the last layer fused with the margins.
    - `"crown"`: backward linear bounds on the intervals of the hidden layers.
    - `"crown-full"`: the hidden layers bounded like that too, layer by layer,
      each neuron that may be on both sides of a bend by itself.
    - `"branching"` (hard quantizers): the box is cut at undetermined pixels
      until all parts are proved or an image that breaks the model is found.

    The proof is about the deployed float32 model: its own rounding, in
    whatever order it adds, is bounded and taken off the margin. The ball
    holds every float32 image within `eps`, ends rounded outward by one
    float32, and is clipped to the pixel range.

    Args:
        model: Built Keras model, or its `KerasModelWrapper`, of layers with a
            sound rule: `QuantLayer` (first, or behind `Rescaling` or
            `Normalization`), `Conv2D`, `DepthwiseConv2D`, `SeparableConv2D`,
            `Dense`, `ReLU`, `LeakyReLU`, `PReLU`, `ELU`, `Activation` (these,
            sigmoid, tanh), `BatchNormalization`, `Normalization`,
            `Rescaling`, `Add`, `Concatenate`, pooling, padding, reshaping,
            `Dropout`, models inside. `register_rule` gives one to others.
        x: Images of shape `(images, ...)` in `value_range`, or a
            batched `tf.data.Dataset` of pairs.
        y: Labels, integers or one-hot. `None` for a dataset's own.
        eps: Float >= 0. Radius of the L-infinity ball. Defaults to `0.1`.
        methods: Names out of `"interval"`, `"crown"`, `"crown-full"`,
            `"branching"`. Defaults to `None`, by cost: intervals and CROWN;
            behind a hard quantizer branching, which bounds hidden layers as
            sharply where that pays; without one, `"crown-full"` if it takes
            about a second for an image: if neurons behind the first
            activation times values in the network are at most 2^24.
        time_limit: Seconds of `"crown-full"`, and of branching, for one
            image, without what it takes to build the functions for it, once.
            Defaults to `60.0`.
        batch_size: Images at once: a number, or the memory that they
            may take, such as `"500MB"`, and 128 at most. Defaults to `None`:
            `"2GB"`.
        value_range: Smallest and largest pixel value, numbers or arrays that
            broadcast to one image. Defaults to `None`: what a quantizer or a
            `Rescaling` in the model says, else `(0, 1)`.
        folder: Optional folder that keeps what is finished; the same call
            goes on from there after an interrupt or a kill.
        progress: Optional function called with the name of the work, the
            number of images finished, and their count.
        verbose: `0`, `1` or `"auto"`: a progress bar if it takes long.
        workers: Processes that share the images; `"ray"`, for Ray on this
            machine, or the address of a Ray cluster. Defaults to `1`: this
            process. The certificate is the same, but for images that the
            time limit cuts short.

    Returns:
        A `Certificate`.

    Raises:
        ValueError: If an argument is out of range, a layer has no sound
            rule or a weight that is not finite (they are named), or `folder`
            holds other work.
        RuntimeError: If the model computes logits outside their bounds: the
            device does not compute in float32.
        CertificationInterrupted: On Ctrl-C; holds what was finished.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((3,)),
    ...     ConstantQuantization(2, hard=True),
    ...     keras.layers.Dense(3, kernel_initializer="identity"),
    ... ])
    >>> x = [[0.9, 0.3, 0.1], [0.9, 0.3, 0.1]]
    >>> certify(model, x, [0, 1], eps=0.1, verbose=0).status.tolist()
    ['certified', 'misclassified']
    >>> certify(model, x, [0, 1], eps=0.45, verbose=0).status.tolist()
    ['broken', 'misclassified']

    Limitations:
        About L-infinity balls and the class of the logits alone. Says nothing
        of TF32 or Winograd convolutions, which some GPUs use. An image that
        is not certified need not be broken.

    Reference:
        - Gowal et al., 2018 (interval): https://arxiv.org/abs/1810.12715
        - Zhang et al., 2018 (CROWN): https://arxiv.org/abs/1811.00866
        - Bunel et al., 2020 (branching): https://arxiv.org/abs/1909.06588
    """
    wrapper = KerasModelWrapper.of(model)
    executor = executor_of(workers)
    x, y, low, high = labelled_images(
        wrapper, x, y, value_range, "a certificate is about the right one"
    )
    widest = float(np.max(np.subtract(high, low)))
    check_number("eps", eps)
    check_number("time_limit", time_limit)
    if not 0 <= eps <= widest:
        raise ValueError(
            f"`eps` is in pixel units, from 0 to {widest:g} for pixels in "
            f"{in_words(low, high)}. Received: eps={eps}"
        )
    if not time_limit > 0:
        raise ValueError(
            "`time_limit` must be a number of seconds above 0. "
            f"Received: time_limit={time_limit}"
        )
    check_weights(wrapper.model)
    bounds = CompiledBounds(wrapper, x.shape[1:])
    methods = _check_methods(methods, bounds)
    batch_size = images_at_once(batch_size, wrapper, x.shape[1:])
    settings = None
    if folder is not None:
        settings = {
            "fingerprint": wrapper.fingerprint(x.shape[1:]),
            "data": fingerprint(x, y),
            "eps": float(eps),
            "methods": list(methods),
            "time_limit": float(time_limit),
            "batch_size": batch_size,
            "range": [np.asarray(end).tolist() for end in (low, high)],
            "versions": versions(),
        }
    prover = Prover(
        *(wrapper, x.shape[1:], bounds, methods),
        *(time_limit, eps, (low, high)),
    )
    progress = Progress(progress, verbose)
    with work_folder(folder, settings) as folder:
        work = Escalation(x, y, eps, Folder(folder), progress)
        return work.run(prover, batch_size, executor)


def _check_methods(methods, bounds):
    hard = bounds.network.hard
    if methods is None:
        full = not hard and bounds.cost_of_crown <= _AFFORDABLE
        dear = [("crown-full", full), ("branching", hard)]
        return ("interval", "crown", *(name for name, on in dear if on))
    methods = (methods,) if isinstance(methods, str) else tuple(methods)
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise ValueError(
            f"`methods` must be names out of {METHODS}. "
            f"Received: methods={methods}"
        )
    if "branching" in methods and not hard:
        raise ValueError(
            "`methods` may have 'branching' only for a model with a hard "
            "quantizer at its input: there are no levels to branch on. "
            f"Received: methods={methods}. Use `QuantLayer(..., hard=True)`, "
            f"or {METHODS[:-1]}."
        )
    return methods
