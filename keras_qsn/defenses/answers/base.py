"""What all defences of answers have in common."""

import keras


class AnswerDefense(keras.layers.Layer):
    """Base class: a layer from probabilities to those that are told.

    A subclass has `told(probabilities)`; or, where it looks at another
    network's probabilities of the same images, names that network in `beside`
    and has `told(probabilities, others)`: it is called on the list of both.
    """

    beside = None

    def build(self, input_shape):
        shapes = input_shape if self.beside else [input_shape]
        two = isinstance(shapes, (list, tuple)) and len(shapes) == 2
        if self.beside and not (two and isinstance(shapes[0], (list, tuple))):
            raise ValueError(
                f"{type(self).__name__} must be called on a list: the "
                f"probabilities of the model, and those of its {self.beside}. "
                f"Received: inputs of shape {input_shape}"
            )
        for shape in shapes:
            if len(shape) != 2 or (shape[-1] or 0) < 2:
                raise ValueError(
                    f"{type(self).__name__} expects probabilities of shape "
                    "(batch, classes), of at least 2 classes. "
                    f"Received: input_shape={tuple(shape)}"
                )
        if len({shape[-1] for shape in shapes}) > 1:
            raise ValueError(
                f"The {self.beside} of {type(self).__name__} must have the "
                "classes of the model. Received: probabilities of "
                f"{shapes[0][-1]} and of {shapes[1][-1]} classes"
            )

    def call(self, inputs):
        return self.told(*inputs) if self.beside else self.told(inputs)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0] if self.beside else input_shape)


def top_class(probabilities):
    """One-hot, in the probabilities' type: the first of the largest."""
    return keras.ops.one_hot(
        keras.ops.argmax(probabilities, -1),
        probabilities.shape[-1],
        dtype=probabilities.dtype,
    )


def normalized(weights):
    """Numbers >= 0 over their sum; where all are 0, the same for all."""
    total = keras.ops.sum(weights, -1, keepdims=True)
    some = total > 0
    even = keras.ops.ones_like(weights) / weights.shape[-1]
    safe = keras.ops.where(some, total, keras.ops.ones_like(total))
    return keras.ops.where(some, weights / safe, even)
