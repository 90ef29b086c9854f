"""KnockoffNets: a copy taught the answers to images of any origin."""

import numpy as np

from keras_qsn.extraction.base import ExtractionAttack


class KnockoffNets(ExtractionAttack):
    """KnockoffNets with random sampling: images drawn, each asked once.

    Args:
        **kwargs: As for `ExtractionAttack`.

    Example:

    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> victim, copy = cleverhans_cnn(seed=0), substitute_mlp(seed=1)
    >>> attack = KnockoffNets(budget=30, epochs=1)
    >>> attack.run(victim, copy, x, x[30:], verbose=0).queries
    30

    Reference:
        - Orekondy, Schiele and Fritz, CVPR 2019:
          https://arxiv.org/abs/1812.02766
    """

    def _propose(self, thief, count):
        order = np.random.default_rng(self.seed).permutation(len(thief.images))
        asked = len(thief.x)
        return thief.images[order[asked : asked + count]]
