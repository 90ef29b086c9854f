"""`KerasModelWrapper`: the contract with a model, and all we know of it."""

import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.files import fingerprint
from keras_qsn._core.tracing import is_replaced
from keras_qsn._core.tracing import layers_of
from keras_qsn.classifier.accepted import as_classifier
from keras_qsn.classifier.accepted import check_loss
from keras_qsn.classifier.accepted import declared_range
from keras_qsn.classifier.accepted import with_float_input
from keras_qsn.classifier.facts import facts_of
from keras_qsn.classifier.heads import LinearHead
from keras_qsn.classifier.heads import check_scores
from keras_qsn.classifier.heads import logits_model
from keras_qsn.classifier.heads import traced_logits
from keras_qsn.classifier.preprocessing import NumpyFunction
from keras_qsn.classifier.queries import Queries
from keras_qsn.classifier.structure import structure_of
from keras_qsn.classifier.travel import content_of
from keras_qsn.classifier.travel import model_of
from keras_qsn.layers import QuantLayer
from keras_qsn.quantization import kernels

# Functions built for each model as it is now: `(structure, {key: function})`.
_BUILT = weakref.WeakKeyDictionary()


class KerasModelWrapper:
    """Cleverhans' view of a Keras classifier: logits, probabilities, layers.

    Calling the wrapper returns logits in inference mode, so it is the
    `model_fn` of any function in `cleverhans.tf2.attacks`. Attacks need the
    logits: a softmax output saturates, and its gradient vanishes. For a model
    that ends in a softmax (in a layer's activation, a layer of its own, a
    `Lambda`, or at the end of a model inside the model) the wrapper takes the
    values before it. One sigmoid, or one logit `z`, counts as the two logits
    `[0, z]`.

    Everything else in the library asks the wrapper, never the model. What it
    tells is true of the model as it is now: after `pop`, `add`,
    `enable_lora` or another activation, functions are built anew.

    Args:
        model: A built Keras model with one input of numbers and one output of
            shape `(batch, classes)`: Sequential, functional or subclassed; a
            `QuSecNet` stands for the model inside it.
        from_logits: Optional boolean. Say `True` for a model whose output is
            logits though it may not look like it. Defaults to `None`: find
            out, or refuse.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the model is no classifier of this kind (several inputs
            or outputs, multi-label, regression, text), is not built, or its
            logits cannot be found.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(3, activation="softmax")
    ... ])
    >>> wrapper = KerasModelWrapper(model)
    >>> wrapper.get_layer_names()[-2:]
    ['logits', 'probs']
    >>> wrapper.predict(np.zeros((2, 4), "float32")).shape
    (2,)

    Limitations:
        Probabilities that no softmax or sigmoid operation made are refused
        only where the numbers of a few random inputs give them away.

    Reference:
        - Cleverhans v3.1 `utils_keras.KerasModelWrapper`:
          https://github.com/cleverhans-lab/cleverhans
    """

    def __init__(self, model, from_logits=None):
        self.model = as_classifier(model)
        self.from_logits = from_logits
        if self.num_classes is None or self.num_classes < 2:
            raise ValueError(
                "A classifier must return one vector of class scores for each "
                "image, shape (batch, classes), or one logit for two. "
                f"Received: model '{self.model.name}' with output shape "
                f"{getattr(self.model, 'output_shape', 'of another rank')}"
            )
        check_loss(self.model)
        if self._view() is None and not from_logits:
            self._check_scores()

    @classmethod
    def of(cls, model):
        """The wrapper around a model; itself if it is one already."""
        return model if isinstance(model, cls) else cls(model)

    def __getstate__(self):
        """What another process makes the wrapper of: the model's file."""
        return {
            "content": content_of(self.model),
            "from_logits": self.from_logits,
            "fingerprint": self.fingerprint(self._built_shape()),
        }

    def __setstate__(self, state):
        self.__init__(model_of(state["content"]), state["from_logits"])
        if self.fingerprint(self._built_shape()) != state["fingerprint"]:
            raise ValueError(
                f"The model '{self.model.name}', saved and loaded, computes "
                "something else. Do its layers keep all they need, in weights "
                "of `add_weight` and in `get_config`?"
            )

    def __call__(self, x):
        return self.get_logits(x)

    @property
    def input_shape(self):
        """Shape of one image, `None` where any length will do."""
        shape = getattr(self.model, "input_shape", None)
        if shape is None:
            shape = self.model.get_build_config()["input_shape"]
            # Built for these: another size may do, another rank does not.
            return (*(None for _ in shape[1:-1]), shape[-1])
        return tuple(shape[1:])

    @property
    def num_classes(self):
        """Number of classes; 2 for one sigmoid or one logit."""
        view = self._view()
        if view is not None:
            shape = view.output_shape
            return shape[-1] if len(shape) == 2 else None
        return self._facts(self._built_shape()).num_classes

    @property
    def value_range(self):
        """Smallest and largest pixel, where a quantizer or a `Rescaling` at
        the input says it; else `None`."""
        return declared_range(self.layers)

    @property
    def logits_model(self):
        """The Keras model that makes the logits; `None` where only a trace
        can tell them."""
        return self._view()

    @property
    def network(self):
        """What makes the logits: the Keras model of them, else the model."""
        view = self._view()
        return self.model if view is None else view

    @property
    def layers(self):
        """The layers that make the logits, those of inner models included."""
        return [*layers_of(self.network)]

    @property
    def quantizers(self):
        """The quantization layers."""
        return [q for q in layers_of(self.model) if isinstance(q, QuantLayer)]

    @property
    def answers_only(self):
        """Whether nothing but its answers is known: a `QueryModel`."""
        return any(isinstance(layer, Queries) for layer in self.layers)

    @property
    def head(self):
        """The dense layer that makes the logits; `None` if another does."""
        kinds = (keras.layers.Dense, LinearHead)
        found = [layer for layer in self.layers if isinstance(layer, kinds)]
        return found[-1] if found else None

    @property
    def structure(self):
        """Hashable; another once the model computes something else, whatever
        the values of its weights."""
        return structure_of(self.model)

    def compiled(self, key, make):
        """What `make()` returns, made once for the model as it is now.

        Args:
            key: Hashable: what is made, and all that it depends on beside the
                model.
            make: Function without arguments. What it returns must not hold
                the model (a concrete function does not).
        """
        structure = self.structure
        kept = _BUILT.get(self.model)
        if kept is None or kept[0] != structure:
            kept = _BUILT[self.model] = (structure, {})
        key = (self.from_logits, key)
        if key not in kept[1]:
            kept[1][key] = make()
        return kept[1][key]

    @kernels.compiled()
    def get_logits(self, x):
        """Class scores before the softmax, float32 `(batch, classes)`.

        Differentiable, in and outside of a `tf.function`.
        """
        view = self._view()
        if view is not None:
            return tf.cast(view(x, training=False), tf.float32)
        if not tf.executing_eagerly():
            return self._traced_logits(x)
        x = tf.convert_to_tensor(x)
        traced = tf.function(self._traced_logits, autograph=False)
        return traced.get_concrete_function(x)(x)

    def logits(self, x, batch_size=128):
        """As `get_logits`, a NumPy array, in batches, by a compiled function.

        Args:
            x: Array of images, float32.
            batch_size: Images at once. Defaults to `128`.
        """
        x = np.asarray(x, "float32")
        if not len(x):
            # Some convolutions cannot be of no image.
            return np.zeros((0, self.num_classes), "float32")
        if is_replaced(self.layers):
            # What the layers compute now is not to be kept.
            function = self._compile(x.shape[1:])
        else:
            function = self.compiled(
                ("logits", x.shape[1:]), lambda: self._compile(x.shape[1:])
            )
        starts = range(0, len(x), batch_size)
        return np.concatenate(
            [function(tf.constant(x[i : i + batch_size])) for i in starts]
        )

    def predict(self, x, batch_size=128):
        """Most probable classes, an int32 NumPy array; as `logits`."""
        return self.logits(x, batch_size).argmax(-1).astype("int32")

    def random_images(self, count):
        """Float32 images in [0, 1) of a shape that the model takes, always
        the same."""
        shape = [size or 32 for size in self._built_shape()]
        return np.random.default_rng(0).random((count, *shape), "float32")

    def fingerprint(self, shape):
        """A short text that differs for another function or other weights.

        Of the traced graph, the values it reads, the quantizers' settings and
        NumPy functions; not of names.

        Args:
            shape: Shape of one image.
        """
        facts = self._facts(shape)
        settings = [
            {**layer.get_config(), "name": None} for layer in self.quantizers
        ]
        settings += [
            layer.fingerprint()
            for layer in self.layers
            if isinstance(layer, NumpyFunction)
        ]
        weights = fingerprint(*(v.numpy() for v in facts.variables))
        described = np.array(f"{facts.architecture} {settings} {weights}")
        return fingerprint(described)

    def is_random(self, shape):
        """Whether answers depend on chance, for images of this shape."""
        return self._facts(shape).random

    def gradient_cut(self, shape):
        """`None`, or the operation at which the gradient with respect to the
        image ends, as text, for images of this shape."""
        return self._facts(shape).gradient_cut

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
        output = self.model.get_layer(layer).output
        features = keras.Model(self.model.inputs[0], output)
        return features(x, training=False)

    def _view(self):
        """The Keras model that makes the logits; `None`: only a trace can."""
        model = self.model
        if not getattr(model, "outputs", None):
            return None

        def make():
            view = logits_model(with_float_input(model), self.from_logits)
            # Kept for the model, it must not hold the model.
            return "itself" if view is model else view

        view = self.compiled("view", make)
        return model if isinstance(view, str) else view

    def _traced_logits(self, x):
        return traced_logits(self.model(x, training=False), self.from_logits)

    def _check_scores(self):
        """Once for each structure: whether a trace found the logits."""

        def check():
            scores = self.logits(self.random_images(4))
            check_scores(scores, self.model.name)
            return True

        self.compiled("scores", check)

    def _built_shape(self):
        shape = getattr(self.model, "input_shape", None)
        if shape is None:
            shape = self.model.get_build_config()["input_shape"]
        return tuple(shape[1:])

    def _facts(self, shape):
        shape = tuple(shape)
        return self.compiled(
            ("facts", shape), lambda: facts_of(self.get_logits, shape)
        )

    def _compile(self, shape):
        return tf.function(
            self.get_logits, autograph=False
        ).get_concrete_function(tf.TensorSpec([None, *shape], tf.float32))
