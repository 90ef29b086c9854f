"""Probabilities with noise, drawn anew for each answer."""

import keras

from keras_qsn._core.numbers import check_at_least
from keras_qsn._core.numbers import check_count
from keras_qsn.defenses.answers.base import AnswerDefense
from keras_qsn.defenses.answers.base import normalized
from keras_qsn.defenses.answers.base import top_class


@keras.saving.register_keras_serializable(package="keras_qsn")
class NoisyAnswers(AnswerDefense):
    """Adds Gaussian noise to probabilities, anew for each answer.

        r = max(p + sigma n, 0),  n ~ N(0, 1) for each class,  y = r / sum r

    With `keep_top` the largest value changes places with that of the class
    that was the top one. The place in the stream of draws is saved with the
    model.

    Args:
        sigma: Float >= 0. Defaults to `0.1` (ours).
        keep_top: Whether the top class stays. Defaults to `False`.
        seed: Integer >= 0, decides the draws. Defaults to `0`.
        **kwargs: Base `Layer` arguments: `name`, `dtype`.

    Call arguments:
        inputs: Probabilities of shape `(batch, classes)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: If an argument is out of range, or inputs have another
            shape.

    Example:

    >>> p = np.array([[0.6, 0.3, 0.1]], "float32")
    >>> layer = NoisyAnswers(keep_top=True)
    >>> bool((layer(p) == layer(p)).numpy().all())
    False

    Limitations:
        Void for who asks several times and takes the mean (what the cut at 0
        adds to small probabilities stays, and stands in this formula), or,
        with `keep_top`, the class alone. Without it the user, too, is told
        wrong classes.

    Reference:
        - Orekondy et al., 2020, where noise is what others are compared
          with: https://arxiv.org/abs/1906.10908
    """

    def __init__(self, sigma=0.1, keep_top=False, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.sigma = check_at_least("sigma", sigma, 0)
        self.keep_top = bool(keep_top)
        self.seed = check_count("seed", seed, 0)
        self._draws = keras.random.SeedGenerator(self.seed)

    def told(self, probabilities):
        noise = keras.random.normal(
            keras.ops.shape(probabilities),
            dtype=probabilities.dtype,
            seed=self._draws,
        )
        noisy = keras.ops.maximum(probabilities + self.sigma * noise, 0)
        told = normalized(noisy)
        if not self.keep_top:
            return told
        top = top_class(probabilities)
        largest = keras.ops.max(told, -1, keepdims=True)
        own = keras.ops.sum(told * top, -1, keepdims=True)
        return told + (largest - own) * (top - top_class(told))

    def get_config(self):
        own = {"sigma": self.sigma, "keep_top": self.keep_top}
        return {**super().get_config(), **own, "seed": self.seed}
