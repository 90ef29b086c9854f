"""What attacks raise, by name, and when they succeed."""

import inspect

import numpy as np
import tensorflow as tf

# Logits of another batch size differ by less than this part of the largest.
ROUNDING = 1e-5
# How far apart the logits of a network may be whose cross-entropy sees more
# than two of them.
SPREAD = 30.0
# Of APGD's authors: keeps DLR finite where the leading logits are equal.
_TINY = 1e-12


def cross_entropy(logits, labels, targeted):
    """The attacker's gain: the log odds of all classes but the label.

    `u = log sum_{j != y} exp(z_j) - z_y`. The cross-entropy `log(1 + e^u)`
    rises where `u` does, and its gradient has the direction of that of `u`;
    but it is rounded to zero where the model is sure, as it is at any image
    once its logits are scaled up. Nor does such a scale leave a margin of two
    classes alone: logits further apart than `SPREAD` are taken at the
    temperature that brings them there.
    """
    logits = tf.cast(logits, tf.float32)
    spread = tf.reduce_max(logits, 1) - tf.reduce_min(logits, 1)
    logits /= tf.stop_gradient(tf.maximum(spread / SPREAD, 1.0))[:, None]
    odds = tf.reduce_logsumexp(others(logits, labels), 1)
    odds -= tf.gather(logits, labels, batch_dims=1)
    return -odds if targeted else odds


def margin_of(logits, labels, targeted, rounding=ROUNDING):
    """The attacker's lead in the logits, less what rounding may take."""
    logits = tf.cast(logits, tf.float32)
    ahead = -lead(logits, labels) if targeted else lead(logits, labels)
    largest = tf.reduce_max(tf.abs(logits), 1)
    return ahead - tf.stop_gradient(rounding * largest)


def dlr(logits, labels, targeted, others=None):
    """The lead over the spread of the logits, the same at every scale.

    Args:
        logits: Float tensor of shape `(batch, classes)`.
        labels: Integer tensor of shape `(batch,)`.
        targeted: Whether `labels` are to be reached.
        others: Classes set against the labels. Defaults to `None`: the
            largest other one of each image.
    """
    fixed = others is not None
    needed, classes = 4 if fixed or targeted else 3, logits.shape[-1]
    top = tf.math.top_k(logits, min(needed, classes)).values
    spread = 1.0
    if classes > 2:
        spread = top[:, 0] - tf.reduce_mean(top[:, 2:], 1)
        # Logits that differ by rounding only would send it anywhere.
        largest = tf.stop_gradient(tf.reduce_max(tf.abs(logits), 1))
        spread = tf.maximum(spread, ROUNDING * largest) + _TINY
    if fixed:
        ahead = tf.gather(logits, others, batch_dims=1)
        ahead -= tf.gather(logits, labels, batch_dims=1)
    else:
        ahead = lead(logits, labels)
    return (-1.0 if targeted else 1.0) * ahead / spread


# The attacker's gains by the names that attacks know them by.
LOSSES = {"cross_entropy": cross_entropy, "margin": margin_of, "dlr": dlr}


def check_loss(name, loss):
    """Return a loss: one of `LOSSES`, or a function, or say what came."""
    if not (_takes_two(loss) if callable(loss) else loss in LOSSES):
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, LOSSES))}, or a "
            f"function of labels and logits. Received: {name}={loss!r}"
        )
    return loss


def _takes_two(function):
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        # A function of C code may not say what it takes.
        pass
    return True


def gain_of(loss):
    """What an attack raises: a function of logits, labels and `targeted`."""
    if not callable(loss):
        return LOSSES[loss]

    def gain(logits, labels, targeted):
        value = loss(labels, logits)
        return -value if targeted else value

    return gain


def gradient_of(tape, loss, x, weights=None):
    """The tape's gradient; zero where an operation on the way has none."""
    try:
        gradient = tape.gradient(loss, x, weights, unconnected_gradients="zero")
    except (LookupError, TypeError, ValueError):
        # No gradient is registered, or one that is not given a gradient.
        return tf.zeros_like(x)
    # Of a `tf.py_function` without a gradient comes one scalar of zero.
    return tf.broadcast_to(gradient, tf.shape(x))


def gain_gradient(logits_fn, x, labels, gain, targeted):
    """Gradient of the attacker's gain, uphill for the attacker, and logits.

    Args:
        logits_fn: Function from images to logits. One that has a
            `gain_gradient(x, labels, of_margin)` of its own, compiled, is
            asked for that.
        x: Float tensor of images.
        labels: Integer tensor of shape `(batch,)`.
        gain: What is raised, such as `cross_entropy`; or a boolean tensor:
            whether it is `margin_of`, not `cross_entropy`.
        targeted: Whether `labels` are to be reached.
    """
    either = not callable(gain) or gain in (cross_entropy, margin_of)
    if hasattr(logits_fn, "gain_gradient") and either and not targeted:
        of_margin = gain is margin_of if callable(gain) else gain
        return logits_fn.gain_gradient(x, labels, of_margin)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = tf.cast(logits_fn(x), tf.float32)
        if callable(gain):
            value = gain(logits, labels, targeted)
        else:
            value = tf.where(
                gain,
                margin_of(logits, labels, targeted),
                cross_entropy(logits, labels, targeted),
            )
    return gradient_of(tape, value, x), logits


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


def fooled(logits, labels, targeted, rounding=ROUNDING):
    """Whether an image is fooled and stays so in a batch of another size.

    Args:
        logits: Float tensor of shape `(batch, classes)`.
        labels: Integer tensor of shape `(batch,)`.
        targeted: Whether `labels` are to be reached.
        rounding: Part of the largest logit by which logits may be off.
    """
    return margin_of(logits, labels, targeted, rounding) > 0


def rounding_of(logits_fn):
    """What `fooled` takes of the logits of a function, such as a `Seen`."""
    return getattr(logits_fn, "rounding", ROUNDING)


def others(logits, labels):
    """The logits but the label's own, which is minus infinity."""
    own = tf.one_hot(labels, logits.shape[1], True, False, dtype=bool)
    return tf.where(own, -np.inf, logits)


def lead(logits, labels):
    """How far the largest other logit is above the label's, per image."""
    largest = tf.reduce_max(others(logits, labels), 1)
    return largest - tf.gather(logits, labels, batch_dims=1)


def likeliest_others(logits, labels, count):
    """The `count` likeliest classes but the label, likeliest first."""
    logits = tf.cast(logits, tf.float32)
    return tf.math.top_k(others(logits, labels), count).indices
