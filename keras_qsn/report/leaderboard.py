"""Several evaluations side by side: as JSON, text, Markdown and a page."""

import itertools

from keras_qsn._core.files import write_json
from keras_qsn._core.files import write_text
from keras_qsn._core.shares import percent
from keras_qsn._core.shares import percent_range
from keras_qsn._core.shares import wilson_interval
from keras_qsn.report import drawing
from keras_qsn.report import summary
from keras_qsn.report.markdown import escape_markdown
from keras_qsn.report.markdown import markdown_table
from keras_qsn.report.page import comparison_page
from keras_qsn.report.page import made
from keras_qsn.report.schema import accuracy

_HEADER = (
    "model",
    "clean",
    "worst case",
    "95 % interval",
    "proved",
    "attacks",
    "failed checks",
    "seconds",
)


def to_json(comparison):
    """As `Comparison.to_json` documents."""
    first = next(iter(comparison.evaluations.values()))
    return {
        "schema_version": 1,
        "norm": first.settings["norm"],
        "eps": first.settings["eps"],
        "data_name": first.settings.get("data_name"),
        "models": [
            _entry(name, evaluation, comparison.certificates.get(name))
            for name, evaluation in _ranked(comparison)
        ],
    }


def numbers(comparison):
    """A flat dict for each model, most robust first."""
    return [
        {
            "name": entry["name"],
            "clean": entry["clean_accuracy"]["share"],
            "robust": entry["robust_accuracy"]["share"],
            "robust_low": entry["robust_accuracy"]["low"],
            "robust_high": entry["robust_accuracy"]["high"],
            "certified": (entry["certified_accuracy"] or {}).get("share"),
            "plan": entry["plan"],
            "attacks": entry["attacks"],
            "failed_checks": len(entry["failed_checks"]),
            "seconds": entry["seconds"],
        }
        for entry in to_json(comparison)["models"]
    ]


def table(comparison):
    """Header and rows of text."""
    return list(_HEADER), [
        [
            row["name"],
            percent(row["clean"]),
            percent(row["robust"]),
            percent_range(row["robust_low"], row["robust_high"]),
            percent(row["certified"]),
            str(row["attacks"]),
            str(row["failed_checks"]),
            f"{row['seconds']:.0f}",
        ]
        for row in numbers(comparison)
    ]


def subject(comparison):
    """What the accuracies are of."""
    first = next(iter(comparison.evaluations.values()))
    settings = first.settings
    return (
        f"Worst case per image over all attacks; "
        f"{summary.norm_name(settings['norm'])} {settings['eps']:g}, "
        f"{len(first.y)} images."
    )


def to_text(comparison, width=80):
    """The table for a terminal of 80 columns; long names are cut."""
    header, rows = table(comparison)
    # Of the interval and the cost there is no room.
    keep = [0, 1, 2, 3, 4, 6]
    lines = [[line[i] for i in keep] for line in (header, *rows)]
    sizes = [max(map(len, column)) for column in zip(*lines)]
    sizes[0] = max(1, min(sizes[0], width - sum(sizes[1:]) - 2 * len(keep) + 2))
    return "\n".join(
        [
            subject(comparison),
            *(
                "  ".join(
                    [
                        drawing.shortened(name, sizes[0]).ljust(sizes[0]),
                        *map(str.rjust, cells, sizes[1:]),
                    ]
                ).rstrip()
                for name, *cells in lines
            ),
        ]
    )


def write(comparison, folder):
    """Write the files; returns their paths, the page last."""
    texts = {
        "comparison.md": _markdown(comparison),
        "comparison.html": _page(comparison),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", to_json(comparison))
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in ("comparison.json", *texts)]


def _ranked(comparison):
    return sorted(
        comparison.evaluations.items(), key=lambda e: -e[1].robust_accuracy
    )


def _entry(name, evaluation, certificate):
    count = len(evaluation.y)
    status, sentence = summary.verdict(evaluation)
    return {
        "name": name,
        "clean_accuracy": accuracy(evaluation.clean_accuracy, count),
        "robust_accuracy": accuracy(evaluation.robust_accuracy, count),
        "certified_accuracy": None
        if certificate is None
        else accuracy(certificate.certified_accuracy, count),
        "verdict": {"status": status, "sentence": sentence},
        "failed_checks": [check.key for check in evaluation.failed],
        "plan": str(evaluation.settings["plan"]),
        "attacks": len(evaluation.outcomes),
        "seconds": sum(outcome.seconds for outcome in evaluation.outcomes),
    }


def _verdicts(comparison):
    return [
        f"{name}: {summary.verdict(evaluation)[1]}"
        for name, evaluation in _ranked(comparison)
    ]


def _curves(comparison):
    """Of each model the lowest of its curves: the nearest to the truth."""
    curves = {}
    for name, evaluation in _ranked(comparison):
        lowest = {}
        for eps, share in itertools.chain(*evaluation.curve.values()):
            lowest[eps] = min(share, lowest.get(eps, 1.0))
        if lowest:
            curves[name] = sorted(lowest.items())
    return curves


def _markdown(comparison):
    header, rows = table(comparison)
    text = markdown_table(header, [map(escape_markdown, row) for row in rows])
    verdicts = "".join(
        f"- {escape_markdown(verdict)}\n" for verdict in _verdicts(comparison)
    )
    return f"{subject(comparison)}\n\n{text}\n\n{verdicts}"


def _page(comparison):
    first = next(iter(comparison.evaluations.values()))
    intervals = {
        name: (
            first.settings["eps"],
            evaluation.robust_accuracy,
            *wilson_interval(evaluation.robust_accuracy, len(evaluation.y)),
        )
        for name, evaluation in _ranked(comparison)
    }
    return comparison_page(
        subject(comparison),
        table(comparison),
        {"Can these numbers be believed?": _verdicts(comparison)},
        {
            "Accuracy against eps": (
                _curves(comparison),
                intervals,
                summary.norm_name(first.settings["norm"]),
            )
        },
        "Of each model the lowest accuracy that an attack left at that radius, "
        "on the first of the images; and, with its interval, the worst case of "
        "all attacks on all of them.",
        kind="Comparison",
        title="Which model is the most robust?",
        lines=[first.settings.get("data_name"), made()],
        pictures={},
    )
