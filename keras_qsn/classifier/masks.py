"""Where a network hides its gradient, part by part.

A part's own gradient is held against finite differences at the scale of the
attack: those of its output, between what it is given of images a step apart.
"""

import contextlib
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.classifier.heads import LinearHead
from keras_qsn.classifier.parts import parts_of
from keras_qsn.layers import QuantLayer

_IMAGES = 16
_PROJECTIONS = 8
# Cosine of what the gradient tells and what happens, below which it misleads.
_AGREES = 0.5
# Of the size of an output.
_ROUNDING = 8 * np.finfo("float32").eps
# Activations whose slope is that of the function at any scale.
_PLAIN = {
    getattr(keras.activations, name)
    for name in (
        "linear",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "gelu",
        "silu",
        "softplus",
        "mish",
    )
}
# Of Keras' own layers, those that may compute anything.
_OPEN = (
    keras.layers.Lambda,
    keras.layers.Discretization,
    keras.layers.CategoryEncoding,
)


@dataclasses.dataclass(frozen=True)
class Mask:
    """A part of a network that hides its gradient.

    Attributes:
        part: The `Part`.
        gradient: `"none"`, `"zero"`, or `"misleading"`: not what finite
            differences say.
        given: What it is given, of images and of two points beside each, and
            the arguments of its call: a `Record`.
    """

    part: object
    gradient: str
    given: object


@dataclasses.dataclass(frozen=True)
class Record:
    """What a part was given at images, and a step of an attack to each side.

    Attributes:
        middle: Its input at the images.
        low: At the one side.
        high: At the other side.
        args: Further arguments of its call.
        kwargs: Likewise, by name.
    """

    middle: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor
    args: tuple
    kwargs: dict


def find_masks(wrapper, x, threat):
    """Each `Mask` of a network, in the order that its parts are met.

    Quantization layers of this package are none: what goes through them is
    known.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        x: Images.
        threat: What has an `eps`, a `norm`, `clip_min`, `clip_max` and a
            `seed`.
    """
    x = x[:_IMAGES]
    sides = neighbours(x, threat)
    parts = [p for p in parts_of(wrapper.network) if _may_hide(p)]
    if not parts:
        return []
    called = recorded(wrapper, parts, (x, *sides))
    inside, masks = set(), []
    for part in sorted(called, key=parts.index):
        inputs, args, kwargs = called[part]
        record = Record(*inputs, args, kwargs)
        if inside & {id(inner) for inner in _layers_in(part.owner)}:
            # One inside it hides the gradient, and a surrogate mends that.
            continue
        gradient = _hides(part.alone, record)
        if gradient:
            inside.add(id(part.owner))
            masks.append(Mask(part, gradient, record))
    order = [*called]
    return sorted(masks, key=lambda mask: order.index(mask.part))


def neighbours(x, threat):
    """Two points in the ball around each image, one at each side of it.

    A step of L-infinity moves all pixels, one of L2 some of them by as much
    as attacks do.
    """
    rng = np.random.default_rng(threat.seed)
    step = threat.eps * rng.choice([-1.0, 1.0], x.shape)
    if threat.norm == 2:
        moved = max(x[0].size // 16, 1)
        step *= rng.random(x.shape) < moved / x[0].size
        step /= np.sqrt(moved)
    low, high = threat.clip_min, threat.clip_max
    return tuple(
        np.clip(x + s * step, low, high).astype("float32") for s in (-1, 1)
    )


def recorded(wrapper, parts, batches):
    """What each part is given of batches of images.

    Of parts that are given one tensor of floats: lists of their inputs, and
    the other arguments of their calls, in the order they are called.
    """
    called = {}

    def run(x):
        seen = {}

        def recording(part):
            def call(inputs, *args, **kwargs):
                others = tf.nest.flatten((args, kwargs))
                alone = not any(map(tf.is_tensor, others))
                # What is inside of a loop cannot be taken out of it.
                known = tf.is_tensor(inputs) and inputs.graph is x.graph
                if part not in called and known and alone:
                    if inputs.dtype.is_floating:
                        seen[str(parts.index(part))] = inputs
                        called[part] = args, kwargs
                return part.function(inputs, *args, **kwargs)

            return call

        with contextlib.ExitStack() as stack:
            for part in parts:
                stack.enter_context(part.replaced(recording(part)))
            wrapper.get_logits(x)
        return seen

    # Not eagerly: of a subclassed model only a trace has the logits.
    spec = tf.TensorSpec([None, *batches[0].shape[1:]], tf.float32)
    traced = tf.function(run, autograph=False).get_concrete_function(spec)
    given = [traced(tf.constant(x)) for x in batches]
    return {
        part: ([h[str(parts.index(part))] for h in given], *arguments)
        for part, arguments in called.items()
    }


def agreement(function, record, wanted):
    """Cosine of what a function's gradient tells, and what happens.

    Args:
        function: Of the part's input.
        record: The part's `Record`.
        wanted: What the part makes of the one side and of the other.

    Returns:
        The cosine, from -1 to 1; 0 where the gradient is zero, NaN where
        nothing happens, and `None` where there is no gradient.
    """
    rng = np.random.default_rng(0)
    change = tf.cast(wanted[1], tf.float32) - tf.cast(wanted[0], tf.float32)
    step = tf.cast(record.high, tf.float32) - tf.cast(record.low, tf.float32)
    told, happened = [], []
    for _ in range(_PROJECTIONS):
        weights = tf.constant(rng.normal(size=change.shape), tf.float32)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(record.middle)
            y = tf.cast(function(record.middle), tf.float32)
        gradient = _gradient(tape, y, record.middle, weights)
        if gradient is None:
            return None
        told.append(_sums(tf.cast(gradient, tf.float32) * step))
        happened.append(_sums(weights * change))
    told, happened = np.concatenate(told), np.concatenate(happened)
    if not told.any():
        return 0.0
    # Of an output that hardly moves, a difference is all rounding.
    if np.abs(change).max() <= _ROUNDING * np.abs(wanted[0]).max():
        return float("nan")
    size = np.linalg.norm(told) * np.linalg.norm(happened)
    return float(told @ happened / size) if size else float("nan")


def _hides(function, record):
    """How a part hides its gradient, or `None`."""

    def call(h):
        return function(h, *record.args, **record.kwargs)

    first, again = call(record.middle), call(record.middle)
    if not (tf.is_tensor(first) and first.dtype.is_floating):
        return None
    cosine = agreement(call, record, (call(record.low), call(record.high)))
    if cosine is None:
        return "none"
    if cosine == 0:
        return "zero"
    # What draws changes without a step, too.
    same = np.array_equal(first, again)
    return "misleading" if same and cosine < _AGREES else None


def _may_hide(part):
    owner = part.owner
    if isinstance(owner, (QuantLayer, LinearHead, keras.Model)):
        return False
    activation = getattr(owner, "activation", None)
    if part.method == "activation":
        return activation not in _PLAIN
    of_keras = type(owner).__module__.startswith("keras.src.layers")
    return not of_keras or isinstance(owner, _OPEN)


def _layers_in(owner):
    flatten = getattr(owner, "_flatten_layers", None)
    return [owner] if flatten is None else flatten()


def _gradient(tape, y, x, weights):
    try:
        return tape.gradient(y, x, weights)
    except (LookupError, TypeError, ValueError):
        # No gradient is registered, or one that is not given a gradient.
        return None


def _sums(values):
    return np.asarray(tf.reduce_sum(tf.reshape(values, [len(values), -1]), 1))
