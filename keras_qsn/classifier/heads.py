"""The end of a classifier: where its logits are, behind whatever it ends in."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.classifier.facts import producer

_NAMED = keras.activations
# Layers here change probabilities: what they tell is all that there is.
_DEFENDED = "keras_qsn.defenses.answers."
# Of the logarithm of a probability.
_SMALLEST = 1e-12
_FIX = (
    "End the model with logits (a `Dense` layer without activation), with "
    '`Dense(classes, "softmax")`, or with `Dense(1, "sigmoid")` for two '
    "classes."
)


def logits_model(model, from_logits=None):
    """The model up to its logits, on the same layers.

    Args:
        model: Sequential or functional Keras model.
        from_logits: `True` where its output is known to be the logits.

    Returns:
        A Keras model; `model` itself where its output is the logits. `None`
        where only a trace can tell: the last layer is of a class of its own.

    Raises:
        ValueError: If what the model returns has no logits.
    """
    found = model.outputs[0]
    if not from_logits:
        found = _before(found, model.name)
    if found is None:
        return None
    if found.shape[-1] == 1:
        found = TwoLogits()(found)
    if found is model.outputs[0]:
        return model
    return keras.Model(model.inputs[0], found)


def _before(output, name):
    """The tensor of the logits that `output` was made of, or `None`."""
    history = output._keras_history
    layer = history.operation
    node = layer._inbound_nodes[history.node_index]
    if isinstance(layer, keras.Model):
        return _before_model(layer, node, output, name)
    if type(layer) in (keras.layers.Identity, keras.layers.Dropout):
        inner = _before(node.input_tensors[0], name)
        return output if inner is node.input_tensors[0] else inner
    # The layer, and the operation `keras.ops.softmax`.
    if type(layer).__name__ == "Softmax":
        _check_axis(layer.axis, output, name)
        return node.input_tensors[0]
    if type(layer).__module__.startswith(_DEFENDED):
        return LogProbabilities()(output)
    if len(node.input_tensors) > 1:
        _check_merged(node.input_tensors, name)
    activation = getattr(layer, "activation", _NAMED.linear)
    if activation is _NAMED.hard_sigmoid:
        raise ValueError(
            f"The model '{name}' must not cut its scores. Received: layer "
            f"'{layer.name}' ending in a hard sigmoid, which has no gradient "
            f"where it is sure and ranks no classes there. {_FIX}"
        )
    if activation in (_NAMED.linear, None):
        return output if _is_known(layer) else None
    if activation is _NAMED.sigmoid and output.shape[-1] != 1:
        raise ValueError(
            f"The model '{name}' must choose one of its classes. Received: "
            f"layer '{layer.name}' of {output.shape[-1]} sigmoids, each of "
            f"which may say yes (multi-label). {_FIX}"
        )
    if activation in (_NAMED.softmax, _NAMED.sigmoid):
        if isinstance(layer, keras.layers.Dense):
            return LinearHead(layer)(node.input_tensors[0])
        if type(layer) is keras.layers.Activation:
            return node.input_tensors[0]
        return None
    # Of the logarithm of a softmax the softmax is the same.
    return output if activation is _NAMED.log_softmax else None


def _before_model(inner, node, output, name):
    logits = None
    if getattr(inner, "outputs", None):
        logits = _before(inner.outputs[0], name)
    if logits is None:
        return None
    if logits is inner.outputs[0]:
        return output
    return keras.Model(inner.inputs[0], logits)(node.input_tensors[0])


def _check_axis(axis, output, name):
    """Refuse a softmax over anything but the classes."""
    if axis not in (-1, len(output.shape) - 1, [-1], (-1,)):
        raise ValueError(
            f"The model '{name}' must end in a softmax over its classes. "
            f"Received: one over axis {axis}, which makes an image's answer "
            f"depend on the others in its batch. {_FIX}"
        )


def _check_merged(tensors, name):
    """Refuse a mean of probabilities: no logits are behind it."""
    for tensor in tensors:
        layer = tensor._keras_history.operation
        while getattr(layer, "outputs", None):
            layer = layer.outputs[0]._keras_history.operation
        activation = getattr(layer, "activation", None)
        if activation is _NAMED.softmax or type(layer).__name__ == "Softmax":
            raise ValueError(
                f"The model '{name}' must end in logits. Received: "
                f"probabilities of several parts, '{layer.name}' among them, "
                "merged behind their softmax. Merge logits, or give "
                "their logarithm: `keras.ops.log` of the merged "
                "probabilities."
            )


def _is_known(layer):
    """Whether a layer without activation computes nothing but scores."""
    kind = type(layer)
    return kind.__module__.startswith(("keras.", "keras_qsn.defenses.")) and (
        issubclass(kind, keras.Layer) and kind is not keras.layers.Lambda
    )


def traced_logits(y, from_logits=None):
    """The logits in the trace of a model's output, two for one sigmoid.

    Args:
        y: Symbolic tensor of shape `(batch, classes)`.
        from_logits: `True` where `y` is known to be the logits.
    """
    op = producer(y).op
    if op.type in ("Softmax", "Sigmoid") and not from_logits:
        y = op.inputs[0]
    y = tf.cast(y, tf.float32)
    if y.shape[-1] == 1:
        return tf.concat([tf.zeros_like(y), y], -1)
    return y


def check_scores(logits, name):
    """Refuse probabilities that nothing in the graph gave away.

    Args:
        logits: Array of what is taken for logits, of any images.
        name: Of the model.

    Raises:
        ValueError: If each row looks like probabilities.
    """
    logits = np.asarray(logits)
    inside = (logits >= 0).all() and (logits <= 1).all()
    if inside and np.allclose(logits.sum(1), 1, atol=1e-4):
        raise ValueError(
            f"The logits of '{name}' cannot be found: it returns "
            f"probabilities, and what makes them is not seen. {_FIX} If these "
            "are logits, say `KerasModelWrapper(model, from_logits=True)`."
        )


class LinearHead(keras.layers.Layer):
    """A `Dense` layer without its activation, on the same weights."""

    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def call(self, inputs):
        x = keras.ops.matmul(inputs, self.dense.kernel)
        return x if self.dense.bias is None else x + self.dense.bias


class LogProbabilities(keras.layers.Layer):
    """Probabilities as the logits that their softmax is of."""

    def call(self, inputs):
        return keras.ops.log(keras.ops.maximum(inputs, _SMALLEST))


class TwoLogits(keras.layers.Layer):
    """The logits `[0, z]` of a classifier of two classes by one logit `z`."""

    def call(self, inputs):
        return keras.ops.concatenate([keras.ops.zeros_like(inputs), inputs], -1)
