"""DFME: data-free model extraction."""

import tensorflow as tf

from keras_qsn.extraction.data_free import SMALLEST
from keras_qsn.extraction.data_free import DataFreeExtraction

# At these shares of the budget the learning rates fall.
_FALLS = (0.1, 0.3, 0.5)
_FACTOR = 0.3


def logits_apart(answers, log_p):
    """Mean over classes of `|l_c - z_c|`, both of mean 0 over the classes."""
    wanted = tf.math.log(tf.maximum(answers, SMALLEST))
    wanted -= tf.reduce_mean(wanted, -1, keepdims=True)
    logits = log_p - tf.reduce_mean(log_p, -1, keepdims=True)
    return tf.reduce_mean(tf.abs(logits - wanted), -1)


class DFME(DataFreeExtraction):
    """Data-free model extraction: generator against copy, L1 of logits.

    In turns, until the budget is spent, a generator moves towards images on
    which copy and victim differ, by finite differences in what it puts into
    its tanh, and the copy learns the answers to its images:

        L(x) = 1/C sum_c |z_c(x) - l_c(x)|,  l = log y - mean log y
        g = d/m sum_i (L(s + mu u_i) - L(s)) / mu u_i,  x = image(tanh(s))

    with the victim's answers `y`, the copy's logits `z`, of mean 0 too (the
    authors' are not made so), and random unit vectors `u_i` of `d` pixels.
    Each of the `(m + 1) batch_size` images of an estimate is a query. What is
    left when no estimate can be paid goes into steps of the copy. Learning
    rates fall by 0.3 at 10, 30 and 50 % of the budget. Both networks are
    taught by Adam (ours; the authors' copy by SGD).

    Args:
        budget: As for `ExtractionAttack`. Defaults to `1000000`; the authors
            spend 2 to 20 millions.
        answers: As for `ExtractionAttack`.
        directions: Integer >= 1, `m`. Defaults to `1`.
        step: Float > 0, `mu`. Defaults to `0.001`.
        generator_steps: Integer >= 1, in a turn. Defaults to `1`.
        copy_steps: Integer >= 1, in a turn. Defaults to `5`.
        generator_learning_rate: Float > 0. Defaults to `0.0001`.
        latent_dim: Integer >= 1, length of `z`. Defaults to `256`.
        width: Integer >= 1, filters of the generator. Defaults to `64`.
        batch_size: Integer >= 2. Images in a step. Defaults to `256`.
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
    >>> attack = DFME(budget=60, rounds=1, batch_size=10, width=4)
    >>> x_test = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> attack.run(victim, copy, x_test=x_test, verbose=0).queries
    60

    Limitations:
        Wants millions of queries, and probabilities: where they are rounded
        the victim's share of a slope is mostly 0, and of classes alone there
        are no logits; `MAZE` bears both better. Of a small network on the
        embedded digits (50,000 queries, `batch_size=64`, `width=16`, learning
        rates 0.003 and 0.001, one seed, 1,000 test images) the copy agreed on
        44 % with probabilities, on 12 % with classes; MAZE's on 57 and 38 %.

    Reference:
        - Truong et al., 2021: https://arxiv.org/abs/2011.14779, and the
          authors' code: https://github.com/cake-lab/datafree-model-extraction
    """

    _loss = staticmethod(logits_apart)

    def _share(self, spent):
        return _FACTOR ** sum(spent >= fall for fall in _FALLS)
