"""BIM with momentum, which transfers better: MI-FGSM and NI-FGSM."""

import numpy as np

from keras_qsn.attacks.white_box.gradient import BasicIterativeMethod


class MomentumIterativeMethod(BasicIterativeMethod):
    """MIM: BIM along a running mean of gradients.

    `g <- decay_factor * g + dJ/dx / mean|dJ/dx|`, and a step along the unit
    direction of `g` (MI-FGSM). With `nesterov`, the gradient is that at
    `x + decay_factor * eps_iter * g` (NI-FGSM).

    The papers take 10 steps of `eps / 10`. For adversaries that transfer, put
    views around it, and take several sources: see `TransferAttack`.

    Args:
        *args: As for `BasicIterativeMethod`.
        decay_factor: Float > 0, the paper's mu. Defaults to `1.0`.
        nesterov: Whether to look ahead; for `norm=np.inf`, without
            `early_stop`. Defaults to `False`.
        **kwargs: As for `BasicIterativeMethod`.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> MomentumIterativeMethod(eps=0.1).decay_factor
    1.0

    Limitations:
        Made for transfer; in white-box use PGD with restarts is stronger.

    Reference:
        - Dong et al., 2018: https://arxiv.org/abs/1710.06081
        - Lin et al., 2020 (NI-FGSM): https://arxiv.org/abs/1908.06281
    """

    # So that attacks without it are told, and kept, as ever.
    _untold = ("loss", "nesterov")

    def __init__(self, *args, decay_factor=1.0, nesterov=False, **kwargs):
        super().__init__(*args, **kwargs)
        self._keep_positive(decay_factor=decay_factor)
        self.nesterov = bool(nesterov)
        # A step ahead is a step in pixels, and not where the image is.
        if self.nesterov and (self.norm != np.inf or self.early_stop):
            raise ValueError(
                "`nesterov=True` needs `norm=np.inf` and `early_stop=False`. "
                f"Received: norm={self.norm}, early_stop={self.early_stop}"
            )
