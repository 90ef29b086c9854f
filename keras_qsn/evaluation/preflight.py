"""What would make an evaluation worthless, found before any long attack."""

import math
import warnings

import numpy as np

from keras_qsn.attacks import TransferAttack
from keras_qsn.classifier.inputs import in_words
from keras_qsn.evaluation.outcome import interval
from keras_qsn.evaluation.wording import listed
from keras_qsn.evaluation.wording import points

# Of the range of pixels; images that fill less are of another range.
_FILLED = 0.02
# That a random sample shows as few classes as it does.
_UNLIKELY = 0.01


def check_certified(certified, count):
    """Return which images are proved robust, booleans, or say what came.

    Raises:
        ValueError: If they are not one boolean for each image.
    """
    if certified is None:
        return None
    certified = np.asarray(certified)
    if certified.dtype != bool or certified.shape != (count,):
        raise ValueError(
            "`certified` must hold one boolean for each of the "
            f"{count} images: whether it is proved robust. Received: "
            f"dtype={certified.dtype}, shape={certified.shape}. Of a "
            '`Certificate` give `status == "certified"`.'
        )
    return certified


def check_sources(steps, wrapper):
    """Refuse models to transfer from that take or tell something else.

    Raises:
        ValueError: If images or classes of a source differ from the model's.
    """
    for step in steps:
        if isinstance(step.attack, TransferAttack):
            step.attack.seen(wrapper)


def check_scale(evaluation, wrapper, threat):
    """Refuse images on another scale than the model was made for.

    Raises:
        ValueError: If no image is right, and the range of the model, of the
            images, or the one given differ.
    """
    wanted = _mismatch(evaluation.x, wrapper, threat)
    if wanted and not evaluation.correct.any():
        raise ValueError(
            f"None of the {len(evaluation.y)} images is classified correctly, "
            f"and the model is made for pixels in {in_words(*wanted)}. "
            f"Received: pixels from {evaluation.x.min():g} to "
            f"{evaluation.x.max():g}, attacked in "
            f"{in_words(threat.clip_min, threat.clip_max)}. Give the images "
            f"on the model's scale, with `value_range={wanted}`."
        )


def warn(evaluation, facts, wrapper, threat):
    """Say before the attacks what the checks will fail."""
    told = [
        f"{value}. {meaning}"
        for status, value, meaning in (
            above_chance(evaluation, facts),
            randomness(facts),
        )
        if status == "fail"
    ]
    wanted = _mismatch(evaluation.x, wrapper, threat)
    if told and wanted:
        told.append(
            f"The model is made for pixels in {in_words(*wanted)}: are these "
            "images on its scale (`value_range`)?"
        )
    if told:
        warnings.warn(" ".join(told), RuntimeWarning, stacklevel=3)


def above_chance(evaluation, facts):
    """Whether the model knows more than a guess, for certain."""
    chance, share = 1 / facts.num_classes, evaluation.clean_accuracy
    low, _ = interval(share, len(evaluation.y))
    status = "pass" if low > chance else "warn"
    return (
        "fail" if share <= chance else status,
        f"clean accuracy {points(share)} of {len(evaluation.y)} images, "
        f"guessing {points(chance)}",
        "A model that guesses has no robustness to measure: look for wrong "
        "labels, another order of classes, or pixels on another scale; where "
        "images are few, take more.",
    )


def class_balance(evaluation, facts):
    """Whether as many classes are there as in a random sample.

    `n` images drawn from `C` equal classes show at most `d` of them with a
    probability of at most `binomial(C, d) (d / C)^n`.
    """
    classes, n = facts.num_classes, len(evaluation.y)
    missing = np.setdiff1d(np.arange(classes), evaluation.y)
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


def gradient_reaches(facts):
    """Whether there is a gradient to follow at all."""
    return (
        "warn" if facts.gradient_cut else "pass",
        f"it ends at {facts.gradient_cut}"
        if facts.gradient_cut
        else "it reaches the image",
        "Where the gradient ends before the image, attacks that follow it are "
        "blind, and the named plans take queries in their place.",
    )


def randomness(facts):
    """Whether the model draws random numbers."""
    return (
        "fail" if facts.random else "pass",
        "the model draws random numbers" if facts.random else "no chance in it",
        "A model that answers at random must be attacked in expectation: put "
        "`EOT` around the attacks of a plan of your own.",
    )


def _mismatch(x, wrapper, threat):
    """The model's own range of pixels, where this is not it; else `None`."""
    wanted = wrapper.value_range
    if wanted is None:
        return None
    low, high = wanted
    given = (threat.clip_min, threat.clip_max)
    other = not all(np.array_equal(a, b) for a, b in zip(given, wanted))
    small = np.ptp(x) < _FILLED * (high - low)
    return wanted if other or small else None
