"""What an evaluation says, in words and rows of plain text.

Nothing here is escaped: that is up to what shows it.
"""

import importlib.resources

import numpy as np

from keras_qsn._core.shares import percent
from keras_qsn._core.shares import percent_range
from keras_qsn._core.shares import wilson_interval
from keras_qsn.attacks.threats import STEPS


def resource(name):
    """The text of a file beside this one."""
    folder = importlib.resources.files("keras_qsn.report")
    return (folder / name).read_text(encoding="utf-8")


GRADIENTS = {
    "white-box": "the model's own",
    "adaptive": "through or around what hides it",
    "transfer": "other models'",
    "queries": "none",
}

STATUS = {
    "pass": "passed",
    "warn": "warning",
    "fail": "failed",
    "none": "not applicable",
}

# The parameters that say how much work an attack may do, by what they count.
_EFFORT = {
    "steps": STEPS,
    "restarts": ("nb_restarts",),
    "queries": ("nb_queries", "max_num_evals"),
}

# How to read a report.
READING = resource("reading.txt").splitlines()


def accuracy(share, count):
    """An accuracy of `count` images with its 95 % interval."""
    return f"{percent(share)} ({percent_range(*wilson_interval(share, count))})"


def title(evaluation):
    """What was evaluated: its file, where it came out of one, or its name."""
    settings = evaluation.settings
    return settings.get("model_file") or settings["model"]


def class_name(evaluation, number):
    """A class as people call it: by its name, if it has one."""
    names = evaluation.settings.get("class_names")
    return names[number] if names else f"class {number}"


def norm_name(norm):
    """The norm as people write it."""
    return "L∞" if norm == "inf" else f"L{norm:g}"


def broken_by(evaluation):
    """For each image the number of the outcome that broke it, or -1."""
    number = np.full(len(evaluation.y), -1)
    for i, outcome in enumerate(evaluation.outcomes):
        number[outcome.broken] = i
    return number


def became(evaluation):
    """The class that each image ends as, after all attacks."""
    classes = np.array(evaluation.prediction)
    for outcome in evaluation.outcomes:
        classes[outcome.broken] = outcome.became
    return classes


def distances(evaluation):
    """How far each image was moved, in the norm of the evaluation."""
    delta = evaluation.x_adv.astype("float64") - evaluation.x
    norm = float(evaluation.settings["norm"])
    return np.linalg.norm(delta.reshape(len(delta), -1), norm, axis=1)


def facts(evaluation):
    """What the robust accuracy is a number of: pairs of name and value."""
    settings = evaluation.settings
    threats = [outcome.step.threat for outcome in evaluation.outcomes]
    masks = settings.get("masks")
    return [
        ("Norm", norm_name(settings["norm"])),
        ("eps", f"{settings['eps']:g}"),
        ("Images", str(len(evaluation.y))),
        ("Of each class", _balance(evaluation)),
        ("Seed", str(settings["seed"])),
        ("Attacks", str(len(threats))),
        ("Plan", str(settings["plan"])),
        (
            "Largest effort",
            effort(*(outcome.step for outcome in evaluation.outcomes))
            or "one step",
        ),
        (
            "Gradients followed",
            "; ".join(f"{t}: {GRADIENTS[t]}" for t in GRADIENTS if t in threats)
            or "none",
        ),
        *([("Masked gradients", masks_in_words(masks))] if masks else []),
        *(
            [("Few bits", settings["precision"])]
            if "precision" in settings
            else []
        ),
        *(
            [("Losses climbed", f"in {dtype}; judged in float32")]
            if (dtype := settings.get("attack_dtype"))
            else []
        ),
        *(_answers(evaluation) if evaluation.answers else []),
        *(_detection(evaluation.detection) if evaluation.detection else []),
    ]


def _detection(found):
    """What a detector beside the model does: pairs of name and value."""
    share = accuracy(found.rejected.mean(), len(found.rejected))
    return [
        (
            "Detector",
            f"{found.detector}, rejects above {found.threshold:.4g}: {share} "
            "of the images as they are, which count as wrong; an adversarial "
            "image counts where it is accepted",
        )
    ]


