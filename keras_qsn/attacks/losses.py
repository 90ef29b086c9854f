"""What attacks raise, cross-entropy or margin, and when they succeed."""

import numpy as np
import tensorflow as tf

# Logits of another batch size differ by less than this part of the largest.
_ROUNDING = 1e-5


def cross_entropy(logits, labels, targeted):
    """The attacker's gain: of the label's cross-entropy, less the target's."""
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return -loss if targeted else loss


def gradient_of(tape, loss, x, weights=None):
    """The tape's gradient; zero where an operation on the way has none."""
    try:
        return tape.gradient(loss, x, weights, unconnected_gradients="zero")
    except (LookupError, TypeError, ValueError):
        # No gradient is registered, or one that is not given a gradient.
        return tf.zeros_like(x)


def loss_gradient(logits_fn, x, labels, targeted):
    """Gradient of the cross-entropy, uphill for the attacker, and logits."""
    return gain_gradient(logits_fn, x, labels, False, targeted)


def margin_gradient(logits_fn, x, labels, targeted):
    """Gradient of the attacker's lead, and logits."""
    return gain_gradient(logits_fn, x, labels, True, targeted)


def gain_gradient(logits_fn, x, labels, of_margin, targeted):
    """Gradient of the attacker's lead, or of the cross-entropy, and logits.

    Args:
        logits_fn: Function from images to logits. One that has a
            `gain_gradient(x, labels, of_margin)` of its own, compiled, is
            asked for that.
        x: Float tensor of images.
        labels: Integer tensor of shape `(batch,)`.
        of_margin: Whether of the lead; a boolean or a boolean tensor.
        targeted: Whether `labels` are to be reached.
    """
    if hasattr(logits_fn, "gain_gradient") and not targeted:
        return logits_fn.gain_gradient(x, labels, of_margin)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = tf.cast(logits_fn(x), tf.float32)
        if isinstance(of_margin, bool):
            gain = margin_of if of_margin else cross_entropy
            gain = gain(logits, labels, targeted)
        else:
            gain = tf.where(
                of_margin,
                margin_of(logits, labels, targeted),
                cross_entropy(logits, labels, targeted),
            )
    return gradient_of(tape, gain, x), logits


def logits_and_pullback(logits_fn, x):
    """Logits, and a function from their weights to the weighted gradient.

    To be called in a loop, where it adds one backward pass to the graph, not
    one for each class.
    """
    # The body of a loop is traced once; eagerly it is run again and again.
    with tf.GradientTape(
        persistent=tf.executing_eagerly(), watch_accessed_variables=False
    ) as tape:
        tape.watch(x)
        logits = tf.cast(logits_fn(x), tf.float32)
    return logits, lambda weights: gradient_of(tape, logits, x, weights)


def margin_of(logits, labels, targeted):
    """The attacker's lead in the logits, less what rounding may take."""
    logits = tf.cast(logits, tf.float32)
    is_label = tf.one_hot(labels, tf.shape(logits)[1], True, False, dtype=bool)
    own = tf.gather(logits, labels, batch_dims=1)
    other = tf.reduce_max(tf.where(is_label, -np.inf, logits), 1)
    lead = own - other if targeted else other - own
    largest = tf.reduce_max(tf.abs(logits), 1)
    return lead - tf.stop_gradient(_ROUNDING * largest)


def fooled(logits, labels, targeted):
    """Whether an image is fooled and stays so in a batch of another size."""
    return margin_of(logits, labels, targeted) > 0


def per_image(values, x):
    """Shape `(batch,)` to one that broadcasts against the images `x`."""
    return tf.reshape(values, [-1] + [1] * (len(x.shape) - 1))


def likeliest_others(logits, labels, count):
    """The `count` likeliest classes but the label, likeliest first."""
    own = tf.one_hot(labels, logits.shape[-1], True, False)
    logits = tf.where(own, -np.inf, tf.cast(logits, tf.float32))
    return tf.math.top_k(logits, count).indices
