"""Attacks that follow the gradient of the loss: FGSM, BIM, PGD."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import norms
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.base import loss_gradient


class FastGradientMethod(Attack):
    """FGSM: one step along the gradient of the loss.

    `x_adv = clip(x + eps * d)`, where `d` is the unit step that raises the
    cross-entropy `J(x, y)` most in the given norm: `sign(dJ/dx)` for
    L-infinity, `dJ/dx` over its length for L2, the steepest pixels for L1.
    With `y_target` it lowers `J(x, y_target)` instead.

    Args:
        eps: Float >= 0. Size of the step. Defaults to `0.3`.
        norm: `np.inf`, `2` or `1`. Defaults to `np.inf`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer; unused, since the attack is deterministic.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> FastGradientMethod(eps=0.1, norm=2).get_config()["norm"]
    2

    Limitations:
        The weakest attack here. A model it fails to break is not robust:
        always compare with `ProjectedGradientDescent` and a transfer attack.

    Reference:
        - Goodfellow et al., 2015: https://arxiv.org/abs/1412.6572
    """

    norms = (np.inf, 2, 1)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        gradient = loss_gradient(logits_fn, x, labels, targeted)
        return x + eps * norms.steepest(gradient, self.norm)


class ProjectedGradientDescent(Attack):
    """PGD: gradient steps from a random start, kept inside the ball.

    `x_0` uniform in the ball, then `nb_iter` times
    `x <- project(x + eps_iter * d(x))` with `d` as in `FastGradientMethod`.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        eps_iter: Float > 0, size of one step. Defaults to `None`:
            `2.5 * eps / nb_iter`, so that the steps can cross the ball.
        nb_iter: Integer >= 1. Number of steps. Defaults to `40`.
        norm: `np.inf` or `2`. Defaults to `np.inf`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        rand_init: Whether to start at a random point. Defaults to `True`.
        seed: Integer. Decides each image's start, whatever the batch size.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> attack = ProjectedGradientDescent(eps=0.3, nb_iter=10)
    >>> ProjectedGradientDescent.from_config(attack.get_config()).nb_iter
    10

    Limitations:
        Follows the gradient, so a layer that hides it (a steep quantizer)
        makes PGD weaker than FGSM or a transfer attack.

    Reference:
        - Madry et al., 2018: https://arxiv.org/abs/1706.06083
    """

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
    ):
        super().__init__(eps, norm, clip_min, clip_max, seed)
        if nb_iter != int(nb_iter) or nb_iter < 1:
            raise ValueError(
                "`nb_iter` must be a whole number of at least 1. "
                f"Received: nb_iter={nb_iter}"
            )
        if eps_iter is not None and not (
            np.isfinite(eps_iter) and eps_iter > 0
        ):
            raise ValueError(
                "`eps_iter` must be a finite number above 0, or None for "
                f"2.5 * eps / nb_iter. Received: eps_iter={eps_iter}"
            )
        self.eps_iter = eps_iter
        self.nb_iter = int(nb_iter)
        self.rand_init = bool(rand_init)

    def get_config(self):
        return {
            **super().get_config(),
            "eps_iter": self.eps_iter,
            "nb_iter": self.nb_iter,
            "rand_init": self.rand_init,
        }

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        eps_iter = self.eps_iter
        if eps_iter is None:
            eps_iter = 2.5 * eps / self.nb_iter

        def step(i, x_adv):
            gradient = loss_gradient(logits_fn, x_adv, labels, targeted)
            x_adv += eps_iter * norms.steepest(gradient, self.norm)
            return i + 1, self._project(x, x_adv, eps)

        start = x
        if self.rand_init:
            start += eps * norms.sample(x.shape[1:], seeds, self.norm)
            start = self._project(x, start, eps)
        return tf.while_loop(
            lambda i, _: i < self.nb_iter,
            step,
            (0, start),
            parallel_iterations=1,
        )[1]


class BasicIterativeMethod(ProjectedGradientDescent):
    """BIM: PGD that starts at the image itself.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        eps_iter: Float > 0, size of one step. Defaults to `None`:
            `2.5 * eps / nb_iter`.
        nb_iter: Integer >= 1. Number of steps. Defaults to `10`.
        norm: `np.inf` or `2`. Defaults to `np.inf`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer; unused, since the attack is deterministic.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> BasicIterativeMethod(eps=0.1).nb_iter
    10

    Limitations:
        As for `ProjectedGradientDescent`, without the random start.

    Reference:
        - Kurakin et al., 2017: https://arxiv.org/abs/1607.02533
    """

    def __init__(
        self,
        eps=0.3,
        eps_iter=None,
        nb_iter=10,
        norm=np.inf,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        super().__init__(
            eps, eps_iter, nb_iter, norm, clip_min, clip_max, False, seed
        )

    def get_config(self):
        config = super().get_config()
        del config["rand_init"]
        return config
