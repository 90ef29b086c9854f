"""Probabilities of few decimals."""

import keras

from keras_qsn._core.numbers import check_count
from keras_qsn.defenses.answers.base import AnswerDefense
from keras_qsn.defenses.answers.base import normalized


@keras.saving.register_keras_serializable(package="keras_qsn")
class RoundedAnswers(AnswerDefense):
    """Rounds probabilities to a number of decimals.

        r_c = round(10^d p_c) / 10^d,  y = r / sum_c r_c

    Where nothing is left of any class, all have the same.

    Args:
        decimals: Integer >= 0, `d`. Defaults to `2`.
        **kwargs: Base `Layer` arguments: `name`, `dtype`.

    Call arguments:
        inputs: Probabilities of shape `(batch, classes)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: If `decimals` is no such number, or inputs have another
            shape.

    Example:

    >>> p = np.array([[0.706, 0.202, 0.092]], "float32")
    >>> RoundedAnswers(1)(p).numpy().round(4)
    array([[0.7, 0.2, 0.1]], dtype=float32)

    Limitations:
        Void for who takes the class alone, which is the same but for ties.
        Copies lose little by two decimals (Tramer et al., 2016).

    Reference:
        - Tramer et al., 2016, section 7: https://arxiv.org/abs/1609.02943
    """

    def __init__(self, decimals=2, **kwargs):
        super().__init__(**kwargs)
        self.decimals = check_count("decimals", decimals, 0)

    def told(self, probabilities):
        return normalized(keras.ops.round(probabilities, self.decimals))

    def get_config(self):
        return {**super().get_config(), "decimals": self.decimals}
