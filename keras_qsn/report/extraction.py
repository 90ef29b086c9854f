"""Copies of models, side by side: as JSON, text, Markdown, a plot, a page."""

import pathlib

import numpy as np

from keras_qsn._core.files import write_figure
from keras_qsn._core.files import write_json
from keras_qsn._core.files import write_text
from keras_qsn._core.shares import percent
from keras_qsn._core.shares import percent_range
from keras_qsn._core.shares import wilson_interval
from keras_qsn.report import drawing
from keras_qsn.report import templates
from keras_qsn.report.markdown import escape_markdown
from keras_qsn.report.markdown import markdown_table
from keras_qsn.report.page import made
from keras_qsn.report.schema import accuracy

_HEADER = (
    "copy",
    "answers",
    "queries",
    "agreement",
    "95 % interval",
    "copy right",
    "victim right",
    "victim fooled",
    "answers moved",
)
_READING = (
    "Agreement: images to which the copy gives the victim's class. One attack "
    "gives a lower bound of what a thief can copy.",
    "Victim fooled: images whose class the victim changes when they are made "
    "adversarial on the copy alone.",
    "Answers moved: mean L1 distance, from 0 to 2, of the answers that the "
    "thief paid for from those of the undefended victim.",
    "A defence of probabilities that leaves the first class alone is void for "
    "a thief who takes classes: compare the rows of hard answers.",
)


def to_json(results):
    """As `ExtractionComparison.to_json` documents.

    Args:
        results: `{name: ExtractionResult}`.
    """
    return {
        "schema_version": 1,
        "results": [_entry(name, result) for name, result in results.items()],
    }


def numbers(results):
    """A flat dict for each result."""
    return [
        {
            "name": name,
            "attack": result.settings["attack"],
            "answers": result.settings["config"]["answers"],
            "queries": result.queries,
            "agreement": result.agreement,
            **dict(zip(("low", "high"), _interval(result))),
            "copy_accuracy": result.copy_accuracy,
            "victim_accuracy": result.victim_accuracy,
            "fooled": None if result.fooled is None else _fooled(result),
            "l1": result.l1,
        }
        for name, result in results.items()
    ]


def table(results):
    """Header and rows of text; columns that none has are left out."""
    rows = [
        [
            row["name"],
            row["answers"],
            f"{row['queries']:,}",
            percent(row["agreement"]),
            percent_range(row["low"], row["high"]),
            percent(row["copy_accuracy"]),
            percent(row["victim_accuracy"]),
            percent(row["fooled"]),
            "–" if row["l1"] is None else f"{row['l1']:.3f}",
        ]
        for row in numbers(results)
    ]
    told = [
        i
        for i in range(len(_HEADER))
        if i < 5 or any(row[i] != "–" for row in rows)
    ]
    return tuple(
        [[line[i] for i in told] for line in lines]
        for lines in ([_HEADER], rows)
    )


def subject(results):
    """What the shares are of."""
    counts = sorted({len(result.victim) for result in results.values()})
    counts = " or ".join(f"{count:,}" for count in counts)
    return f"Measured on {counts} images that the thief did not see."


def how(results):
    """A sentence on each result."""
    for name, result in results.items():
        s = result.settings
        config = ", ".join(f"{k}={v}" for k, v in s["config"].items())
        given = f"of {s['images']:,} given" if s["images"] else "of its own"
        failed = sum(s["failures"].values())
        yield (
            f"{name}: {s['attack']} ({config}) asked '{s['victim']}' about "
            f"{s['asked']:,} images {given} and taught '{s['copy']}', in "
            f"{s['seconds']:.0f} s."
            + f" {failed} answers failed." * bool(failed)
            + _on_fooling(result)
        )


def to_text(results):
    """The table for a terminal, as wide as it is."""
    (header,), rows = table(results)
    sizes = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [
        "  ".join(
            [line[0].ljust(sizes[0]), *map(str.rjust, line[1:], sizes[1:])]
        ).rstrip()
        for line in (header, *rows)
    ]
    return "\n".join([subject(results), *lines])


def plot(results, theme=drawing.LIGHT):
    """Agreement against queries, a line for each result.

    Args:
        results: `{name: ExtractionResult}`.
        theme: A `Theme`. Defaults to that of light ground.

    Returns:
        A matplotlib `Figure`.
    """
    figure, axis = drawing.chart(2.5 + 0.2 * ((len(results) + 1) // 2), theme)
    styles = drawing.styles(theme, len(results))
    for style, (name, result) in zip(styles, results.items()):
        queries, share = np.array(result.curve).T
        axis.plot(
            queries, 100 * share, **style, label=drawing.plain_label(name, 22)
        )
        low, high = _interval(result)
        ends = [[result.agreement - low], [high - result.agreement]]
        axis.errorbar(
            result.queries,
            100 * result.agreement,
            100 * np.maximum(ends, 0),
            **{**style, "linestyle": "none", "markersize": 7},
            capsize=3,
        )
    axis.set_xlabel("queries")
    axis.set_ylabel("agreement [%]")
    axis.set_xlim(left=0)
    axis.set_ylim(-3, 103)
    drawing.legend(figure, theme)
    return figure


def write(results, folder, title):
    """Write `extraction.json`, `.md`, `.png` and `.html`.

    Args:
        results: `{name: ExtractionResult}`.
        folder: Where to; created if need be.
        title: Of the page.

    Returns:
        The paths, the page last.
    """
    folder = pathlib.Path(folder)
    page = templates.render(
        "extraction.html",
        title=title,
        lines=[made()],
        subject=subject(results),
        table=(table(results)[0][0], table(results)[1]),
        drawn=templates.on_each_ground(plot, results),
        how=how(results),
        reading=_READING,
    )
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"extraction.{ending}" for ending in ("json", "md", "png", "html")]
    paths = [folder / name for name in names]
    write_json(paths[0], to_json(results))
    write_text(paths[1], _markdown(results, title))
    write_figure(paths[2], plot(results))
    write_text(paths[3], page)
    return paths


def _entry(name, result):
    count = len(result.victim)
    return {
        "name": name,
        "settings": result.settings,
        "queries": result.queries,
        "agreement": accuracy(result.agreement, count),
        "copy_accuracy": None
        if result.y is None
        else accuracy(result.copy_accuracy, count),
        "victim_accuracy": None
        if result.y is None
        else accuracy(result.victim_accuracy, count),
        "curve": [
            {"queries": queries, "agreement": share}
            for queries, share in result.curve
        ],
        "l1": result.l1,
        "fooled": result.fooled,
    }


def _interval(result):
    return wilson_interval(result.agreement, len(result.victim))


def _fooled(result):
    return result.fooled["victim"]


def _on_fooling(result):
    told = result.fooled
    if told is None:
        return ""
    config = ", ".join(f"{k}={v}" for k, v in told["config"].items())
    return (
        f" Then {told['attack']} ({config}) on {told['images']:,} images fooled"
        f" the copy on {percent(told['copy'])}, the victim on "
        f"{percent(told['victim'])}."
    )


def _markdown(results, title):
    (header,), rows = table(results)
    lines = [
        f"# {escape_markdown(title)}",
        subject(results),
        markdown_table(
            header, [map(escape_markdown, row) for row in rows],
            "ll" + "r" * (len(header) - 2),
        ),
        "![Agreement against queries](extraction.png)",
        *(f"- {escape_markdown(line)}" for line in how(results)),
        "## What this says",
        *(f"- {line}" for line in _READING),
    ]  # fmt: skip
    return "\n\n".join(lines) + "\n"
