"""Compiled functions of attacks, each built once for a model as it is now.

Building is what costs on a large network: the network itself is traced once
for each view of it, and what attacks and checks do with it calls that.
"""

import tensorflow as tf

from keras_qsn.attacks.losses import gain_gradient
from keras_qsn.classifier.compiled import compiled
from keras_qsn.classifier.compiled import compiled_logits
from keras_qsn.classifier.compiled import images_spec


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

    return compiled(
        wrapper,
        ("gradient", key, tuple(shape)),
        run,
        images_spec(shape),
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

    return compiled(
        wrapper,
        ("attack", attack.cache_key, tuple(shape), targeted),
        run,
        images_spec(shape),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([None, 2], tf.int32),
        *(tf.TensorSpec([], tf.int32) for _ in attack.counts),
    )
