"""Tables of an evaluation: headers and rows of plain text."""

from keras_qsn._core.shares import percent
from keras_qsn._core.shares import percent_range
from keras_qsn._core.shares import wilson_interval
from keras_qsn.report.summary import STATUS
from keras_qsn.report.summary import masks_in_words


def attacks(evaluation):
    """Header and rows of the attacks; their parameters in the last column."""
    header = [
        "attack",
        "threat model",
        "tried",
        "broke",
        "accuracy left",
        "95 % interval",
        "blind images",
        "seconds",
        "parameters",
    ]
    rows = []
    for outcome, left in zip(evaluation.outcomes, evaluation.accuracy_after()):
        rows.append(
            [
                outcome.step.name,
                outcome.step.threat,
                str(len(outcome.tried)),
                str(len(outcome.broken)),
                percent(left),
                percent_range(*wilson_interval(left, len(evaluation.y))),
                str(outcome.blind),
                f"{outcome.seconds:.1f}",
                _parameters(outcome.step, evaluation.settings),
            ]
        )
    return header, rows


def checks(evaluation):
    """Header and rows of the checks."""
    header = [
        "no.",
        "check",
        "status",
        "measured",
        "what it means",
        "attacked with",
    ]
    return header, [
        [
            str(check.number),
            check.name,
            STATUS[check.status],
            check.value,
            check.meaning,
            check.attack,
        ]
        for check in evaluation.checks
    ]


def curve(evaluation):
    """Header and rows of the accuracy at other radii."""
    count = evaluation.settings.get("curve_images")
    rows = [
        [
            name,
            f"{eps:.3g}",
            percent(share),
            percent_range(*wilson_interval(share, count))
            if count
            else "unknown",
        ]
        for name, points in evaluation.curve.items()
        for eps, share in points
    ]
    return ["attack", "eps", "accuracy", "95 % interval"], rows


def settings(evaluation):
    """Header and rows of the settings and versions; long lists left out."""
    rows = []
    for name, value in evaluation.settings.items():
        if name in ("facts", "versions", "chance") and value:
            rows += [
                [key.replace("_", " "), str(v)] for key, v in value.items()
            ]
        elif name == "masks":
            rows.append([name, masks_in_words(value) or "none"])
        elif name not in ("attacks", "data_rows"):
            rows.append([name.replace("_", " "), str(value)])
    return ["setting", "value"], rows


def parameters(evaluation):
    """Header and rows of the attacks' parameters, what all share left out."""
    return ["attack", "parameters"], [
        [outcome.step.name, _parameters(outcome.step, evaluation.settings)]
        for outcome in evaluation.outcomes
        if outcome.step.attack is not None
    ]


def _parameters(step, settings):
    """The attack as a call, without what all attacks share."""
    if step.attack is None:
        return ""
    config = step.get_config()
    limit = f", first {step.max_images} images" if step.max_images else ""
    return _call(config["attack"], config["config"], settings) + limit


def _call(name, config, settings):
    low, high = settings["value_range"]
    shared = {
        "eps": settings["eps"],
        "norm": settings["norm"],
        "clip_min": low,
        "clip_max": high,
        "seed": settings["seed"],
    }
    arguments = []
    for key, value in config.items():
        if key in shared and value == shared[key]:
            continue
        if isinstance(value, dict) and "class_name" in value:
            value = _call(value["class_name"], value["config"], settings)
        arguments.append(f"{key}={value}")
    return f"{name}({', '.join(arguments)})"
