"""ActiveThief: the copy chooses which images to ask about."""

import numpy as np
from scipy import special

from keras_qsn.extraction.base import ExtractionAttack

STRATEGIES = ("uncertainty", "k-center")


class ActiveThief(ExtractionAttack):
    """ActiveThief: in each round, what the copy has most to learn of.

    The first round draws at random. Then the copy, taught all answers so far,
    looks at the images that are left:

    - `"uncertainty"` takes those of the largest entropy of its probabilities;
    - `"k-center"` takes, one after the other, the image whose probabilities
      are farthest (L2) from those of all images taken.

    Args:
        budget: As for `ExtractionAttack`.
        answers: As for `ExtractionAttack`.
        strategy: `"uncertainty"` or `"k-center"`. Defaults to
            `"uncertainty"`.
        rounds: Integer >= 1. Equal parts of the budget. Defaults to `10`.
        **kwargs: As for `ExtractionAttack`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> victim, copy = cleverhans_cnn(seed=0), substitute_mlp(seed=1)
    >>> attack = ActiveThief(30, "soft", "k-center", rounds=3, epochs=1)
    >>> result = attack.run(victim, copy, x, x[30:], verbose=0)
    >>> [queries for queries, agreement in result.curve]
    [10, 20, 30]

    Limitations:
        What a copy is unsure of is much alike: with few rounds, uncertainty
        may be worse than chance. The copy is taught anew in each round, the
        paper also stops each early, by a part of the budget held back.

    Reference:
        - Pal et al., AAAI 2020: https://doi.org/10.1609/aaai.v34i01.5432
    """

    def __init__(
        self,
        budget=10000,
        answers="soft",
        strategy="uncertainty",
        rounds=10,
        **kwargs,
    ):
        super().__init__(budget, answers, rounds, **kwargs)
        if strategy not in STRATEGIES:
            raise ValueError(
                f"`strategy` must be one of {', '.join(STRATEGIES)}. "
                f"Received: strategy={strategy!r}"
            )
        self.strategy = strategy

    def _propose(self, thief, count):
        if not len(thief.x):
            return thief.draw(count)

        def seen(x):
            return special.softmax(thief.copy.logits(x), -1)

        p = seen(thief.images[thief.untaken])
        if self.strategy == "uncertainty":
            entropy = special.entr(p).sum(-1)
            rows = np.argsort(-entropy, kind="stable")[:count]
        else:
            rows = _farthest(p, seen(thief.x), count)
        return thief.take(thief.untaken[rows])


def _farthest(points, centers, count):
    """Rows of points, each farthest from the centers and those before it."""
    rows, count = [], min(count, len(points))
    nearest = np.full(len(points), np.inf)
    for center in centers:
        nearest = np.minimum(nearest, _squares(points, center))
    while len(rows) < count:
        # Not one that was chosen, where all are at the same place.
        nearest[rows] = -1
        rows.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _squares(points, points[rows[-1]]))
    return rows


def _squares(points, center):
    return np.square(points - center).sum(-1)
