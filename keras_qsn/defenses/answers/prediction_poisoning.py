"""MAD: answers that turn the gradient of who trains on them."""

import keras

from keras_qsn._core.numbers import check_at_least
from keras_qsn.defenses.answers.base import AnswerDefense
from keras_qsn.defenses.answers.base import top_class

# How much the top class is above its equals.
_AHEAD = 1e-5
_SMALLEST = 1e-12


@keras.saving.register_keras_serializable(package="keras_qsn")
class MAD(AnswerDefense):
    """Maximizing angular deviation, within a distance of the true answer.

    Who trains a surrogate network on the answer `y` to an image follows
    `G^T y`, `G` the gradients of its log probabilities. The answer told turns
    this direction the most:

        y* = argmax_v |G^T v / |G^T v| - G^T p / |G^T p||^2  over corners v
        y = (1 - a) p + a y*,  a = min(1, eps / |p - y*|_1)

    Of the last layer's weights, whose gradients the authors' code takes by
    default, `G^T v` is `(v - q) h^T`, with `q` the surrogate's probabilities
    and `h` what goes into that layer: the angle is that between `v - q` and
    `p - q`, and needs `q` alone.

    Corners are the classes. With `keep_top` they are the even mixtures of
    several classes, the top one among them, which is told 1e-5 more than its
    equals: they are searched by adding the best class to the mixture, one
    after the other, as that code does above ten classes.

    Args:
        eps: Float >= 0, L1 distance from the model's probabilities; 2 is
            no limit. Defaults to `1.0`.
        keep_top: Whether the top class stays. Defaults to `False`.
        **kwargs: Base `Layer` arguments: `name`, `dtype`.

    Call arguments:
        inputs: List of two: the model's probabilities `p` and the surrogate's
            `q`, each of shape `(batch, classes)`; of images, as
            `with_defended_answers(model, MAD(), beside=surrogate)` has them.

    Output shape:
        `(batch, classes)`.

    Raises:
        ValueError: If `eps` is out of range, or inputs have another shape.

    Example:

    >>> p = np.array([[0.6, 0.3, 0.1]], "float32")
    >>> q = np.array([[0.2, 0.5, 0.3]], "float32")
    >>> MAD(eps=0.4)([p, q]).numpy().round(2)
    array([[0.43, 0.5 , 0.07]], dtype=float32)

    Limitations:
        Void for who takes the class alone if the top class stays; else users
        are told wrong classes. A surrogate unlike the copy, or the model
        itself, where no direction is to be turned, costs strength.

    Reference:
        - Orekondy et al., 2020: https://arxiv.org/abs/1906.10908
    """

    beside = "surrogate"

    def __init__(self, eps=1.0, keep_top=False, **kwargs):
        super().__init__(**kwargs)
        self.eps = check_at_least("eps", eps, 0)
        self.keep_top = bool(keep_top)

    def told(self, probabilities, others):
        p, q = probabilities, others
        corner = _mixture(p, q) if self.keep_top else _class(p, q)
        distance = keras.ops.sum(abs(p - corner), -1, keepdims=True)
        share = self.eps / keras.ops.maximum(distance, _SMALLEST)
        return p + keras.ops.minimum(share, 1) * (corner - p)

    def get_config(self):
        own = {"eps": self.eps, "keep_top": self.keep_top}
        return {**super().get_config(), **own}


def _class(p, q):
    """The one class that turns the direction the most, one-hot."""
    none = keras.ops.zeros_like(p)
    return top_class(-_cosines(none, p, q, 1.0))


def _cosines(mixed, p, q, size):
    """Cosine of `v - q` and `p - q`, for each class that joins a mixture.

    Args:
        mixed: The classes that are in, 1 each.
        p: Probabilities of the model.
        q: Probabilities of the surrogate.
        size: How many classes are mixed with the new one.
    """

    def inner(a, b):
        return keras.ops.sum(a * b, -1, keepdims=True)

    turned = p - q
    along = (inner(mixed, turned) + turned) / size - inner(q, turned)
    square = 1 / size - 2 * (inner(mixed, q) + q) / size + inner(q, q)
    square = keras.ops.maximum(square * inner(turned, turned), _SMALLEST)
    return along / keras.ops.sqrt(square)


def _mixture(p, q):
    """The best even mixture of the top class and others, found greedily."""
    classes = p.shape[-1]
    top = top_class(p)
    # Of the top class alone: it joins nothing.
    alone = _cosines(keras.ops.zeros_like(p), p, q, 1.0)
    lowest = keras.ops.sum(alone * top, -1, keepdims=True)

    def join(i, found):
        mixed, best, lowest = found
        size = keras.ops.cast(i + 2, p.dtype)
        cosines = _cosines(mixed, p, q, size)
        cosines = keras.ops.where(mixed > 0, float("inf"), cosines)
        mixed = mixed + top_class(-cosines)
        cosine = keras.ops.min(cosines, -1, keepdims=True)
        better = cosine < lowest
        best = keras.ops.where(better, mixed, best)
        return mixed, best, keras.ops.where(better, cosine, lowest)

    found = keras.ops.fori_loop(0, classes - 1, join, (top, top, lowest))
    best = found[1] + _AHEAD * top
    return best / keras.ops.sum(best, -1, keepdims=True)
