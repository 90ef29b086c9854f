"""What is exported decides as the model does, by plain operations."""

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_qsn.defenses import BitDepthReduction
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.layers import TrainableQuantization
from keras_qsn.quantization import kernels

SHARED = [1, 2, 3]
LAYERS = {
    "2 hard": ConstantQuantization(2, hard=True),
    "2 soft": ConstantQuantization(2),
    "4 hard": QuantLayer(4, 50.0, hard=True, value_range=(0, 255)),
    "4 soft": TrainableQuantization(4, shared_axes=[1]),
    "256 hard": QuantLayer(256, 50.0, hard=True),
    "256 hard, shared": QuantLayer(256, 50.0, hard=True, shared_axes=SHARED),
    "256 soft": QuantLayer(256, 50.0, shared_axes=SHARED),
    "authors": QuantLayer(3, 50.0, variant="authors", hard=True),
    "range": ConstantQuantization(2, hard=True, value_range=(-2.118, 2.64)),
    "bits": BitDepthReduction(5),
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS)
def quantized(request):
    """A quantizer as a model, and images at and next to its thresholds."""
    layer = request.param
    layer = type(layer).from_config(layer.get_config())
    inputs = keras.Input((5, 4, 2))
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(0)
    t = rng.random(layer.thresholds.shape).astype("float32")
    layer.thresholds.assign(t)
    low, high = layer.value_range
    # By the documented formula.
    width = np.float64(np.float32(high - low))
    at = np.float32(width * t + np.float64(np.float32(low)))
    k = rng.integers(layer.num_thresholds)
    at = np.broadcast_to(at[..., k], (5, 4, 2))
    steps = [np.nextafter(at, np.float32(end)) for end in (-9e9, 9e9)]
    noise = low + (high - low) * rng.random((5, 5, 4, 2))
    x = np.concatenate([[at], steps, noise]).astype("float32")
    # Keras exports to ONNX only what was called.
    model(x)
    # Soft levels may be off in the last bits, hard ones not at all.
    return model, x, 0.0 if layer.hard else 1e-6 * (high - low)


def compare(found, model, x, tolerance):
    np.testing.assert_allclose(found, model(x), rtol=0, atol=tolerance)


def operations(graph_def):
    """Types of what runs; functions that only a gradient calls are left out."""
    library = {f.signature.name: f for f in graph_def.library.function}
    found, nodes = set(), [*graph_def.node]
    while nodes:
        node = nodes.pop()
        found.add(node.op)
        for attribute in node.attr.values():
            function = library.pop(attribute.func.name, None)
            if function is not None:
                assert not function.attr["_XlaMustCompile"].b
                nodes += function.node_def
    return found


def test_saved_model(quantized, tmp_path):
    model, x, tolerance = quantized
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    compare(served.serve(x), model, x, tolerance)
    signature = served.signatures["serving_default"]
    found = operations(signature.graph.as_graph_def())
    assert "Assert" in found, "what it calls must have been looked at"


# The one warning let through is Keras', asking whether NumPy has `np.object`.
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
def test_onnx(quantized, tmp_path):
    model, x, tolerance = quantized
    path = str(tmp_path / "model.onnx")
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    compare(session.run(None, {name: x})[0], model, x, tolerance)


def test_litert(quantized, tmp_path):
    model, x, tolerance = quantized
    path = str(tmp_path / "model.tflite")
    model.export(path, format="litert", verbose=False)
    interpreter = Interpreter(path)
    (entry,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(entry["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], x)
    interpreter.invoke()
    (entry,) = interpreter.get_output_details()
    compare(interpreter.get_tensor(entry["index"]), model, x, tolerance)


def test_served_model_refuses_unscaled_images(tmp_path):
    model = keras.Sequential([keras.Input((3,)), ConstantQuantization()])
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="expects pixels in value_range"
    ):
        served.serve(np.float32([[0, 128, 255]]))


@pytest.mark.parametrize("hard", [False, True])
def test_training_and_attacks_use_compiled_kernels(hard):
    layer = QuantLayer(4, 50.0, hard=hard)
    x = tf.constant(np.linspace(0, 1, 12, dtype="float32")[None])
    layer.build(x.shape)

    def compiled(training, wanted=False):
        def call(x):
            with kernels.compiled(wanted):
                return layer(x, training=training)

        traced = tf.function(call, autograph=False).get_concrete_function(x)
        library = traced.graph.as_graph_def().library
        return any(f.attr["_XlaMustCompile"].b for f in library.function)

    assert compiled(training=True)
    assert compiled(training=False, wanted=True)
    assert not compiled(training=False)
    assert not compiled(training=None)
