"""Attacks that know of the quantizer and put another gradient through it."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks.views import backward_through
from keras_qsn.attacks.views import surrogate_key
from keras_qsn.attacks.white_box.gradient import ProjectedGradientDescent
from keras_qsn.attacks.wrapped import WrappedAttack


class BPDA(WrappedAttack):
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

    threat = "adaptive"

    def __init__(self, attack, steepness=None):
        super().__init__(attack)
        if steepness is not None:
            steepness = _check_steepness("steepness", steepness)
        self.steepness = steepness

    def get_config(self):
        return {**super().get_config(), "steepness": self.steepness}

    def view(self, wrapper):
        return backward_through(wrapper, self.steepness)

    @property
    def view_key(self):
        return surrogate_key(self.steepness)


class AnnealedBPDA(ProjectedGradientDescent):
    """PGD through a soft surrogate that steepens from step to step.

    As `BPDA` with a soft surrogate, of steepness
    `z_i = z_first * (z_last / z_first) ** (i / (nb_iter - 1))` in step `i`:
    the first steps see far, the last ones aim.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        eps_iter: Float > 0, size of one step. Defaults to `None`:
            `2.5 * eps / nb_iter`.
        nb_iter: Integer >= 1. Number of steps. Defaults to `40`.
        norm: `np.inf` or `2`. Defaults to `np.inf`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        rand_init: Whether to start at a random point. Defaults to `True`.
        seed: Integer. Decides each image's start, whatever the batch size.
        nb_restarts: Integer >= 1. Defaults to `1`.
        early_stop: As for `ProjectedGradientDescent`.
        first_steepness: Float > 0. Defaults to `2.0`.
        last_steepness: Float > 0. Defaults to `50.0`.

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
        self,
        eps=0.3,
        eps_iter=None,
        nb_iter=40,
        norm=np.inf,
        clip_min=0.0,
        clip_max=1.0,
        rand_init=True,
        seed=0,
        nb_restarts=1,
        early_stop=False,
        first_steepness=2.0,
        last_steepness=50.0,
    ):
        super().__init__(
            eps,
            eps_iter,
            nb_iter,
            norm,
            clip_min,
            clip_max,
            rand_init,
            seed,
            nb_restarts,
            early_stop,
        )
        self.first_steepness = _check_steepness(
            "first_steepness", first_steepness
        )
        self.last_steepness = _check_steepness("last_steepness", last_steepness)

    def get_config(self):
        return {
            **super().get_config(),
            "first_steepness": self.first_steepness,
            "last_steepness": self.last_steepness,
        }

    def view(self, wrapper):
        return _Annealed(wrapper, self.first_steepness, self.last_steepness)

    def _at(self, logits_fn, step):
        last = tf.cast(tf.maximum(self.nb_iter - 1, 1), tf.float32)
        return logits_fn.at(tf.cast(step, tf.float32) / last)


class _Annealed:
    """Logits whose surrogate gradient can be asked for at any share."""

    def __init__(self, wrapper, first, last):
        self._wrapper = wrapper
        self._first = first
        self._ratio = last / first

    def __call__(self, x):
        return self.at(0.0)(x)

    def at(self, share):
        return backward_through(self._wrapper, self._first * self._ratio**share)


def _check_steepness(name, value):
    if not (np.isfinite(value) and value > 0):
        raise ValueError(
            f"`{name}` must be a finite number above 0. "
            f"Received: {name}={value}"
        )
    return float(value)
