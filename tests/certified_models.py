"""Small models for the tests of certificates."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.certification.bounds import interval
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper

layers = keras.layers


def hard(num_levels=2, **kwargs):
    return QuantLayer(num_levels, 50.0, hard=True, **kwargs)


def sequential(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


def randomized(model, seed=0):
    """The model with weights far from their initial values."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0, 0.5, weight.shape)
        if "variance" in weight.path:
            values = np.abs(values) + 0.1
        weight.assign(values)
    return model


def images(count, shape, seed=1):
    rng = np.random.default_rng(seed)
    return rng.random((count, *shape)).astype("float32")


def predicted(model, x):
    return KerasModelWrapper.of(model).get_logits(x).numpy().argmax(1)


def margin_of(logits, label):
    others = np.delete(logits, label, 1)
    return logits[:, label] - others.max(1)


def input_bounds(network, low, high, dtype=tf.float64):
    """`Bounds` of the network's first node, for images in a box."""
    ends = interval.levels(network, low, high)
    return interval.level_bounds(network, *(tf.cast(e, dtype) for e in ends))


def margin_rows(labels, num_classes):
    """`A` of `logit_y - logit_j` for each class `j`."""
    return np.eye(num_classes)[labels][..., None, :] - np.eye(num_classes)