def _answers(evaluation):
    """What a model that answers at random does: pairs of name and value."""
    found, count = evaluation.answers, len(evaluation.y)
    chance = evaluation.settings["chance"]
    return [
        (
            "Answers at random",
            f"{percent(chance['flips'])} of them are not the most frequent "
            f"one, logits move by {percent(chance['spread'])} of the largest; "
            f"{found.draws} draws at each image, attacks average "
            f"{chance['draws_of_attacks'] or 'what the plan says'}",
        ),
        (
            "Accuracy by majority of the draws",
            f"clean {accuracy(evaluation.clean_accuracy, count)}, worst case "
            f"{accuracy(evaluation.robust_accuracy, count)}",
        ),
        (
            "Mean accuracy over the draws",
            f"clean {accuracy(found.mean_accuracy, count)}, worst case "
            f"{accuracy(found.mean_robust_accuracy, count)}",
        ),
    ]


def masks_in_words(masks):
    """Layers that hide their gradient, and what went through them."""
    return "; ".join(
        f"{mask['layer']} ({mask['gradient']}), through {mask['surrogate']}"
        for mask in masks
    )


def verdict(evaluation):
    """Whether the checks let the number stand: a status and a sentence."""
    count = {
        status: sum(check.status == status for check in evaluation.checks)
        for status in STATUS
    }
    ran = len(evaluation.checks) - count["none"]
    if not ran:
        return "warn", (
            "No check was run: nothing says whether the attacks can be "
            "believed."
        )
    adaptive = any(
        outcome.step.threat == "adaptive" and outcome.step.attack is not None
        for outcome in evaluation.outcomes
    )
    own_gradient = all(check.own_gradient for check in evaluation.failed)
    if evaluation.failed and own_gradient and adaptive:
        return "warn", (
            f"{count['fail']} of {ran} checks failed, none of the adaptive "
            "attacks': the model's own gradient is masked, so do not quote a "
            "white-box column. This number rests on attacks that do not need "
            "that gradient."
        )
    if evaluation.failed:
        return "fail", (
            f"{count['fail']} of {ran} checks failed: do not trust this number."
        )
    if count["warn"]:
        verb = "warns" if count["warn"] == 1 else "warn"
        return "warn", (
            f"None of {ran} checks failed, {count['warn']} {verb}: read why "
            "before quoting this number."
        )
    return "pass", (
        f"All {ran} checks passed: no sign that the attacks were too weak."
    )


def masking(evaluation):
    """What `evaluation.unmasked` says of the gradient, as a sentence."""
    ran = {k: v for k, v in evaluation.unmasked.items() if v is not None}
    if not ran:
        return (
            "No attack but white-box ones was run on an image that white-box "
            "attacks of many steps had missed, so nothing here can show a "
            "masked gradient."
        )
    counts = ", ".join(f"{threat} {count}" for threat, count in ran.items())
    if not any(ran.values()):
        return (
            "Other attacks broke no image that white-box attacks had missed "
            f"({counts}), which is no sign of a masked gradient."
        )
    # One image may be luck, as between any two attacks.
    if sum(ran.values()) <= max(1, 0.005 * len(evaluation.y)):
        return (
            f"Other attacks broke hardly an image that white-box attacks had "
            f"missed ({counts}): too few to tell of a masked gradient."
        )
    return (
        f"Other attacks broke images that white-box attacks had missed "
        f"({counts}). That is a sign of a masked gradient: the accuracy that "
        "white-box attacks leave overstates robustness."
    )


def effort(*steps):
    """The largest number of steps, restarts and queries of any attack."""
    largest = dict.fromkeys(_EFFORT, 0)
    for step in steps:
        for key, value in _flat(step.get_config()["config"]):
            for what, names in _EFFORT.items():
                if key in names:
                    largest[what] = max(largest[what], value)
    return ", ".join(f"{what} {n}" for what, n in largest.items() if n)


def _balance(evaluation):
    """How many images there are of each class."""
    classes, counts = np.unique(evaluation.y, return_counts=True)
    fewest, most = counts.min(), counts.max()
    words = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    facts = evaluation.settings.get("facts") or {}
    missing = facts.get("num_classes", len(classes)) - len(classes)
    return words + (f", none of {missing} classes" if missing else "")


def _flat(config):
    """Names and values of a config and of those inside it."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield key, value
