"""Ranges of activations from images: post-training quantization."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn._core.tracing import replaced
from keras_qsn.deployment.layers import FakeQuantActivations
from keras_qsn.deployment.layers import FakeQuantWeights


def calibrate(model, x, batch_size=128):
    """Set each range of a twin to what it meets of these images.

    Ranges go from the smallest to the largest value, 0 in them, with weights
    rounded and activations not.

    Args:
        model: What `quantization_aware` has returned.
        x: Images, as the model takes them.
        batch_size: Integer >= 1. Images at once. Defaults to `128`.

    Raises:
        ValueError: If the model rounds no activations, or the images do not
            fit it.

    Example:

    >>> x = np.random.default_rng(0).random((8, 28, 28, 1), "float32")
    >>> twin = quantization_aware(cleverhans_cnn(seed=0), x)
    >>> calibrate(twin, x / 2)
    >>> bool(twin.layers[1].high < 0.5)
    True

    Limitations:
        One outlier widens a range, and coarsens all of it.
    """
    batch_size = check_count("batch_size", batch_size)
    quantizers = [
        layer
        for layer in model.layers
        if isinstance(layer, FakeQuantActivations)
    ]
    if not quantizers:
        raise ValueError(
            "`model` must be what `quantization_aware` returns. Received: "
            f"'{model.name}' without a `FakeQuantActivations`"
        )
    x = np.asarray(x, "float32")
    if x.shape[1:] != tuple(model.input_shape[1:]) or not len(x):
        raise ValueError(
            f"`x` must hold images of shape {tuple(model.input_shape[1:])}. "
            f"Received: x.shape={x.shape}"
        )
    given = [q._inbound_nodes[0].input_tensors[0] for q in quantizers]
    watched = keras.Model(model.inputs, given)

    def ends(x):
        found = tf.nest.flatten(watched(x, training=False))
        return [(tf.reduce_min(t), tf.reduce_max(t)) for t in found]

    def unrounded(layer, x, only_step=False, **kwargs):
        return tf.constant(0.0) if only_step else x

    weighted = [q for q in model.layers if isinstance(q, FakeQuantWeights)]
    with (
        replaced(quantizers, "call", unrounded),
        replaced(weighted, "exact", FakeQuantWeights.in_floats),
    ):
        traced = tf.function(ends, autograph=False).get_concrete_function(
            tf.TensorSpec([None, *x.shape[1:]], tf.float32)
        )
    starts = range(0, len(x), batch_size)
    found = np.array(
        [traced(tf.constant(x[i : i + batch_size])) for i in starts]
    )
    lows, highs = found[:, :, 0].min(0), found[:, :, 1].max(0)
    for quantizer, low, high in zip(quantizers, lows, highs):
        quantizer.set_range(low, high)
