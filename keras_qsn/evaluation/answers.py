"""How often a model that answers at random is right."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """How often a model that answers at random is right.

    Attributes:
        draws: Answers counted at each image, drawn after all attacks.
        clean: The share of right ones, for each image.
        attacked: The same at the worst image found within the threat model.

    Example:

    >>> answers = Answers(100, np.array([0.9, 0.8]), np.array([0.4, 0.7]))
    >>> round(answers.mean_robust_accuracy, 2)
    0.55
    """

    draws: int
    clean: np.ndarray
    attacked: np.ndarray

    @property
    def mean_accuracy(self):
        """The mean share, of the images as they are."""
        return float(self.clean.mean())

    @property
    def mean_robust_accuracy(self):
        """The mean share, of the worst images found."""
        return float(self.attacked.mean())
