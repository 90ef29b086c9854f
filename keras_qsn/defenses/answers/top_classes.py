"""Probabilities of the most probable classes, or the class alone."""

import keras

from keras_qsn._core.numbers import check_count
from keras_qsn.defenses.answers.base import AnswerDefense
from keras_qsn.defenses.answers.base import normalized
from keras_qsn.defenses.answers.base import top_class

RESTS = ("zero", "shared")


@keras.saving.register_keras_serializable(package="keras_qsn")
class TopAnswers(AnswerDefense):
    """Tells the probabilities of the `k` most probable classes only.

        rest="zero":    y_c = p_c / s in the top k, else 0
        rest="shared":  y_c = p_c in the top k, else (1 - s) / (C - k)
        with s = sum of p_c in the top k, C classes

    Args:
        k: Integer >= 1. Defaults to `1`.
        rest: `"zero"` or `"shared"`, what the other classes get. Defaults to
            `"zero"`.
        **kwargs: Base `Layer` arguments: `name`, `dtype`.

    Call arguments:
        inputs: Probabilities of shape `(batch, classes)`, at least `k`
            classes.

    Output shape:
        Same as the input.

    Raises:
        ValueError: If an argument is out of range, or inputs have another
            shape or fewer than `k` classes.

    Example:

    >>> p = np.array([[0.5, 0.25, 0.15, 0.1]], "float32")
    >>> TopAnswers(2, rest="shared")(p).numpy().round(4)
    array([[0.5  , 0.25 , 0.125, 0.125]], dtype=float32)

    Limitations:
        Void for who takes the class alone, which stays the same; of the top
        few a copy learns nearly all.

    Reference:
        - Orekondy et al., 2019 (top-k answers to KnockoffNets):
          https://arxiv.org/abs/1812.02766
    """

    def __init__(self, k=1, rest="zero", **kwargs):
        super().__init__(**kwargs)
        self.k = check_count("k", k)
        if rest not in RESTS:
            raise ValueError(
                f"`rest` must be one of {RESTS}. Received: rest={rest!r}"
            )
        self.rest = rest

    def build(self, input_shape):
        super().build(input_shape)
        if self.k > input_shape[-1]:
            raise ValueError(
                "`k` must be at most the number of classes. "
                f"Received: k={self.k}, input_shape={tuple(input_shape)}"
            )

    def told(self, probabilities):
        classes = probabilities.shape[-1]
        _, ranked = keras.ops.top_k(probabilities, self.k)
        among = keras.ops.one_hot(ranked, classes, dtype=probabilities.dtype)
        among = keras.ops.sum(among, 1)
        top = probabilities * among
        if self.rest == "zero" or self.k == classes:
            return normalized(top)
        left = 1 - keras.ops.sum(top, -1, keepdims=True)
        share = keras.ops.maximum(left, 0) / (classes - self.k)
        return top + (1 - among) * share

    def get_config(self):
        return {**super().get_config(), "k": self.k, "rest": self.rest}


@keras.saving.register_keras_serializable(package="keras_qsn")
class LabelsOnly(AnswerDefense):
    """Tells the most probable class alone, with probability 1.

        y_c = [c = argmax p]

    Args:
        **kwargs: Base `Layer` arguments: `name`, `dtype`.

    Call arguments:
        inputs: Probabilities of shape `(batch, classes)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: If inputs have another shape.

    Example:

    >>> LabelsOnly()(np.array([[0.3, 0.7]], "float32")).numpy()
    array([[0., 1.]], dtype=float32)

    Limitations:
        The most that can be kept back without a wrong answer. Copies learn
        from classes, too, with more queries (Correia-Silva et al., 2018).

    Reference:
        - Correia-Silva et al., 2018 (CopyCat):
          https://arxiv.org/abs/1806.05476
    """

    def told(self, probabilities):
        return top_class(probabilities)
