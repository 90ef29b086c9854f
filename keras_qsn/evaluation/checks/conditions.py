"""Checks of what makes an evaluation worthless whatever the attacks.

Each is known before any attack, too: of the images, and of the model's facts.
"""

import math

import numpy as np

from keras_qsn._core.shares import percent
from keras_qsn._core.shares import wilson_interval
from keras_qsn.evaluation.checks.registry import check
from keras_qsn.evaluation.checks.wording import listed

# How far from guessing to always right a model may be, and still be guessing.
_HARDLY = 0.25
# That a random sample shows as few classes as it does.
_UNLIKELY = 0.01


@check(
    22,
    "above-chance",
    "the model does better than guessing",
    needs=(),
    light=True,
)
def above_chance(probe):
    evaluation = probe.evaluation
    return beats_chance(
        evaluation.clean_accuracy, len(evaluation.y), probe.facts.num_classes
    )


def beats_chance(share, count, num_classes):
    """Whether a model of this accuracy knows more than a guess, for certain.

    It fails where it is no better, or may be none and is hardly any.
    """
    chance = 1 / num_classes
    low, high = wilson_interval(share, count)
    hardly = high < chance + _HARDLY * (1 - chance)
    status = "pass"
    if low <= chance:
        status = "fail" if share <= chance or hardly else "warn"
    return (
        status,
        f"clean accuracy {percent(share)} of {count} images, "
        f"guessing {percent(chance)}",
        "A model that guesses has no robustness to measure: look for wrong "
        "labels, another order of classes, or pixels on another scale; where "
        "images are few, take more.",
    )


@check(
    23, "class-balance", "the images are of all classes", needs=(), light=True
)
def class_balance(probe):
    """Whether as many classes are there as in a random sample.

    `n` images drawn from `C` equal classes show at most `d` of them with a
    probability of at most `binomial(C, d) (d / C)^n`.
    """
    classes, n = probe.facts.num_classes, len(probe.evaluation.y)
    missing = np.setdiff1d(np.arange(classes), probe.evaluation.y)
    d = classes - len(missing)
    log_chance = (
        math.lgamma(classes + 1)
        - math.lgamma(d + 1)
        - math.lgamma(classes - d + 1)
        + n * math.log(d / classes)
    )
    rare = len(missing) and log_chance < math.log(_UNLIKELY)
    return (
        "warn" if rare else "pass",
        f"{d} of {classes} classes among {n} images"
        + (f"; missing:{listed(missing)}" if len(missing) else ""),
        "A random sample of equal classes shows more: is this the first part "
        "of a sorted data set? Draw images at random, by class.",
    )


@check(
    24,
    "gradient-reaches",
    "the gradient reaches the image",
    needs=(),
    light=True,
    own_gradient=True,
)
def gradient_reaches(probe):
    """Whether there is a gradient to follow at all."""
    end = probe.facts.gradient_cut
    return (
        "warn" if end else "pass",
        f"it ends at {end}" if end else "it reaches the image",
        "Where the gradient ends before the image, attacks that follow it are "
        "blind, and the named plans take queries in their place.",
    )
