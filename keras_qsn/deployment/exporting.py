"""A twin as an int8 `.tflite` file."""

import contextlib
import pathlib

import numpy as np
import tensorflow as tf

from keras_qsn._core.files import write_bytes
from keras_qsn._core.tracing import replaced
from keras_qsn.deployment import fake_quant
from keras_qsn.deployment.layers import FakeQuantActivations
from keras_qsn.deployment.layers import FakeQuantWeights
from keras_qsn.deployment.rewriting import BEFORE

_BITS = 8


def export_litert(model, filepath, integer_ends=False):
    """Write an 8-bit twin to a `.tflite` file that integer kernels run.

    Weights are in int8 with a scale for each channel, biases in int32,
    activations in int8; what stands before the first rounding, such as a
    quantization layer, and behind the last one is computed in floats. Products
    and sums of the twin are those of XNNPACK's kernels to the bit, as long as
    sums stay below 2^24; means, and numbers that happen to lie halfway
    between two levels of the image, may be a step off.

    Args:
        model: What `quantization_aware` has returned, with 8 bits.
        filepath: Path of the file, ending in `.tflite`.
        integer_ends: Whether the file takes and returns int8, as small
            devices want it, in place of floats. Defaults to `False`.

    Raises:
        ValueError: If the model is no such twin, the path ends otherwise, or
            `integer_ends` are asked of a model that begins in floats.

    Example:

    >>> import tempfile
    >>> x = np.random.default_rng(0).random((4, 28, 28, 1), "float32")
    >>> twin = quantization_aware(cleverhans_cnn(seed=0), x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_litert(twin, f"{folder}/int8.tflite")
    ...     scores = load_litert(f"{folder}/int8.tflite")(x)
    >>> step = (twin.layers[-1].high - twin.layers[-1].low) / 255
    >>> bool(np.max(abs(scores - twin(x))) < 1.5 * step)
    True

    Limitations:
        Softmax in int8 has steps of 1/256: attacks and metrics want logits.

    Reference:
        - Jacob et al., 2018, section 2: https://arxiv.org/abs/1712.05877
    """
    path = pathlib.Path(filepath)
    if path.suffix != ".tflite":
        raise ValueError(
            f"`filepath` must end in '.tflite'. Received: {str(filepath)!r}"
        )
    layers = getattr(model, "layers", ())
    rounded = [q for q in layers if isinstance(q, FakeQuantActivations)]
    weighted = [q for q in layers if isinstance(q, FakeQuantWeights)]
    bits = sorted({layer.bits for layer in (*rounded, *weighted)})
    if bits != [_BITS]:
        raise ValueError(
            "`model` must be what `quantization_aware(model, x, bits=8)` "
            "returns: the file holds 8 bits. "
            f"Received: '{getattr(model, 'name', model)}' "
            + (f"of bits {bits}" if bits else "without fake quantization")
        )
    in_floats = [q.name for q in rounded if isinstance(_before(q), BEFORE)]
    if integer_ends and in_floats:
        raise ValueError(
            "With `integer_ends` the image must be rounded first. Received: "
            f"'{model.name}', whose '{in_floats[0]}' rounds what is "
            "computed in floats. Leave `integer_ends=False`."
        )
    # Constants: read while tracing, a variable has no value.
    constants = {layer: _on_levels(layer) for layer in weighted}
    ranges = {
        q: [*map(float, fake_quant.ends(q.low, q.high, _BITS))] for q in rounded
    }

    def by_kernel(layer, x, ties=False, only_step=False, **kwargs):
        if only_step:
            return tf.constant(0.0)
        # Average pooling in int8 rounds by itself, to the grid it is given.
        if layer.name in in_floats:
            # The converter knows better what a sigmoid's range is, and would
            # round to that first.
            x = fake_quant.nearest(x, *ranges[layer], _BITS)
        return tf.quantization.fake_quant_with_min_max_vars(x, *ranges[layer])

    with contextlib.ExitStack() as stack:
        for layers, method, function in (
            (weighted, "deployed", lambda layer: constants[layer]),
            (weighted, "exact", FakeQuantWeights.in_floats),
            (weighted, "rounded", lambda layer, kernel: tf.constant(kernel)),
            # The converter rounds it, to the same.
            (weighted, "rounded_bias", lambda layer, bias, *_: bias),
            (rounded, "call", by_kernel),
        ):
            stack.enter_context(replaced(layers, method, function))
        traced = tf.function(
            lambda x: model(x, training=False), autograph=False
        ).get_concrete_function(
            tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
        )
    # What a quantization layer reads is to be found from here.
    root = tf.Module()
    root.variables_read = [*traced.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], root)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if integer_ends:
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    write_bytes(path, converter.convert())


def _before(quantizer):
    """The layer whose output it rounds."""
    given = quantizer._inbound_nodes[0].input_tensors[0]
    return given._keras_history.operation


def _on_levels(layer):
    """Rounded kernel, and bias, as arrays."""
    kernel, bias = layer.deployed()
    if bias is not None:
        bias = np.array(bias, "float32")
        # Of equal numbers the converter keeps one, in one channel's scale.
        bias[0] = np.nextafter(bias[0], np.float32(np.inf))
    return layer.rounded(kernel).numpy(), bias
