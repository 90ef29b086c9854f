"""Adaptive misinformation: another model's answers where ours is not sure."""

import keras

from keras_qsn._core.numbers import check_positive
from keras_qsn._core.numbers import check_share
from keras_qsn.defenses.answers.base import AnswerDefense


@keras.saving.register_keras_serializable(package="keras_qsn")
class AdaptiveMisinformation(AnswerDefense):
    """Tells another model's probabilities where the top one is small.

        y = (1 - a) p + a m,  a = sigmoid(nu (tau - max_c p_c))

    with `m` the probabilities of a misinformation model, trained to be wrong
    (`keras_qsn.losses.ReverseCrossentropy`): users ask for images of the
    task, of which the model is sure; who copies it asks for others. The model
    itself is best trained to be unsure of these (outlier exposure), which is
    left to you.

    Args:
        threshold: Float from 0 to 1, `tau`. Choose it on held-out images of
            the task, by the share of them that is misinformed. Defaults to
            `0.5`.
        steepness: Float > 0, `nu`. Defaults to `1000.0`.
        **kwargs: Base `Layer` arguments: `name`, `dtype`.

    Call arguments:
        inputs: List of two: the model's probabilities `p` and the
            misinformation model's `m`, each of shape `(batch, classes)`; of
            images, as `with_defended_answers(model, AdaptiveMisinformation(),
            beside=misinformation)` has them.

    Output shape:
        `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of range, or inputs have another
            shape.

    Example:

    >>> p = np.array([[0.9, 0.1], [0.6, 0.4]], "float32")
    >>> m = np.array([[0.2, 0.8], [0.2, 0.8]], "float32")
    >>> AdaptiveMisinformation(threshold=0.7)([p, m]).numpy().round(2)
    array([[0.9, 0.1],
           [0.2, 0.8]], dtype=float32)

    Limitations:
        Void for who asks for images of the task, or keeps those answers alone
        of which the model is sure. Classes change where it is not: labels
        only do not help there, but users pay as well.

    Reference:
        - Kariyappa & Qureshi, 2020: https://arxiv.org/abs/1911.07100
    """

    beside = "misinformation model"

    def __init__(self, threshold=0.5, steepness=1000.0, **kwargs):
        super().__init__(**kwargs)
        self.threshold = check_share("threshold", threshold)
        self.steepness = check_positive("steepness", steepness)

    def told(self, probabilities, others):
        top = keras.ops.max(probabilities, -1, keepdims=True)
        share = keras.ops.sigmoid(self.steepness * (self.threshold - top))
        return (1 - share) * probabilities + share * others

    def get_config(self):
        own = {"threshold": self.threshold, "steepness": self.steepness}
        return {**super().get_config(), **own}
