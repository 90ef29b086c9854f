"""Gradient inhibition: larger weights after training, for smaller gradients."""

import keras
import tensorflow as tf

from keras_qsn._core.numbers import check_at_least
from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_share
from keras_qsn.classifier.rebuilt import from_config
from keras_qsn.defenses.rewriting import check_kernels
from keras_qsn.defenses.rewriting import check_model
from keras_qsn.defenses.rewriting import layers_inside
from keras_qsn.defenses.rewriting import replaced_by
from keras_qsn.defenses.rewriting import rewritten


def inhibited(weights, tau):
    """`W + tau sign(W)`: zeros, such as pruned weights, stay zero."""
    return weights + tau * tf.sign(weights)


def inhibit_gradients(model, tau=0.1, spread=0.0, seed=0):
    """The same network with its dense weights moved away from zero.

    For the kernel `W` of each dense layer, `HashedDense` and those of models
    and layers inside others included:

        plain (`spread=0`):  W' = W + tau * sign(W), once and for all
        randomised:          W' = W + tau * u * sign(W),
                             u ~ U(1 - spread, 1 + spread) anew at each call
                             and for each layer

    Biases and convolutions stay as they are, and nothing is trained again. Of
    a hashed layer it is the same on its buckets. Reconstruction: the rule is
    that of a third party's code which calls it the original one; that the
    paper randomises is known, how is not, and this is ours.

    Args:
        model: Built Sequential or functional model that can be saved, with a
            dense layer; its layers built in or registered. Of a `QuSecNet`
            give the `model` inside.
        tau: Float >= 0. Defaults to `0.1`, the third party's;
            `largest_tau` finds what a network bears.
        spread: Float from 0 to 1. Defaults to `0`, plain; `0.5` is ours for
            the randomised variant.
        seed: Integer >= 0, decides the draws. Defaults to `0`.

    Returns:
        A new model, not compiled: of the same layers if plain, else with an
        `InhibitedDense` around each dense one. `model` is left as it is.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it is not built, has no dense layer, or one that is
            inhibited at random already, quantized, or adapted by LoRA; or if
            an argument is out of range.

    Example:

    >>> model = inhibit_gradients(cleverhans_cnn(seed=0), tau=0.3)
    >>> bool((np.abs(model.layers[-1].kernel) >= 0.3).all())
    True

    Limitations:
        Larger logits, whose softmax is 0 and 1 and has a flat cross-entropy:
        a masked gradient. Attacks that follow the logits, a margin or log
        odds, as those of this package do, are not stopped; the randomised
        variant is attacked in expectation. Where the function itself changes,
        clean accuracy pays.

    Reference:
        - Liu et al., 2018: https://arxiv.org/abs/1802.05193
        - Liu et al., 2023: https://doi.org/10.1109/TNNLS.2021.3089128
    """
    dense = dense_layers(model)
    tau = check_at_least("tau", tau, 0)
    spread = check_share("spread", spread)
    seed = check_count("seed", seed, 0)

    def change(number, part):
        outer = {k: v for k, v in part.items() if k in _OF_A_LAYER}
        config = {"name": dense[number].name, "layer": outer, "tau": tau}
        config |= {"spread": spread, "seed": seed + number}
        config["dtype"] = part["config"]["dtype"]
        return replaced_by(InhibitedDense, part, **config)

    if spread:
        copy = rewritten(model, dense, change)
        copy.set_weights(model.get_weights())
        return copy
    copy = from_config(model)
    copy.set_weights(model.get_weights())
    for layer in dense_layers(copy):
        weights = stored(layer)
        weights.assign(inhibited(tf.convert_to_tensor(weights), tau))
    return copy


@keras.saving.register_keras_serializable(package="keras_qsn")
class InhibitedDense(keras.layers.Wrapper):
    """A dense layer whose weights are inhibited anew at each call.

        y = activation(x (W + tau u sign(W)) + b), u ~ U(1 - s, 1 + s)

    with `s = spread`, in training and inference alike. What
    `inhibit_gradients` puts in the place of dense layers.

    Args:
        layer: A `keras.layers.Dense` or a subclass, such as `HashedDense`.
        tau: Float >= 0.
        spread: Float from 0 to 1. Defaults to `0.5`, ours.
        seed: Integer >= 0, decides the draws. Defaults to `0`.
        **kwargs: Base `Layer` arguments.

    Raises:
        TypeError: If `layer` is not dense.
        ValueError: If an argument is out of range.

    Example:

    >>> layer = InhibitedDense(keras.layers.Dense(3), tau=0.2)
    >>> x = np.ones((1, 4), "float32")
    >>> bool((layer(x) == layer(x)).numpy().any())
    False

    Limitations:
        As for `inhibit_gradients`; not certified, as it answers at random.

    Reference:
        - Liu et al., 2018: https://arxiv.org/abs/1802.05193
    """

    def __init__(self, layer, tau, spread=0.5, seed=0, **kwargs):
        if not isinstance(layer, keras.layers.Dense):
            raise TypeError(
                "`layer` must be a `keras.layers.Dense`. "
                f"Received: layer={layer!r}"
            )
        super().__init__(layer, **kwargs)
        self.tau = check_at_least("tau", tau, 0)
        self.spread = check_share("spread", spread)
        self.seed = check_count("seed", seed, 0)
        self._draws = keras.random.SeedGenerator(self.seed)

    @property
    def activation(self):
        return self.layer.activation

    def call(self, inputs):
        factor = keras.random.uniform(
            (), 1 - self.spread, 1 + self.spread, seed=self._draws
        )
        kernel = tf.convert_to_tensor(self.layer.kernel)
        tau = self.tau * tf.cast(factor, kernel.dtype)
        y = keras.ops.matmul(inputs, inhibited(kernel, tau))
        if self.layer.bias is not None:
            y += self.layer.bias
        return y if self.activation is None else self.activation(y)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def get_config(self):
        own = {"tau": self.tau, "spread": self.spread, "seed": self.seed}
        return {**super().get_config(), **own}


def dense_layers(model):
    """The dense layers of a model, at any depth.

    Raises:
        TypeError: If it is no Keras model.
        ValueError: If it has none, or their weights cannot be changed.
    """
    check_model(model)
    if not getattr(model, "outputs", None):
        raise ValueError(
            "`model` must be a built Sequential or functional model. "
            f"Received: {type(model).__name__} '{model.name}'. Start it with "
            "`keras.Input(shape)`; of a `QuSecNet` give the `model` inside."
        )
    inside = layers_inside(model)
    for layer in inside:
        if isinstance(layer, InhibitedDense):
            raise ValueError(
                "`model` must not be inhibited at random already. Received: "
                f"'{layer.name}' in model '{model.name}'. Give the model that "
                "it was made of."
            )
    found = [q for q in inside if isinstance(q, keras.layers.Dense)]
    if not found:
        raise ValueError(
            "`model` must have a dense layer, whose weights are changed. "
            f"Received: model '{model.name}' without one"
        )
    check_kernels(found)
    return found


def stored(layer):
    """The variable that a dense layer's kernel is or is made of."""
    return getattr(layer, "buckets", layer.kernel)


# What a serialized layer has whether it is in a model or not.
_OF_A_LAYER = ("module", "class_name", "config", "registered_name")
