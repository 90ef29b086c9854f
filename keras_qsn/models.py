"""The paper's network, and Cleverhans' view of any Keras model."""

import keras
import numpy as np

from keras_qsn.convolution import FastConv2D
from keras_qsn.tracing import LinearHead
from keras_qsn.tracing import layers_of


def cleverhans_cnn(
    input_shape=(28, 28, 1), num_classes=10, quantizer=None, seed=None
):
    """The CNN of the paper and of the Cleverhans tutorials.

        [quantizer] - Conv(64, 8x8, /2, same) - ReLU - Conv(128, 6x6, /2,
        valid) - ReLU - Conv(128, 5x5, valid) - ReLU - Flatten - Dense logits

    The paper trains it with Adam, learning rate 1e-3, batch size 128, for 6
    to 10 epochs.

    Args:
        input_shape: Image shape `(height, width, channels)`, at least 26
            pixels high and wide. Defaults to MNIST's `(28, 28, 1)`; CIFAR-10
            is `(32, 32, 3)`.
        num_classes: Integer >= 2. Defaults to `10`.
        quantizer: Optional layer to put in front, such as
            `keras_qsn.layers.TrainableQuantization()`.
        seed: Optional integer. The same seed gives the same weights.

    Returns:
        A built `keras.Sequential` whose output is logits.

    Raises:
        ValueError: If `input_shape` is not an image of at least 26x26
            pixels, or `num_classes` is below 2.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> model.count_params(), model.output_shape
    (710218, (None, 10))

    Limitations:
        Trained without attacks it has no robustness: FGSM at eps 0.3 leaves
        a few percent on MNIST.

    Reference:
        - Ali et al., 2018, section IV: https://arxiv.org/abs/1811.01437
        - Cleverhans v3.1 `basic_cnn.ModelBasicCNN`:
          https://github.com/cleverhans-lab/cleverhans
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < 26:
        raise ValueError(
            "`input_shape` must be (height, width, channels) of at least "
            "26x26 pixels, as in (28, 28, 1). "
            f"Received: input_shape={tuple(input_shape)}"
        )
    if num_classes < 2:
        raise ValueError(
            "`num_classes` must be at least 2. "
            f"Received: num_classes={num_classes}"
        )
    convolutions = [
        dict(filters=64, kernel_size=8, strides=2, padding="same"),
        dict(filters=128, kernel_size=6, strides=2, padding="valid"),
        dict(filters=128, kernel_size=5, strides=1, padding="valid"),
    ]
    # One seed for each layer, all drawn from the caller's.
    seeds = (
        np.random.default_rng(seed)
        .integers(2**31, size=len(convolutions) + 1)
        .tolist()
    )
    model = keras.Sequential([keras.Input(input_shape)])
    if quantizer is not None:
        model.add(quantizer)
    for convolution, layer_seed in zip(convolutions, seeds):
        model.add(
            FastConv2D(
                **convolution,
                activation="relu",
                kernel_initializer=keras.initializers.HeNormal(layer_seed),
            )
        )
    model.add(keras.layers.Flatten())
    model.add(
        keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.HeNormal(seeds[-1]),
            name="logits",
        )
    )
    return model


class KerasModelWrapper:
    """Cleverhans' view of a Keras classifier: logits, probabilities, layers.

    Calling the wrapper returns logits in inference mode, so it is the
    `model_fn` of any function in `cleverhans.tf2.attacks`. Attacks need the
    logits: a softmax output saturates, and its gradient vanishes. For a model
    that ends in a softmax (a `Dense` layer with `activation="softmax"`, a
    `Softmax` or an `Activation("softmax")` layer, also at the end of a model
    inside the model) the wrapper takes the values before it.

    Args:
        model: A built Keras model with one input and one output of shape
            `(batch, classes)`.
        from_logits: Optional boolean. Say `True` for a model whose last layer
            cannot be inspected (a subclassed model) but returns logits.
            Defaults to `None`: find out, or refuse.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the model has no classification head, or its logits
            cannot be found.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(3, activation="softmax")
    ... ])
    >>> wrapper = KerasModelWrapper(model)
    >>> wrapper.get_layer_names()[-2:]
    ['logits', 'probs']
    >>> wrapper.get_predicted_class(np.zeros((2, 4), "float32")).shape
    TensorShape([2])

    Limitations:
        A softmax hidden inside a `Lambda` or subclassed layer is not seen.

    Reference:
        - Cleverhans v3.1 `utils_keras.KerasModelWrapper`:
          https://github.com/cleverhans-lab/cleverhans
    """

    def __init__(self, model, from_logits=None):
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`model` must be a Keras model. "
                f"Received: {model!r} of type {type(model).__name__}"
            )
        self.model = model
        self.from_logits = from_logits
        if len(getattr(model, "outputs", None) or [None]) != 1:
            raise ValueError(
                "A classifier must have one output. "
                f"Received: model '{model.name}' with {len(model.outputs)}"
            )
        self._logits_model = (
            model if from_logits else _find_logits(model, model.name)
        )
        self._feature_models = {}
        shape = getattr(self._logits_model, "output_shape", None)
        if shape is not None and (len(shape) != 2 or (shape[-1] or 2) < 2):
            raise ValueError(
                "A classifier must return one vector of at least 2 class "
                "scores for each image, shape (batch, classes). "
                f"Received: model '{model.name}' with output shape {shape}"
            )

    @classmethod
    def of(cls, model):
        """The wrapper around a model; itself if it is one already."""
        return model if isinstance(model, cls) else cls(model)

    def __call__(self, x):
        return self.get_logits(x)

    @property
    def layers(self):
        """The layers that make the logits, those of inner models included."""
        return [*layers_of(self._logits_model)]

    @property
    def head(self):
        """The dense layer that makes the logits; `None` if another does."""
        kinds = (keras.layers.Dense, LinearHead)
        found = [layer for layer in self.layers if isinstance(layer, kinds)]
        return found[-1] if found else None

    def get_logits(self, x):
        """Class scores before the softmax, shape `(batch, classes)`."""
        return self._logits_model(x, training=False)

    def get_probs(self, x):
        """Class probabilities, shape `(batch, classes)`."""
        return keras.ops.softmax(self.get_logits(x))

    def get_predicted_class(self, x):
        """Most probable class, integers of shape `(batch,)`."""
        return keras.ops.argmax(self.get_logits(x), axis=-1)

    def get_layer_names(self):
        """Names accepted by `get_layer`, in order, ending in `"probs"`."""
        names = [layer.name for layer in self.model.layers]
        return [
            *(name for name in names if name not in ("logits", "probs")),
            "logits",
            "probs",
        ]

    def get_layer(self, x, layer):
        """Output of the layer called `layer` for the images `x`.

        Args:
            x: Batch of images.
            layer: One of `get_layer_names()`.

        Returns:
            The layer's output.

        Raises:
            ValueError: If the model has no such layer.
        """
        if layer == "logits":
            return self.get_logits(x)
        if layer == "probs":
            return self.get_probs(x)
        if layer not in self.get_layer_names():
            raise ValueError(
                f"`layer` must be one of {self.get_layer_names()}. "
                f"Received: layer={layer!r}"
            )
        if layer not in self._feature_models:
            self._feature_models[layer] = keras.Model(
                self.model.inputs[0], self.model.get_layer(layer).output
            )
        return self._feature_models[layer](x, training=False)


def _find_logits(model, name):
    """`model` without the softmax at its end; itself where there is none."""
    if isinstance(model, keras.Sequential):
        layers = model.layers
    elif getattr(model, "operations", None):
        layers = model.operations
    else:
        raise ValueError(
            f"The logits of '{name}' cannot be found: it is not a Sequential "
            "or functional model, so its last layer cannot be inspected. If "
            "it returns logits (no softmax at its end), wrap it as "
            "`KerasModelWrapper(model, from_logits=True)`."
        )
    if not model.built or not layers:
        raise ValueError(
            f"The model '{name}' is not built, so its last layer cannot be "
            "inspected. Start it with `keras.Input(shape)` or call it once."
        )
    last = layers[-1]
    if isinstance(last, keras.Model):
        logits = _find_logits(last, name)
        if logits is last:
            return model
        return _replace_last(model, logits)
    if type(last).__name__ == "Softmax":
        return _replace_last(model, keras.layers.Identity())
    activation = getattr(last, "activation", None)
    if activation is keras.activations.softmax:
        if isinstance(last, keras.layers.Dense):
            return _replace_last(model, LinearHead(last))
        if isinstance(last, keras.layers.Activation):
            return _replace_last(model, keras.layers.Identity())
    if activation in (
        keras.activations.softmax,
        keras.activations.sigmoid,
        keras.activations.log_softmax,
    ):
        raise ValueError(
            f"The logits of '{name}' cannot be found: its last layer "
            f"'{last.name}' ({type(last).__name__}) applies "
            f"`{activation.__name__}`. End the model with logits (a `Dense` "
            'layer without activation) or with `Dense(..., "softmax")`.'
        )
    return model


def _replace_last(model, replacement):
    """The same graph and weights with another last layer."""
    if isinstance(model, keras.Sequential):
        x = model.inputs[0]
        for layer in model.layers[:-1]:
            x = layer(x)
        return keras.Model(model.inputs[0], replacement(x))
    last = model.operations[-1]

    def call(layer, *args, **kwargs):
        return replacement(*args) if layer is last else layer(*args, **kwargs)

    return keras.models.clone_model(
        model, clone_function=lambda layer: layer, call_function=call
    )
