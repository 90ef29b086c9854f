"""Several classifiers as one."""

import keras
import tensorflow as tf

from keras_qsn.classifier.wrapper import KerasModelWrapper


def ensemble(models, name="ensemble"):
    """Several classifiers as one Keras model: the mean of their logits.

    `Z(x) = (1/K) sum_k Z_k(x)`, on the layers of the models, which stay as
    they are. What fools all of several sources transfers to others more often
    than what fools one: `TransferAttack(attack, ensemble(sources))`.

    Args:
        models: List of built Keras classifiers of the same images and
            classes, each as it is or in a `KerasModelWrapper`. Of those that
            end in a softmax the values before it are taken.
        name: Name of the model. Defaults to `"ensemble"`.

    Returns:
        A built `keras.Model` whose output is logits.

    Raises:
        TypeError: If there is something else than Keras models.
        ValueError: If there is no model, images or classes differ, or the
            logits of one are made by no Keras layers.

    Example:

    >>> sources = [cleverhans_cnn(seed=seed) for seed in (1, 2, 3)]
    >>> together = ensemble(sources)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> mean = sum(source(x) for source in sources) / 3
    >>> bool(np.allclose(together(x), mean, atol=1e-5))
    True

    Limitations:
        Costs what its members cost together. Robust where they are wrong in
        other places; attacks on all of them at once find what they share.

    Reference:
        - Dong et al., 2018, section 3.4, where logits, not probabilities or
          losses, serve best: https://arxiv.org/abs/1710.06081
    """
    if not isinstance(models, (list, tuple)) or not models:
        raise ValueError(
            "`models` must be a list of at least one Keras classifier. "
            f"Received: models={models!r}"
        )
    wrappers = [KerasModelWrapper.of(model) for model in models]
    first = wrappers[0]
    for wrapper in wrappers:
        same = wrapper.num_classes == first.num_classes and tf.TensorShape(
            wrapper.input_shape
        ).is_compatible_with(first.input_shape)
        if not same:
            raise ValueError(
                "All models must have the same images and classes. Received: "
                + ", ".join(
                    f"'{w.model.name}' of {tuple(w.input_shape)} and "
                    f"{w.num_classes} classes"
                    for w in (first, wrapper)
                )
            )
        if wrapper.logits_model is None:
            raise ValueError(
                "The logits of each model must be made by its Keras layers. "
                f"Received: '{wrapper.model.name}' of type "
                f"{type(wrapper.model).__name__}, whose `call` makes them. "
                "Build it of `keras.Sequential` or by the functional API."
            )
    x = keras.Input(first.input_shape)
    # Models of one name may stand side by side under others.
    members = [
        keras.Model(net.inputs, net.outputs[0], name=f"member_{i}")
        for i, net in enumerate(wrapper.logits_model for wrapper in wrappers)
    ]
    logits = [member(x) for member in members]
    if len(logits) > 1:
        logits = [keras.layers.Average(dtype="float32")(logits)]
    return keras.Model(x, logits[0], name=name)
