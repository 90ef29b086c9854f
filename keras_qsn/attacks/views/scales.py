"""The image at several brightnesses at once."""

from keras_qsn.attacks.views.base import View


class ScaleInvariance(View):
    """Scale invariance (SI): the mean of the logits of darker copies.

    `(1/m) sum_i Z(x / 2^i)`, for i from 0 to m - 1: a network gives darker
    copies about the same class, and what fools it on all of them depends less
    on the one network.

    The paper follows the mean of the copies' losses; views speak of logits,
    and theirs is the mean here, as `models.ensemble` has it of networks.

    Args:
        copies: Integer >= 1, the paper's m. Defaults to `5`.

    Raises:
        ValueError: If `copies` is not such a number.

    Example:

    >>> attack = MomentumIterativeMethod(eps=0.3, nb_iter=10, nesterov=True)
    >>> attack = ViewedAttack(attack, ScaleInvariance(3))
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> attack.generate(cleverhans_cnn(seed=0), x, [3, 4]).shape
    (2, 28, 28, 1)

    Limitations:
        For images whose black is 0. A network behind one hard threshold sees
        nothing in copies darker than that, and gives the attack no gradient
        there. Takes `copies` passes for each look.

    Reference:
        - Lin et al., 2020: https://arxiv.org/abs/1908.06281
    """

    def __init__(self, copies=5):
        self._keep_counts(copies=copies)

    def see(self, logits_fn, wrapper):
        def mean(x):
            return sum(logits_fn(x / 2**i) for i in range(self.copies)) / (
                self.copies
            )

        return mean
