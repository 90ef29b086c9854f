"""Functions of a classifier, each built once for a model as it is now."""

import tensorflow as tf

from keras_qsn._core.convolution import fast_convolutions


def compiled_logits(wrapper, shape, key="logits", view=None, numbers=0):
    """A view's logits as a function to call, also while tracing another.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.
        key: Hashable; the same for the same view.
        view: Function from images, and scalars, to logits. Defaults to
            `None`: those of the model.
        numbers: How many scalars. Defaults to `0`.

    Returns:
        A concrete function of a batch of images, and of the scalars.
    """

    def run(x, *scalars):
        return (view or wrapper.get_logits)(x, *scalars)

    return compiled(
        wrapper,
        ("view", key, tuple(shape)),
        run,
        images_spec(shape),
        *numbers_spec(numbers),
    )


def numbers_spec(count):
    return [tf.TensorSpec([], tf.float32)] * count


def images_spec(shape):
    return tf.TensorSpec([None, *shape], tf.float32)


def compiled(wrapper, key, run, *signature):
    # A concrete function keeps the graph, not this closure: what is kept for
    # a model must not keep the model alive.
    def make():
        with fast_convolutions(wrapper.model):
            return tf.function(run, autograph=False).get_concrete_function(
                *signature
            )

    return wrapper.compiled(("attacks", *key), make)
