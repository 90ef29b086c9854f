"""What a model returns, and the class scores in it.

The compiled loss sees what the model returns: logits or probabilities, of one
column for two classes or of one each. Attacks, bounds and accuracies speak of
one logit for each class.
"""

import numpy as np
import tensorflow as tf

# Near the least positive float32.
_LEAST = 1e-35


def returns_logits(wrapper):
    """Whether what the model returns are its logits.

    Asked of the numbers, as any layer may make probabilities of them.
    """
    images = wrapper.random_images(2)
    returned = np.asarray(wrapper.model(images, training=False))
    logits = wrapper.logits(images)[:, -returned.shape[1] :]
    return np.allclose(returned, logits, rtol=1e-3, atol=1e-5)


def class_scores(returned, are_logits):
    """One number for each class, the largest for the one that is meant."""
    if returned.shape[1] > 1:
        return returned
    even = tf.fill(tf.shape(returned), 0.0 if are_logits else 0.5)
    return tf.concat([even, tf.cast(returned, tf.float32)], 1)


def log_probabilities(returned, are_logits):
    """The logarithm of each class's probability."""
    if are_logits:
        return tf.nn.log_softmax(class_scores(returned, True))
    if returned.shape[1] == 1:
        returned = tf.concat([1 - returned, returned], 1)
    # Not of 0, whose logarithm is infinite.
    return tf.math.log(tf.maximum(returned, _LEAST))


def as_returned(logits, columns, are_logits):
    """What a model of so many columns would return that has these logits."""
    if columns > 1:
        return logits if are_logits else tf.nn.softmax(logits)
    logit = logits[:, 1:] - logits[:, :1]
    return logit if are_logits else tf.nn.sigmoid(logit)
