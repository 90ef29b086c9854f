"""The reverse sigmoid: one probability for several."""

import keras

from keras_qsn._core.numbers import check_positive
from keras_qsn._core.numbers import check_share
from keras_qsn.defenses.answers.base import AnswerDefense
from keras_qsn.defenses.answers.base import normalized

# From 0 and 1, where the inverse of the sigmoid has no value.
_MARGIN = 1e-6


@keras.saving.register_keras_serializable(package="keras_qsn")
class ReverseSigmoid(AnswerDefense):
    """Takes from each probability a sigmoid that runs against it.

        r(p) = beta (sigmoid(gamma logit(p)) - 1/2)
        y = a (p - r(p)),  a so that the sum over classes is 1

    The sum is no longer monotone: a copy is told the same of several
    probabilities. A reconstruction: the formula is that of the public code of
    Orekondy et al. (2020), which cites its Eqs. 3 and 4; the paper's text was
    not at hand. There is no logit of 0 and 1: probabilities are kept 1e-6
    from them.

    Args:
        beta: Float from 0 to 1, the size. Defaults to `0.7` (recalled, not
            verified).
        gamma: Float > 0, the steepness. Defaults to `0.2` (recalled, not
            verified).
        **kwargs: Base `Layer` arguments: `name`, `dtype`.

    Call arguments:
        inputs: Probabilities of shape `(batch, classes)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: If an argument is out of range, or inputs have another
            shape.

    Example:

    >>> p = np.array([[0.9, 0.09, 0.01]], "float32")
    >>> ReverseSigmoid()(p).numpy().round(2)
    array([[0.71, 0.15, 0.14]], dtype=float32)

    Limitations:
        Void for who takes the class alone, where that stays: always of two
        classes (with `gamma <= 1`), else where the top one is probable. Where
        none is, classes of hardly any probability may overtake it, and the
        user pays, too. The formula is fixed: who knows it learns through it.

    Reference:
        - Lee et al., 2019: https://arxiv.org/abs/1806.00054
        - Orekondy et al., 2020: https://arxiv.org/abs/1906.10908
    """

    def __init__(self, beta=0.7, gamma=0.2, **kwargs):
        super().__init__(**kwargs)
        self.beta = check_share("beta", beta)
        self.gamma = check_positive("gamma", gamma)

    def told(self, probabilities):
        p = keras.ops.clip(probabilities, _MARGIN, 1 - _MARGIN)
        logit = keras.ops.log(p) - keras.ops.log1p(-p)
        reverse = keras.ops.sigmoid(self.gamma * logit) - 0.5
        return normalized(probabilities - self.beta * reverse)

    def get_config(self):
        own = {"beta": self.beta, "gamma": self.gamma}
        return {**super().get_config(), **own}
