"""Compiled functions of attacks, each built once for a model as it is now.

Building is what costs on a large network: the network itself is traced once
for each view of it, and what attacks and checks do with it calls that.
"""

import tensorflow as tf

from keras_qsn.attacks.objectives import gain_gradient
from keras_qsn.convolution import fast_convolutions


def compiled_logits(wrapper, shape, key="logits", view=None):
    """A view's logits as a function to call, also while tracing another.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.
        key: Hashable; the same for the same view.
        view: Function from images to logits. Defaults to `None`: those of the
            model.

    Returns:
        A concrete function of a batch of images.
    """

    def run(x):
        return (view or wrapper.get_logits)(x)

    return _compiled(wrapper, ("view", key, tuple(shape)), run, _images(shape))


def compiled_gradient(wrapper, shape, key="logits", view=None):
    """The gradient that attacks start from, shared by attacks and checks.

    Args:
        wrapper: As for `compiled_logits`.
        shape: As for `compiled_logits`.
        key: As for `compiled_logits`.
        view: As for `compiled_logits`.

    Returns:
        A concrete function of images, int32 labels and a boolean, whether the
        gradient of the margin is wanted, not the cross-entropy's; it returns
        that gradient, untargeted, and the logits.
    """
    logits_fn = compiled_logits(wrapper, shape, key, view)

    def run(x, labels, of_margin):
        return gain_gradient(logits_fn, x, labels, of_margin, False)

    return _compiled(
        wrapper,
        ("gradient", key, tuple(shape)),
        run,
        _images(shape),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.bool),
    )


def compiled_attack(attack, wrapper, shape, targeted):
    """`attack.craft` on a model.

    Args:
        attack: `Attack`.
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.
        targeted: As for `craft`.

    Returns:
        A concrete function of images, labels, `eps`, seeds and the attack's
        `counts`.
    """
    view = attack.compiled_view(wrapper, shape)

    def run(x, labels, eps, seeds, *counts):
        counting = attack.with_counts(counts)
        return counting.craft(view, x, labels, eps, seeds, targeted)

    return _compiled(
        wrapper,
        ("attack", attack.cache_key, tuple(shape), targeted),
        run,
        _images(shape),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([None, 2], tf.int32),
        *(tf.TensorSpec([], tf.int32) for _ in attack.counts),
    )


def _images(shape):
    return tf.TensorSpec([None, *shape], tf.float32)


def _compiled(wrapper, key, run, *signature):
    # A concrete function keeps the graph, not this closure: what is kept for
    # a model must not keep the model alive.
    def make():
        with fast_convolutions(wrapper.model):
            return tf.function(run, autograph=False).get_concrete_function(
                *signature
            )

    return wrapper.compiled(("attacks", *key), make)
