"""Attacks written by hand for single defences, in TensorFlow alone.

They know the defence and nothing of the library: what the standard evaluation
leaves is held against what they leave.
"""

import numpy as np
import tensorflow as tf


def margin(logits, y):
    """Largest other logit minus the own one: above 0 the image is broken."""
    own = tf.one_hot(y, logits.shape[-1])
    others = tf.reduce_max(logits - 1e9 * own, 1)
    return others - tf.reduce_sum(own * logits, 1)


def left_by_pgd(logits_fn, judge, x, y, eps, nb_iter=100, restarts=3):
    """Which images PGD on the margin leaves, of any step of any restart.

    Args:
        logits_fn: What is differentiated: logits through surrogates, or of a
            defence that draws the mean over draws.
        judge: The model as deployed: from images to class numbers.
    """

    @tf.function
    def slope(x_adv):
        with tf.GradientTape() as tape:
            tape.watch(x_adv)
            loss = margin(logits_fn(x_adv), y)
        return tape.gradient(loss, x_adv)

    rng = np.random.default_rng(0)
    left = judge(x) == y
    for _ in range(restarts):
        x_adv = x + rng.uniform(-eps, eps, x.shape)
        for i in range(nb_iter):
            x_adv = np.clip(x_adv, 0, 1).astype("float32")
            left &= judge(x_adv) == y
            step = 2 * eps * (1 - i / nb_iter)
            x_adv = x_adv + step * np.sign(slope(tf.constant(x_adv)))
            x_adv = np.clip(x_adv, x - eps, x + eps)
    return left


def fgsm_on_softmax(model, x, y, eps):
    """FGSM as papers ran it: the cross-entropy of clipped probabilities.

    Without the clip it is for the processor to say whether 1 is rounded to 1.
    """
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        probabilities = tf.nn.softmax(model(x, training=False))
        own = tf.gather(probabilities, y, batch_dims=1)
        loss = -tf.math.log(tf.clip_by_value(own, 1e-7, 1 - 1e-7))
    step = eps * tf.sign(tape.gradient(loss, x))
    return np.clip(x + step, 0, 1)


def through_signs(layers, is_mask):
    """Logits of a chain of layers with the identity behind each mask."""

    def logits(x):
        for layer in layers:
            y = layer(x, training=False)
            if is_mask(layer):
                y = x + tf.stop_gradient(y - x)
            x = y
        return x

    return logits


def mean_over_draws(model, draws=10):
    """The mean logits of a model that draws anew at each call."""
    return lambda x: sum(model(x, training=False) for _ in range(draws)) / draws
