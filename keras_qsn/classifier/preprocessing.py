"""What is done to images outside of TensorFlow, as a layer of the model."""

import hashlib

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.functions import told


@keras.saving.register_keras_serializable(package="keras_qsn")
class NumpyFunction(keras.layers.Layer):
    """A NumPy function of a batch of images; it passes no gradient on.

    Args:
        function: From a float32 array of images to an array with as many
            entries.
        **kwargs: Base `Layer` arguments: `name`.
    """

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        if isinstance(function, dict):
            function = keras.saving.deserialize_keras_object(function)
        if not callable(function):
            raise TypeError(
                "`function` must be a function of a NumPy array of images. "
                f"Received: function={function!r}"
            )
        self.function = function

    def call(self, inputs):
        y = tf.numpy_function(self._made, [inputs], tf.float32)
        return tf.ensure_shape(y, self.compute_output_shape(inputs.shape))

    def compute_output_shape(self, input_shape):
        shape = tuple(input_shape[1:])
        if None in shape:
            return (None, *shape)
        return (None, *self._made(np.zeros((1, *shape), "float32")).shape[1:])

    def get_config(self):
        function = keras.saving.serialize_keras_object(self.function)
        return {**super().get_config(), "function": function}

    def fingerprint(self):
        """A short text that differs for another function: a traced graph
        does not show it."""
        return hashlib.sha256(told(self.function).encode()).hexdigest()

    def _made(self, x):
        y = np.asarray(self.function(x))
        if y.shape[:1] != x.shape[:1] or y.dtype.kind not in "biuf":
            raise ValueError(
                f"The function of '{self.name}' must return an array of "
                f"numbers for each of the {len(x)} images. Received: "
                f"shape={y.shape}, dtype={y.dtype}"
            )
        return y.astype("float32")


def with_preprocessing(function, model):
    """A classifier with a NumPy function before it, as one Keras model.

    `f(x) = model(function(x))`: what the images go through on their way to
    the network is part of what is attacked and evaluated.

    Args:
        function: From a float32 NumPy array of images to an array of as many
            inputs of the model, such as one that stores them as JPEG.
        model: Built Keras classifier.

    Returns:
        A `keras.Sequential` on the same layers, for images of the model's
        input shape.

    Raises:
        TypeError: If `function` is none.
        ValueError: If it does not return an array for each image, or the
            model does not take what it returns.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> binary = with_preprocessing(lambda x: np.round(x), model)
    >>> x = np.full((1, 28, 28, 1), 0.7, "float32")
    >>> np.array_equal(binary(x), model(np.ones_like(x)))
    True

    Limitations:
        No gradient goes through it: plain gradient attacks are blind, which
        is no robustness. `evaluate_robustness` puts a surrogate through it.
        It runs in Python, so it is in no exported model; to load a saved one,
        register the function with `keras.saving`.
    """
    shape = model.input_shape[1:]
    name = getattr(function, "__name__", "function").strip("<>")
    layer = NumpyFunction(function, name=f"{name}_outside")
    made = layer.compute_output_shape((None, *shape))[1:]
    if made != tuple(shape):
        raise ValueError(
            f"`function` must return inputs of the model, of shape "
            f"{tuple(shape)}. Received: a function that returns {made}"
        )
    return keras.Sequential([keras.Input(shape), layer, model])
