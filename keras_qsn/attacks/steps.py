"""What searches share: images still at work, seeds of restarts, rates."""

import functools
import math

import tensorflow as tf

# Adam's.
_BETA_1 = 0.9
_BETA_2 = 0.999
EPSILON = 1e-8


def per_image(values, x):
    """Shape `(batch,)` to one that broadcasts against the images `x`."""
    if len(x.shape) == 1:
        return values
    return tf.reshape(values, [-1] + [1] * (len(x.shape) - 1))


def where(condition, x, other):
    """Of each image, what `x` has where the condition holds."""
    return tf.where(per_image(condition, x), x, other)


def pick(condition, these, others):
    """`where`, of several tensors."""
    return tuple(where(condition, *pair) for pair in zip(these, others))


def repeat(step, times, state, active=None):
    """Steps one after the other.

    Args:
        step: Function from the number of the step and the state to the next
            state, a tuple.
        times: Whole number or scalar tensor, the largest number of steps.
        state: Tuple of tensors.
        active: Function from the state to booleans. Once none holds, the
            steps end. Defaults to `None`: they go on.

    Returns:
        The last state.
    """

    def go_on(i, *state):
        if active is None:
            return i < times
        return (i < times) & tf.reduce_any(active(*state))

    return tf.while_loop(
        go_on,
        lambda i, *state: (i + 1, *step(i, *state)),
        (0, *state),
        parallel_iterations=1,
    )[1:]


def search(step, times, state, given, active=lambda *state: state[-1]):
    """Steps of the images still at work, until none is.

    Args:
        step: As for `at_work`, but for the number of the step, its first
            argument.
        times: As for `repeat`.
        state: Tuple of tensors with a row for each image.
        given: More of them, which stay as they are.
        active: As for `repeat`, one boolean for each image: whether it is
            at work. Defaults to the last tensor of the state.

    Returns:
        The last state.
    """

    def one(i, *state):
        rows_step = functools.partial(step, i)
        return at_work(active(*state), rows_step, state, given)

    return repeat(one, times, state, active)


def at_work(active, step, state, given):
    """`step` of some images, which alone go through the model.

    Args:
        active: Booleans, one for each image.
        step: Function from these images' rows of `state` and of `given` to
            the rows that come in place of those of `state`.
        state: As for `search`.
        given: As for `search`.

    Returns:
        A tuple like `state`.
    """
    rows = tf.where(active)
    after = step(*(tf.gather_nd(t, rows) for t in (*state, *given)))
    return tuple(
        tf.tensor_scatter_nd_update(before, rows, new)
        for before, new in zip(state, after)
    )


def restarted(seeds, number, stream=0):
    """The seeds of a restart; those of number 0 are `seeds` themselves.

    Moved by 64 bits drawn for the number, so that restarts share nothing,
    with each other or with an attack of another seed that is in use.

    Args:
        seeds: Integers of shape `(batch, 2)`.
        number: Whole number or scalar tensor.
        stream: Whole number: of what it is the number.
    """
    moved = tf.random.stateless_uniform(
        [2], tf.stack([number, stream]), None, None, tf.int32
    )
    return seeds + tf.cast(tf.where(number > 0, moved, 0), seeds.dtype)


def cosine(i, times):
    """What is left before step `i` of so many: from 1 to 0 along a cosine."""
    share = tf.cast(i, tf.float32) / tf.cast(times, tf.float32)
    return (1 + tf.cos(math.pi * share)) / 2


def moments(i, gradient, mean, square):
    """Adam's moments after step `i`, and what they are short of, as shares.

    Returns:
        The mean of gradients, the mean of their squares, and, for the rate of
        the step, `1 - beta_1^t` and `sqrt(1 - beta_2^t)`.
    """
    mean = _BETA_1 * mean + (1 - _BETA_1) * gradient
    square = _BETA_2 * square + (1 - _BETA_2) * tf.square(gradient)
    t = tf.cast(i + 1, tf.float32)
    return mean, square, 1 - _BETA_1**t, tf.sqrt(1 - _BETA_2**t)
