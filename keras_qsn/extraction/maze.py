"""MAZE: model stealing by zeroth-order gradient estimation."""

import numpy as np
import tensorflow as tf

from keras_qsn.extraction.data_free import SMALLEST
from keras_qsn.extraction.data_free import DataFreeExtraction


def divergence(answers, log_p):
    """`KL(answer || p)` of each image."""
    logs = tf.math.log(tf.maximum(answers, SMALLEST))
    return tf.reduce_sum(answers * (logs - log_p), -1)


class MAZE(DataFreeExtraction):
    """Model stealing by zeroth-order gradients, with experience replay.

    In turns, until the budget is spent, a generator moves towards images on
    which copy and victim differ, by finite differences in what it puts into
    its tanh; the copy learns the answers to its images, those of the
    generator's step first; and it learns again from images of earlier turns:

        L(x) = KL(y(x) || p(x))
        g = d/m sum_i (L(s + mu u_i) - L(s)) / mu u_i,  x = image(tanh(s))

    with the victim's answers `y`, the copy's probabilities `p`, and random
    unit vectors `u_i` of `d` pixels. A turn costs
    `batch_size (generator_steps (m + 1) + copy_steps - 1)` queries; its last
    images are kept. What is left when no estimate can be paid goes into steps
    of the copy. Learning rates fall to 0 as half a cosine. Both networks are
    taught by Adam (ours; the authors' by SGD), and images of earlier turns
    are drawn with replacement.

    Args:
        budget: As for `ExtractionAttack`. Defaults to `1000000`; the authors
            spend 5 to 30 millions.
        answers: As for `ExtractionAttack`.
        directions: Integer >= 1, `m`. Defaults to `10`.
        replay_steps: Integer >= 0, in a turn, on images of earlier ones.
            Defaults to `10`.
        step: Float > 0, `mu`. Defaults to `0.001`.
        generator_steps: Integer >= 1, in a turn. Defaults to `1`.
        copy_steps: Integer >= 1, in a turn; of one alone no image is kept to
            be drawn again. Defaults to `5`.
        generator_learning_rate: Float > 0. Defaults to `0.0001`.
        latent_dim: Integer >= 1, length of `z`. Defaults to `100`.
        width: Integer >= 1, filters of the generator. Defaults to `64`.
        batch_size: Integer >= 2. Images in a step. Defaults to `128`.
        learning_rate: Float > 0. The copy's. Defaults to `0.001`.
        rounds: Integer >= 1. How often the copy is measured. Defaults to
            `10`.
        **kwargs: As for `ExtractionAttack`; `epochs` do not count, each
            answer is learnt as it comes.

    Raises:
        ValueError: If an argument is out of range; in `run`, if the copy
            takes no images of one size, or `images` are given.

    Example:

    >>> victim, copy = cleverhans_cnn(seed=0), substitute_mlp(seed=1)
    >>> attack = MAZE(budget=160, rounds=1, batch_size=10, width=4)
    >>> x_test = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> attack.run(victim, copy, x_test=x_test, verbose=0).queries
    160

    Limitations:
        As for `DFME`: millions of queries, and probabilities. Most queries
        are the generator's, of which the copy learns nothing.

    Reference:
        - Kariyappa et al., 2021: https://arxiv.org/abs/2005.03161, and the
          authors' code: https://github.com/sanjaykariyappa/MAZE
    """

    _loss = staticmethod(divergence)
    _reuses = True

    def __init__(
        self,
        budget=1000000,
        answers="soft",
        directions=10,
        replay_steps=10,
        latent_dim=100,
        batch_size=128,
        **kwargs,
    ):
        super().__init__(
            budget,
            answers,
            directions,
            latent_dim=latent_dim,
            batch_size=batch_size,
            **kwargs,
        )
        self._keep_counts(0, replay_steps=replay_steps)

    def _share(self, spent):
        return (1 + np.cos(np.pi * spent)) / 2

    def _replay(self, thief):
        for _ in range(self.replay_steps):
            x, answers = thief.recall(self.batch_size)
            if len(x):
                thief.teaching.step(x, answers)
