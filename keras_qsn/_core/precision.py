"""A model's inner layers in fewer bits, while a function is traced."""

import contextlib
import functools
import threading
import time

import keras
import tensorflow as tf

from keras_qsn._core.convolution import fast_convolutions
from keras_qsn._core.tracing import layers_of

# As many times faster must products be to be worth their rounding.
_WORTH = 1.25
# Those that products are there for; of floats of 8 bits they are not.
_FLOATS = ("bfloat16", "float16", "float32", "float64")


@contextlib.contextmanager
def low_precision(model, dtype):
    """Within it, and in this thread, the inner layers compute in `dtype`.

    As under the policy `mixed_{dtype}`: weights are rounded where they are
    read, activations stay in `dtype` from one layer to the next. What comes
    before the first product is computed as it is, and so are the last one,
    of the logits, and what follows it; layers that are none of Keras' own,
    such as quantizers, and layers of layers, such as recurrent ones, compute
    as they are wherever they stand.

    Args:
        model: Keras model; models inside it are reached too.
        dtype: Name of a float type, such as `"bfloat16"`.
    """
    layers = _inner_layers(model)
    for layer in layers:
        _PolicyHere.push(layer, dtype)
    try:
        # Products that are called for by themselves, as those of bounds are.
        with fast_convolutions(model, dtype):
            yield
    finally:
        for layer in layers:
            _PolicyHere.pop(layer)


@functools.cache
def fast_dtype():
    """`"bfloat16"` where this processor multiplies it faster, else `"float32"`.

    Measured once in a process, in some hundredths of a second, on the product
    that a convolution is.
    """
    x = tf.random.stateless_uniform([512, 512], [0, 0])
    seconds = {}
    for dtype in ("float32", "bfloat16"):
        values = tf.cast(x, dtype)
        times = []
        for _ in range(4):
            started = time.perf_counter()
            tf.linalg.matmul(values, values).numpy()
            times.append(time.perf_counter() - started)
        seconds[dtype] = min(times)
    faster = seconds["float32"] > _WORTH * seconds["bfloat16"]
    return "bfloat16" if faster else "float32"


def check_float_type(name, dtype, hint=""):
    """Return the name of a float type; an error ends with `hint`."""
    try:
        known = keras.backend.standardize_dtype(dtype)
    except ValueError:
        known = None
    if known not in _FLOATS:
        raise ValueError(
            f"`{name}` must be a float type, {', '.join(_FLOATS)}. Received: "
            f"{name}={dtype!r}{hint}"
        )
    return known


def has_inner_layers(model):
    """Whether there is a layer of the model that `low_precision` is for."""
    return bool(_inner_layers(model))


def _inner_layers(model):
    """The layers between the first product and the last one."""
    layers = list(layers_of(model))
    products = [i for i, layer in enumerate(layers) if hasattr(layer, "kernel")]
    if len(products) < 2:
        return []
    return [
        layer
        for layer in layers[products[0] : products[-1]]
        if type(layer).__module__.startswith(("keras.", "keras_qsn._core."))
        and not [*layer._flatten_layers(include_self=False)]
        and layer.compute_dtype == "float32"
    ]


class _PolicyHere(keras.DTypePolicy):
    """A layer's policy, of which some threads see a lower precision."""

    _lock = threading.RLock()

    def __init__(self, own):
        super().__init__(own.name)
        self.own = own
        self._threads = threading.local()
        self._uses = 0

    @property
    def compute_dtype(self):
        stack = getattr(self._threads, "stack", None)
        return stack[-1] if stack else self.own.compute_dtype

    @classmethod
    def push(cls, layer, dtype):
        with cls._lock:
            if not isinstance(layer.dtype_policy, cls):
                layer.dtype_policy = cls(layer.dtype_policy)
            policy = layer.dtype_policy
            policy._uses += 1
        if not hasattr(policy._threads, "stack"):
            policy._threads.stack = []
        policy._threads.stack.append(dtype)

    @classmethod
    def pop(cls, layer):
        with cls._lock:
            policy = layer.dtype_policy
            policy._threads.stack.pop()
            policy._uses -= 1
            if not policy._uses:
                layer.dtype_policy = policy.own
