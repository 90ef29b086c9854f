"""Attacks that know of the quantizer and put another gradient through it."""

from keras_qsn.attacks.viewed import ViewedAttack
from keras_qsn.attacks.views.surrogate import AnnealedSurrogate
from keras_qsn.attacks.views.surrogate import Surrogate
from keras_qsn.attacks.white_box.gradient import ProjectedGradientDescent


class BPDA(ViewedAttack):
    """Another attack, with a surrogate gradient through the quantizers.

    Forward, the model itself; backward, each quantizer `q` counts as the
    identity, `dq/dx = 1` (straight-through), or as a soft one of another
    steepness, `dq/dx = 1/(n-1) * sum_k z S(u_k) S(-u_k)` with
    `u_k = z (x - t_k)`.

    Args:
        attack: The attack, such as `ProjectedGradientDescent(...)`, whose
            threat model and parameters are taken over.
        steepness: Float > 0, the surrogate's `z`; `None` for the identity.
            Defaults to `None`.

    Raises:
        TypeError: If `attack` is not an attack.
        ValueError: If `steepness` is not above 0, or the model attacked has
            no quantization layer.

    Example:

    >>> attack = BPDA(ProjectedGradientDescent(eps=0.3), steepness=5.0)
    >>> BPDA.from_config(attack.get_config()).steepness
    5.0

    Limitations:
        A surrogate points the right way only on average, and which steepness
        works depends on the model: try several, take the worst case.
        `CubeAttack` needs no surrogate.

    Reference:
        - Athalye et al., 2018: https://arxiv.org/abs/1802.00420
    """

    def __init__(self, attack, steepness=None):
        super().__init__(attack, Surrogate(steepness))
        self.steepness = self.view.steepness


class AnnealedBPDA(ProjectedGradientDescent):
    """PGD through a soft surrogate that steepens from step to step.

    As `BPDA` with a soft surrogate, of steepness
    `z_i = z_first * (z_last / z_first) ** (i / (nb_iter - 1))` in step `i`:
    the first steps see far, the last ones aim.

    Args:
        *args: As for `ProjectedGradientDescent`.
        first_steepness: Float > 0. Defaults to `2.0`.
        last_steepness: Float > 0. Defaults to `50.0`.
        **kwargs: As for `ProjectedGradientDescent`.

    Raises:
        ValueError: If a parameter is out of range, or the model attacked has
            no quantization layer.

    Example:

    >>> AnnealedBPDA(eps=0.3, nb_iter=20).last_steepness
    50.0

    Limitations:
        As for `BPDA`.

    Reference:
        - Athalye et al., 2018: https://arxiv.org/abs/1802.00420
    """

    threat = "adaptive"

    def __init__(
        self, *args, first_steepness=2.0, last_steepness=50.0, **kwargs
    ):
        super().__init__(*args, **kwargs)
        view = AnnealedSurrogate(first_steepness, last_steepness)
        self.first_steepness = view.first_steepness
        self.last_steepness = view.last_steepness
        self.views = (view,)
