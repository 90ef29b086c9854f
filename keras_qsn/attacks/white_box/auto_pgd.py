"""APGD: projected gradient descent that chooses its own step size."""

import collections

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.white_box import sparse_ascent

_MOMENTUM = 0.75
# In hundredths of the steps: the first after 22, gaps 3 less each, at least 6.
# In floating point, ceil(0.57 * 100) is not safe.
_CHECKPOINTS = np.array([22, 41, 57, 70, 80, 87, 93, 99], "int32")
# What is carried from step to step, an entry for each image.
_State = collections.namedtuple(
    "_State",
    "x previous loss best best_loss best_gradient fooled size rises "
    "halved checked_loss",
)


class AutoProjectedGradientDescent(Attack):
    """APGD: PGD with momentum and a step size halved where progress stalls.

    From a random point of the ball, with `a = 0.75` and a first step of
    `eta = 2 * eps`, `nb_iter` times
    `z = project(x_k + eta * d(x_k))`,
    `x_{k+1} = project(x_k + a * (z - x_k) + (1 - a) * (x_k - x_{k-1}))`,
    `d` as in `FastGradientMethod`. At checkpoints, `eta` is halved and the
    best point so far taken up again for each image whose loss rose in fewer
    than `rho` of the steps, or not above its best while `eta` stayed.

    `"ce"` is the cross-entropy. `"dlr"`, with logits `z_1 >= z_2 >= ...`, is
    `-(z[y] - max_{i != y} z[i]) / (z_1 - z_3)`, the same at every scale of
    the logits; with `y_target` it is
    `(z[t] - max_{i != t} z[i]) / (z_1 - (z_3 + z_4) / 2)`.

    `"targeted-dlr"` is APGD-T: runs with the loss
    `-(z[y] - z[t]) / (z_1 - (z_3 + z_4) / 2)`, one after the other, for each
    `t` of the likeliest other classes of the clean image. Any wrong class
    counts, and an image once fooled is left alone. With `y_target` that class
    is the only `t`, to be reached, and `y` the likeliest other one.

    A model of 3 classes has no `z_4`, and `z_3` stands for the mean. Of 2
    classes nothing is left that would not make the ratio 1 or -1: the loss is
    the margin, not divided.

    An image's first adversarial point is kept, or its point of highest loss.

    With `norm=1`, steps go along the sign of the gradient at the steepest
    pixels, two for three that the best point has changed, and to the nearest
    point of the ball and the range of pixels at once. Of full size, `eps`,
    they are back where the best point has become sparser, else they shrink.
    Three tenths of the steps are in a ball of `3 * eps`, as many in one of
    `2 * eps`. There is no momentum, and no `rho`.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        norm: `np.inf`, `2` or `1`. Defaults to `np.inf`.
        loss: `"ce"`, `"dlr"` or `"targeted-dlr"`. Defaults to `"ce"`.
        nb_iter: Integer >= 1. Number of steps. Defaults to `100`.
        nb_restarts: Integer >= 1. Random starts, for each `t`. Defaults to
            `1`.
        rho: Float from 0 to 1. Defaults to `0.75`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's start, whatever the batch size.
        nb_targets: Integer >= 1, the number of classes `t` of
            `"targeted-dlr"`; all others, of a model with fewer. Defaults to
            `9`.
        early_stop: Whether an image once fooled is left alone. Defaults to
            `True`; `False` for models that answer at random, where the loss
            is to be raised beyond the boundary.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> attack = AutoProjectedGradientDescent(eps=0.1, loss="dlr")
    >>> attack.get_config()["loss"]
    'dlr'

    Limitations:
        Follows the gradient: add `SquareAttack` where a layer hides it.
        With `y_target` an attack is not told the true class, which the
        authors' targeted DLR names; another stands in, as said above.

    Reference:
        - Croce & Hein, 2020: https://arxiv.org/abs/2003.01690
        - Croce & Hein, 2021, L1: https://arxiv.org/abs/2103.01208
    """

    norms = (np.inf, 2, 1)
    counts = ("nb_iter", "nb_restarts")
    climbs = True
    _untold = ("early_stop",)

    def __init__(
        self,
        eps=0.3,
        norm=np.inf,
        loss="ce",
        nb_iter=100,
        nb_restarts=1,
        rho=0.75,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
        nb_targets=9,
        early_stop=True,
    ):
        super().__init__(eps, norm, clip_min, clip_max, seed)
        if loss not in ("ce", "dlr", "targeted-dlr"):
            raise ValueError(
                "`loss` must be 'ce', 'dlr' or 'targeted-dlr'. "
                f"Received: loss={loss!r}"
            )
        self.loss = loss
        self.follows = "cross_entropy" if loss == "ce" else "margin"
        self._keep_shares(rho=rho)
        self.early_stop = bool(early_stop)
        self._keep_counts(
            nb_iter=nb_iter,
            nb_restarts=nb_restarts,
            nb_targets=nb_targets,
        )

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        others = self._others(logits_fn, x, labels, targeted)
        ascend = self._ascend if self.norm != 1 else self._ascend_sparsely
        rounding = losses.rounding_of(logits_fn)

        def look(point, label, other):
            """Loss, its gradient, and which have arrived."""
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(point)
                logits = tf.cast(logits_fn(point), tf.float32)
                loss = self._loss(logits, label, targeted, other)
            gradient = losses.gradient_of(tape, loss, point)
            hit = losses.fooled(logits, label, targeted, rounding)
            return loss, gradient, hit & self.early_stop

        def restart(i, kept, kept_loss, done):
            again = steps.restarted(seeds, i)
            given = labels, others[:, i // self.nb_restarts]
            best, loss, fooled = ascend(look, x, given, eps, again, done)
            better = ~done & (fooled | (loss > kept_loss))
            new, old = (best, loss), (kept, kept_loss)
            return *steps.pick(better, new, old), fooled

        none = tf.fill(tf.shape(labels), -np.inf)
        return steps.repeat(
            restart,
            others.shape[1] * self.nb_restarts,
            (x, none, tf.zeros_like(labels, tf.bool)),
            lambda kept, loss, done: ~done,
        )[0]

    def _ascend_sparsely(self, look, x, given, eps, seeds, done):
        bounds = self.clip_min, self.clip_max
        return sparse_ascent.ascend(
            look, self.nb_iter, x, given, eps, seeds, done, *bounds
        )

    def _ascend(self, look, x, given, eps, seeds, done):
        """A run; points, their loss, and which are adversarial."""

        def step(i, *rows):
            *state, image, label, other = rows
            s = _State(*state)
            loss, gradient, hit = look(s.x, label, other)
            better = hit | (loss > s.best_loss)
            best = steps.where(better, s.x, s.best)
            best_loss = tf.where(better, loss, s.best_loss)
            best_gradient = steps.where(better, gradient, s.best_gradient)

            window = tf.cast(_window(i, self.nb_iter), tf.float32)
            check = window > 0
            rises = s.rises + tf.cast(loss > s.loss, tf.float32)
            stalled = ~s.halved & tf.equal(best_loss, s.checked_loss)
            halve = check & ((rises < self.rho * window) | stalled)
            size = tf.where(halve, s.size / 2, s.size)
            now = steps.where(halve, best, s.x)
            gradient = steps.where(halve, best_gradient, gradient)

            uphill = norms.steepest(gradient, self.norm)
            z = now + steps.per_image(size, x) * uphill
            z = self._project(image, z, eps)
            # There is no previous point to move on from at first.
            a = tf.where(tf.equal(i, 0), 1.0, _MOMENTUM)
            moved = now + a * (z - now) + (1 - a) * (now - s.previous)
            return _State(
                x=self._project(image, moved, eps),
                previous=now,
                loss=tf.where(halve, best_loss, loss),
                best=best,
                best_loss=best_loss,
                best_gradient=best_gradient,
                fooled=hit,
                size=size,
                rises=tf.where(check, 0.0, rises),
                halved=tf.where(check, halve, s.halved),
                checked_loss=tf.where(check, best_loss, s.checked_loss),
            )

        start = norms.sample(x.shape[1:], seeds, self.norm)
        start = self._project(x, x + eps * start, eps)
        zeros = tf.zeros_like(done, tf.float32)
        state = _State(
            x=start,
            previous=start,
            loss=zeros + np.inf,
            best=start,
            best_loss=zeros - np.inf,
            best_gradient=tf.zeros_like(start),
            fooled=done,
            size=zeros + 2 * eps,
            rises=zeros,
            halved=tf.zeros_like(done),
            checked_loss=zeros - np.inf,
        )
        # The start is a point too: nb_iter + 1 of them.
        state = steps.search(
            step,
            self.nb_iter + 1,
            state,
            (x, *given),
            lambda *state: ~_State(*state).fooled,
        )
        s = _State(*state)
        return s.best, s.best_loss, s.fooled

    def _others(self, logits_fn, x, labels, targeted):
        """The classes that the loss sets against the label, one a run."""
        if self.loss != "targeted-dlr":
            return labels[:, None]
        logits = logits_fn(x)
        count = 1 if targeted else min(self.nb_targets, logits.shape[-1] - 1)
        return losses.likeliest_others(logits, labels, count)

    def _loss(self, logits, labels, targeted, others):
        """What the attack raises, per image."""
        if self.loss == "ce":
            return losses.cross_entropy(logits, labels, targeted)
        fixed = self.loss == "targeted-dlr"
        return losses.dlr(logits, labels, targeted, others if fixed else None)


def _window(step, nb_iter):
    """The steps since the last checkpoint; 0 where a step is none."""
    points = -(-_CHECKPOINTS * nb_iter // 100)
    before = tf.reduce_max(tf.where(points < step, points, 0))
    return tf.where(tf.reduce_any(tf.equal(points, step)), step - before, 0)
