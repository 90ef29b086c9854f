"""What would make an evaluation worthless, found before any long attack."""

import warnings

import numpy as np

from keras_qsn.attacks.running import check_gradient
from keras_qsn.classifier.inputs import check_weights
from keras_qsn.classifier.inputs import in_words
from keras_qsn.evaluation.checks import conditions

# Of the range of pixels; images that fill less are of another range.
_FILLED = 0.02


def check_certified(certified, count):
    """Which images are proved robust, booleans; refuse what says it not."""
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


def check_attacks_of_detectors(threat, plan, wrapper):
    """Refuse a named plan none of whose attacks would know of a detector."""
    if not isinstance(plan, str):
        return
    if wrapper.answers_only:
        raise ValueError(
            "With a `detector`, a named plan needs a gradient: attacks of "
            "answers alone know of no detector, and would call it robust. "
            f"Received: '{wrapper.model.name}', of which only the answers are "
            "known. Evaluate a twin of it with the detector, or give a `plan` "
            "of attacks made for it."
        )
    if threat.norm not in (np.inf, 2):
        raise ValueError(
            "With a `detector`, `norm` must be np.inf or 2 for a named plan: "
            "attacks that know of a detector are of these, and others would "
            f"call it robust. Received: norm={threat.norm:g}. Take one of "
            "these norms, or give a `plan` of attacks made for your detector."
        )


def check_sources(steps, wrapper):
    """Refuse attacks that need more than there is of the model, and models to
    transfer from of other images or classes."""
    for step in steps:
        check_gradient(step.attack, wrapper)
        if step.threat == "transfer":
            step.attack.seen(wrapper)


def predict(judge, x, y):
    """Classes the model gives the images; refuse what are no numbers."""
    check_weights(judge.wrapper.model)
    logits = judge.wrapper.logits(x, judge.batch_size)
    bad = int((~np.isfinite(logits).all(1)).sum())
    if bad:
        raise ValueError(
            "The model's logits must be finite. Received: NaN or infinite for "
            f"{bad} of {len(x)} images. Did the training diverge?"
        )
    if judge.is_random:
        return judge.classes(x, y)
    return logits.argmax(-1).astype("int32")


def check_scale(evaluation, wrapper, threat):
    """Refuse images on another scale than the model was made for.

    If none is right, and the range of the model, of the images, or the one
    given differ.
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
    status, value, meaning = conditions.beats_chance(
        evaluation.clean_accuracy, len(evaluation.y), facts.num_classes
    )
    reasons = [f"{value}. {meaning}"] if status == "fail" else []
    wanted = _mismatch(evaluation.x, wrapper, threat)
    if reasons and wanted:
        reasons.append(
            f"The model is made for pixels in {in_words(*wanted)}: are these "
            "images on its scale (`value_range`)?"
        )
    if reasons:
        warnings.warn(" ".join(reasons), RuntimeWarning, stacklevel=3)


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
