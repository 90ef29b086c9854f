"""A classifier whose answers are defended, and the one behind."""

import keras
import numpy as np

from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.defenses.answers.base import AnswerDefense
from keras_qsn.defenses.rewriting import check_model


def with_defended_answers(model, *defenses, beside=None):
    """The same classifier, telling what defences of answers let through.

        y = defense_k(... defense_1(softmax(logits(x))))

    Args:
        model: Built Keras classifier, as it is or in a `KerasModelWrapper`;
            one that ends in a softmax is taken before it.
        *defenses: Layers, in order: `RoundedAnswers`, `TopAnswers`,
            `LabelsOnly`, `NoisyAnswers`, `ReverseSigmoid`, `MAD`,
            `AdaptiveMisinformation`.
        beside: Built Keras classifier of the same images and classes that
            `MAD` (its surrogate) or `AdaptiveMisinformation` looks at.
            Defaults to `None`.

    Returns:
        A `keras.Model` on the layers of `model`, whose outputs are
        probabilities. Attacks and evaluations take their logarithm for its
        logits: attack `model`, too, whose gradient nothing hides.

    Raises:
        TypeError: If a model is no Keras model, or a defence none of these
            layers.
        ValueError: If there is no defence, `beside` is missing, unused or of
            other images or classes, or logits are made by no Keras layers.

    Example:

    >>> victim = cleverhans_cnn(seed=0)
    >>> layers = ReverseSigmoid(), RoundedAnswers(2)
    >>> defended = with_defended_answers(victim, *layers)
    >>> x = np.full((1, 28, 28, 1), 0.5, "float32")
    >>> bool(abs(defended(x).numpy().sum() - 1) < 1e-6)
    True

    Limitations:
        An attacker who knows of the defence asks for classes alone, asks
        again, or chooses images: each layer says what voids it.
    """
    _check_defenses(defenses, beside)
    wrappers = [KerasModelWrapper.of(model)]
    if beside is not None:
        wrappers.append(KerasModelWrapper.of(beside))
        _check_beside(*wrappers)
    x = keras.Input(wrappers[0].input_shape)
    probabilities = [
        keras.layers.Softmax(dtype="float32")(_network(wrapper, i)(x))
        for i, wrapper in enumerate(wrappers)
    ]
    told, *others = probabilities
    for defense in defenses:
        told = defense([told, *others] if defense.beside else told)
    return keras.Model(x, told, name=f"{wrappers[0].model.name}_defended")


def undefended(model):
    """The classifier behind the defences of its answers.

    Args:
        model: What `with_defended_answers` returns, or any Keras model.

    Returns:
        A `keras.Model` on the same layers, whose outputs are the
        probabilities before the first defence; `model` itself where its
        answers are not defended.

    Raises:
        TypeError: If `model` is not a Keras model.

    Example:

    >>> victim = cleverhans_cnn(seed=0)
    >>> defended = with_defended_answers(victim, LabelsOnly())
    >>> x = np.full((1, 28, 28, 1), 0.5, "float32")
    >>> clean = keras.ops.softmax(victim(x))
    >>> bool(np.allclose(undefended(defended)(x), clean))
    True

    Limitations:
        Sees defences at the very end alone, not those of a model inside.
    """
    check_model(model)
    if not getattr(model, "outputs", None):
        return model
    told = model.outputs[0]
    while isinstance(told._keras_history.operation, AnswerDefense):
        layer, number, _ = told._keras_history
        told = layer._inbound_nodes[number].input_tensors[0]
    if told is model.outputs[0]:
        return model
    return keras.Model(model.inputs[0], told, name=f"{model.name}_undefended")


def _network(wrapper, number):
    """The model of the logits, under a name that no other has."""
    network = wrapper.logits_model
    if network is None and _returns_logits(wrapper):
        # Such as a fake-quantized one, whose last layer rounds them.
        network = wrapper.model
    if network is None:
        raise ValueError(
            "The logits of the model must be made by its Keras layers. "
            f"Received: '{wrapper.model.name}' of type "
            f"{type(wrapper.model).__name__}, whose `call` makes them. Build "
            "it of `keras.Sequential` or by the functional API."
        )
    return keras.Model(
        network.inputs, network.outputs[0], name=f"network_{number}"
    )


def _returns_logits(wrapper):
    """Whether a model of layers returns the logits, by what it answers."""
    if not getattr(wrapper.model, "outputs", None):
        return False
    x = wrapper.random_images(2)
    told, logits = wrapper.model.predict_on_batch(x), wrapper.logits(x)
    return told.shape == logits.shape and np.allclose(told, logits, atol=1e-4)


def _check_defenses(defenses, beside):
    for defense in defenses:
        if not isinstance(defense, AnswerDefense):
            raise TypeError(
                "Each defence must be a layer of this package's defences of "
                f"answers, such as `RoundedAnswers()`. Received: {defense!r}"
            )
    needs = [d for d in defenses if d.beside]
    if not defenses or bool(needs) != (beside is not None):
        wanted = f"its {needs[0].beside}" if needs else "none"
        raise ValueError(
            "Give at least one defence, and `beside` where one looks at "
            f"another model: here {wanted}. Received: {len(defenses)} "
            f"defence(s), beside={beside!r}"
        )


def _check_beside(wrapper, other):
    for what in ("num_classes", "input_shape"):
        own, its = getattr(wrapper, what), getattr(other, what)
        if own != its:
            raise ValueError(
                f"`beside` must have the `{what}` of the model, {own}. "
                f"Received: beside with {what}={its}"
            )
