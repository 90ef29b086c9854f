"""Attacks that follow the gradient of the loss: FGSM, BIM, PGD."""

import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_positive
from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack


class _GradientAttack(Attack):
    """Follows the gradient of a loss, by name or a function of the user's."""

    climbs = True
    _untold = ("loss",)

    def __init__(
        self,
        eps=0.3,
        norm=np.inf,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
        loss="cross_entropy",
    ):
        super().__init__(eps, norm, clip_min, clip_max, seed)
        self._keep(losses.check_loss, loss=loss)

    @property
    def follows(self):
        return "cross_entropy" if self.loss == "cross_entropy" else "margin"

    def _gradient(self, logits_fn, x, labels, targeted):
        gain = losses.gain_of(self.loss)
        return losses.gain_gradient(logits_fn, x, labels, gain, targeted)


class FastGradientMethod(_GradientAttack):
    """FGSM: one step along the gradient of the loss.

    `x_adv = clip(x + eps * d)`, where `d` is the unit step that raises the
    cross-entropy `J(x, y)` most in the given norm: `sign(dJ/dx)` for
    L-infinity, `dJ/dx` over its length for L2, the steepest pixels for L1.
    For L0 the `eps` pixels that could raise a linear `J` most, by their slope
    times their way to the end of their range, go there. With `y_target` it
    lowers `J(x, y_target)` instead.

    Args:
        eps: Float >= 0. Size of the step; for `norm=0` a number of pixels.
            Defaults to `0.3`.
        norm: `np.inf`, `2`, `1` or `0`. Defaults to `np.inf`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer; unused, since the attack is deterministic.
        loss: What is raised in place of `J`: `"cross_entropy"`, `"margin"`,
            the largest other logit less that of `y`, `"dlr"`, the margin over
            the spread of the logits as in `AutoProjectedGradientDescent`, or
            a function `loss(y, logits)`, one value for each image, as
            Keras' losses with `reduction=None`; register it with Keras to
            read a config back. Defaults to `"cross_entropy"`, followed as
            the log odds `log sum_{j != y} exp(z_j) - z_y`, which have its
            direction and do not saturate; where the logits are more than 30
            apart, at the temperature that brings them there.

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

    norms = (np.inf, 2, 1, 0)

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        gradient, _ = self._gradient(logits_fn, x, labels, targeted)
        if self.norm == 0:
            end = tf.where(gradient > 0, self.clip_max, self.clip_min)
            gain = gradient * (end - x)
            return tf.where(norms.project(gain, eps, 0) > 0, end, x)
        return x + eps * norms.steepest(gradient, self.norm)


class ProjectedGradientDescent(_GradientAttack):
    """PGD: gradient steps from a random start, kept inside the ball.

    `x_0` uniform in the ball, then `nb_iter` times
    `x <- project(x + eps_iter * d(x))` with `d` as in `FastGradientMethod`.
    Of several restarts, each image keeps the first that fools the model.

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
        nb_restarts: Integer >= 1. Defaults to `1`.
        early_stop: Whether an image stops at its first adversarial example,
            and a batch once all its images have; for accuracy under attack,
            where only the existence of an example matters. Defaults to
            `False`.
        loss: As for `FastGradientMethod`. Defaults to `"cross_entropy"`.

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

    counts = ("nb_iter", "nb_restarts")
    # MomentumIterativeMethod's: weight of past gradients in the direction,
    # and whether the next one is taken where they lead.
    decay_factor = 0.0
    nesterov = False

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
        loss="cross_entropy",
    ):
        super().__init__(eps, norm, clip_min, clip_max, seed, loss)
        if eps_iter is not None:
            hint = ", or None for 2.5 * eps / nb_iter"
            check_positive("eps_iter", eps_iter, hint)
        self.eps_iter = eps_iter
        self._keep_counts(nb_iter=nb_iter, nb_restarts=nb_restarts)
        self.rand_init = bool(rand_init)
        self.early_stop = bool(early_stop)
        if self.nb_restarts > 1 and not self.rand_init:
            raise ValueError(
                "`nb_restarts` above 1 needs `rand_init=True`: without a "
                "random start all restarts are the same. "
                f"Received: nb_restarts={nb_restarts}"
            )

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        rounding = losses.rounding_of(logits_fn)

        def restart(i, kept, done):
            again = steps.restarted(seeds, i)
            x_adv = self._descend(logits_fn, x, labels, eps, again, targeted)
            kept = steps.where(done, kept, x_adv)
            done = tf.cond(
                i + 1 < self.nb_restarts,
                lambda: self._fooled(
                    logits_fn(kept), labels, targeted, rounding
                ),
                lambda: done,
            )
            return kept, done

        state = x, tf.zeros_like(labels, tf.bool)
        return steps.repeat(
            restart, self.nb_restarts, state, lambda kept, done: ~done
        )[0]

    def _fooled(self, logits, labels, targeted, rounding):
        """Which images need no further step."""
        return losses.fooled(logits, labels, targeted, rounding)

    def _descend(self, logits_fn, x, labels, eps, seeds, targeted):
        eps_iter = self.eps_iter
        if eps_iter is None:
            eps_iter = 2.5 * eps / tf.cast(self.nb_iter, tf.float32)
        last = tf.cast(tf.maximum(self.nb_iter - 1, 1), tf.float32)
        rounding = losses.rounding_of(logits_fn)

        def move(i, x_adv, momentum, image, label):
            seen = logits_fn
            if hasattr(seen, "at"):
                # It may change in the course of the search.
                seen = seen.at(tf.cast(i, tf.float32) / last)
            ahead = x_adv
            if self.nesterov:
                ahead += self.decay_factor * eps_iter * momentum
            gradient, logits = self._gradient(seen, ahead, label, targeted)
            if self.decay_factor:
                momentum = self.decay_factor * momentum
                momentum += norms.unit_mean(gradient)
                gradient = momentum
            moved = x_adv + eps_iter * norms.steepest(gradient, self.norm)
            return self._project(image, moved, eps), momentum, logits

        def stopping(i, before, momentum, _, image, label):
            after, momentum, logits = move(i, before, momentum, image, label)
            done = self._fooled(logits, label, targeted, rounding)
            after = steps.where(done, before, after)
            return after, momentum, ~done

        start = x
        if self.rand_init:
            start = x + eps * norms.sample(x.shape[1:], seeds, self.norm)
            start = self._project(x, start, eps)
        momentum = tf.zeros_like(x if self.decay_factor else labels, x.dtype)
        if self.early_stop:
            state = start, momentum, tf.ones_like(labels, tf.bool)
            given = x, labels
            return steps.search(stopping, self.nb_iter, state, given)[0]
        return steps.repeat(
            lambda i, *state: move(i, *state, x, labels)[:2],
            self.nb_iter,
            (start, momentum),
        )[0]


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
        early_stop: As for `ProjectedGradientDescent`.
        loss: As for `FastGradientMethod`. Defaults to `"cross_entropy"`.

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
        early_stop=False,
        loss="cross_entropy",
    ):
        super().__init__(
            eps,
            eps_iter,
            nb_iter,
            norm,
            clip_min,
            clip_max,
            rand_init=False,
            early_stop=early_stop,
            loss=loss,
        )
