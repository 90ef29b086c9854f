"""AutoAttack: an ensemble of attacks without parameters to choose."""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import steps
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.scores.square import SquareAttack
from keras_qsn.attacks.white_box.auto_pgd import AutoProjectedGradientDescent
from keras_qsn.attacks.white_box.fab import FastAdaptiveBoundary

# Classes that APGD-T and FAB-T look at, where the model has so many others.
_NUM_TARGETS = 9
# Seeds of the parts are others than those of their restarts.
_PARTS = 1


class AutoAttack(Attack):
    """AutoAttack: four attacks in turn, each on the images not yet fooled.

    `"standard"` runs, with one start each, what `attacks` lists:

    - APGD with the cross-entropy,
    - APGD-T: APGD with the targeted DLR loss of the 9 likeliest other
      classes, or of all others of a model with fewer, one after the other,
    - FAB-T: FAB against each of the same classes,
    - Square, which uses no gradients.

    `"plus"` runs APGD with the cross-entropy and with DLR, and FAB against
    all classes, from 5 starts each, then Square, APGD-T and FAB-T.

    Of fewer than 4 classes, DLR is what `AutoProjectedGradientDescent` makes
    of it.

    An image is done as soon as one part fools the model, and keeps that
    example; any other keeps the one that comes nearest to fooling it.

    Args:
        eps: Float >= 0. Radius of the ball. Defaults to `0.3`.
        norm: `np.inf` or `2`. Defaults to `np.inf`.
        version: `"standard"` or `"plus"`. Defaults to `"standard"`.
        nb_iter: Integer >= 1. Steps of each run of APGD and FAB. Defaults to
            `100`, the paper's.
        nb_queries: Integer >= 1. Queries of Square. Defaults to `5000`, the
            paper's.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides each image's starts, whatever the batch size.

    Raises:
        ValueError: If a parameter is out of range, or there is a `y_target`.

    Example:

    >>> attack = AutoAttack(eps=0.1)
    >>> [type(part).__name__ for part in attack.attacks][1:3]
    ['AutoProjectedGradientDescent', 'FastAdaptiveBoundary']

    Limitations:
        An accuracy under AutoAttack is comparable with published ones only
        with the parameters left as they are. Not for models that draw random
        numbers: the authors' "rand" version, which averages gradients, is not
        here. Of four attacks three follow the gradient: where a layer hides
        it, Square is alone, and an attack on that layer finds more. Square's
        schedule is stretched to `nb_queries`, as in its paper; the authors'
        AutoAttack runs the first half of the one for 10,000 queries.

    Reference:
        - Croce & Hein, 2020: https://arxiv.org/abs/2003.01690
    """

    threat = "white-box"

    def __init__(
        self,
        eps=0.3,
        norm=np.inf,
        version="standard",
        nb_iter=100,
        nb_queries=5000,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        super().__init__(eps, norm, clip_min, clip_max, seed)
        if version not in ("standard", "plus"):
            raise ValueError(
                "`version` must be 'standard' or 'plus'. "
                f"Received: version={version!r}"
            )
        self.version = version
        self._keep_counts(nb_iter=nb_iter, nb_queries=nb_queries)
        self.attacks = self._parts()

    def _parts(self):
        base = {name: getattr(self, name) for name in self._first}

        def apgd(loss, nb_restarts=1):
            return AutoProjectedGradientDescent(
                **base,
                loss=loss,
                nb_iter=self.nb_iter,
                nb_restarts=nb_restarts,
                nb_targets=_NUM_TARGETS,
            )

        def fab(nb_targets, nb_restarts=1):
            return FastAdaptiveBoundary(
                **base,
                nb_iter=self.nb_iter,
                nb_restarts=nb_restarts,
                nb_targets=nb_targets,
                early_stop=True,
            )

        square = SquareAttack(**base, nb_queries=self.nb_queries)
        targeted = [apgd("targeted-dlr"), fab(_NUM_TARGETS)]
        if self.version == "standard":
            return [apgd("ce"), *targeted, square]
        return [apgd("ce", 5), apgd("dlr", 5), fab(None, 5), square, *targeted]

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        if targeted:
            raise ValueError(
                "`AutoAttack` is untargeted: give it `y`, or no labels, "
                "instead of `y_target`."
            )

        return self._in_turn(
            lambda attack, *images: attack.craft(logits_fn, *images),
            logits_fn,
            *(x, labels, eps, seeds),
        )

    def attacked(self, wrapper, targeted, *arguments):
        # The parts are attacks with compiled functions of their own.
        if targeted:
            return super().attacked(wrapper, targeted, *arguments)

        def craft(attack, *images):
            viewed = attack.with_views(self.views)
            return viewed.attacked(wrapper, False, *images)

        shape = arguments[0].shape[1:]
        return self._in_turn(craft, self.seen(wrapper, shape), *arguments)

    def _in_turn(self, craft, logits_fn, x, labels, eps, seeds):
        """Each part on the images not yet fooled."""

        def improved(attack, number, best, margin):
            def run(old, old_margin, image, label, seed):
                new = craft(
                    attack,
                    image,
                    label,
                    eps,
                    steps.restarted(seed, number, _PARTS),
                )
                new_margin = losses.margin_of(logits_fn(new), label, False)
                return steps.pick(
                    new_margin > old_margin,
                    (new, new_margin),
                    (old, old_margin),
                )

            state, left = (best, margin), margin <= 0
            return tf.cond(
                tf.reduce_any(left),
                lambda: steps.at_work(left, run, state, (x, labels, seeds)),
                lambda: state,
            )

        best, margin = x, losses.margin_of(logits_fn(x), labels, False)
        for i, attack in enumerate(self.attacks):
            best, margin = improved(attack, i, best, margin)
        return best
