"""Copycat: a copy taught nothing but the classes of random images."""

from keras_qsn.extraction.base import ExtractionAttack


class CopyCat(ExtractionAttack):
    """Copycat CNN: images drawn at random, of which the class alone is used.

    A defence that leaves the victim's class alone does not reach it: this is
    the adaptive attacker beside any defence of soft answers.

    Args:
        budget: As for `ExtractionAttack`.
        answers: `"hard"`.
        **kwargs: As for `ExtractionAttack`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> victim, copy = cleverhans_cnn(seed=0), substitute_mlp(seed=1)
    >>> attack = CopyCat(budget=30, epochs=1)
    >>> attack.run(victim, copy, x, x[30:], verbose=0).queries
    30

    Limitations:
        Needs more queries than an attack on probabilities. The paper asks
        about millions of natural images, and augments them.

    Reference:
        - Correia-Silva et al., IJCNN 2018: https://arxiv.org/abs/1806.05476
    """

    def __init__(self, budget=10000, answers="hard", **kwargs):
        if answers != "hard":
            raise ValueError(
                "`CopyCat` uses classes alone. "
                f"Received: answers={answers!r}. Take `KnockoffNets` for "
                "probabilities."
            )
        super().__init__(budget, answers, **kwargs)

    def _propose(self, thief, count):
        return thief.draw(count)
