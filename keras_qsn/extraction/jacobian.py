"""Jacobian-based augmentation: images made of those asked about before."""

import numpy as np

from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_positive
from keras_qsn.attacks.transfer.substitute import augmentation_step
from keras_qsn.attacks.transfer.substitute import augmented
from keras_qsn.extraction.base import ExtractionAttack


class JacobianAugmentation(ExtractionAttack):
    """Jacobian-based augmentation: a few images, and steps away from them.

    After a first round of few images, each round asks about one new image
    beside each of those before, `c` its class by the victim, until the budget
    ends; in the last round beside some of them, drawn at random:

        x_new = clip(x + s * lmbda * sign(dZ_c / dx))

    with `Z` the logits of the copy, taught all answers so far, and `s` 1 for
    three rounds, -1 for three, and so on. `attacks.train_substitute` has the
    same steps, for a substitute to transfer from.

    Args:
        budget: As for `ExtractionAttack`.
        answers: As for `ExtractionAttack`.
        initial: Integer >= 1. Images of the first round, drawn from those
            given. Defaults to `150`.
        lmbda: Float > 0. What is added to a pixel. Defaults to `0.1`.
        **kwargs: As for `ExtractionAttack`, but for `rounds`, which the
            budget decides.

    Raises:
        ValueError: If an argument is out of range, or `initial` images are
            more than the budget allows for.

    Example:

    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> victim, copy = cleverhans_cnn(seed=0), substitute_mlp(seed=1)
    >>> attack = JacobianAugmentation(30, initial=5, epochs=1)
    >>> result = attack.run(victim, copy, x, x[30:], verbose=0)
    >>> [queries for queries, agreement in result.curve]
    [5, 10, 20, 30]

    Limitations:
        Knows the victim near its first images alone.

    Reference:
        - Papernot et al., 2017: https://arxiv.org/abs/1602.02697
    """

    def __init__(
        self,
        budget=10000,
        answers="soft",
        initial=150,
        lmbda=0.1,
        rounds=1,
        **kwargs,
    ):
        super().__init__(budget, answers, rounds, **kwargs)
        self.initial = check_count("initial", initial)
        self.lmbda = check_positive("lmbda", lmbda)
        if rounds != 1:
            raise ValueError(
                "`rounds` follow from `budget` and `initial`. "
                f"Received: rounds={rounds}"
            )
        if initial > self.budget // self.repeats:
            raise ValueError(
                "`initial` must be no more images than the budget allows for. "
                f"Received: initial={initial}, budget={self.budget}, "
                f"repeats={self.repeats}"
            )

    def _goals(self, images):
        goals = [self.initial]
        while goals[-1] < images:
            goals.append(min(2 * goals[-1], images))
        return goals

    def _propose(self, thief, count):
        if not len(thief.x):
            return thief.draw(count)
        x, classes = thief.x, thief.answers.argmax(-1)
        done = len(thief.curve) - 1
        rows = np.arange(len(x))
        if count < len(x):
            rows = thief.rng.choice(rows, count, replace=False)
        moved = augmented(
            thief.copy,
            x[rows],
            classes[rows],
            augmentation_step(self.lmbda, done),
        )
        return np.clip(moved, self.clip_min, self.clip_max)
