"""Markdown: tables, and a whole evaluation."""

import re

from keras_qsn.report import summary
from keras_qsn.report import tables


def markdown_table(header, rows, align=None):
    """A Markdown table; every cell is turned into text.

    Args:
        header: Titles of the columns.
        rows: Lists of cells.
        align: Text with `l` or `r` for each column. Defaults to `None`: the
            first column to the left, the others to the right.
    """
    align = align or "l" + "r" * (len(header) - 1)
    rule = [{"l": "---", "r": "---:"}[side] for side in align]
    return "\n".join(
        "| " + " | ".join(str(cell) for cell in line) + " |"
        for line in (header, rule, *rows)
    )


def escape_markdown(text):
    """Text that Markdown shows as it is, on one line, also in a table."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>&#|~])", r"\\\1", line)


def to_markdown(evaluation, files=None):
    """An evaluation as Markdown.

    Args:
        evaluation: The `Evaluation`.
        files: `{title: file name}` of the plots to show. Defaults to `None`:
            none.
    """
    files = files or {}
    text = escape_markdown
    count = len(evaluation.y)
    robust = summary.accuracy(evaluation.robust_accuracy, count)
    clean = summary.accuracy(evaluation.clean_accuracy, count)
    facts = "\n".join(
        f"- {name}: {text(value)}" for name, value in summary.facts(evaluation)
    )
    parts = [
        f"# Robustness of {text(evaluation.settings['model'])}",
        f"**Robust accuracy {robust}**, 95 % interval in brackets: the worst "
        "case over all attacks, image by image, so at most this is robust. "
        f"Clean accuracy {clean}.",
        facts,
        f"**{text(summary.verdict(evaluation)[1])}**",
        "## Attacks",
        text(summary.masking(evaluation)),
        _markdown(tables.attacks(evaluation), "llrrrrrrl"),
    ]
    table = _markdown(tables.checks(evaluation), "rlllll")
    parts += ["## Checks", table if evaluation.checks else "None was run."]
    for title, table in {
        "Which attack broke which image": None,
        "Accuracy against eps": tables.curve(evaluation),
        "Loss along the attack": None,
        "Broken images": None,
    }.items():
        shown = [f"![{title}]({files[title]})"] if title in files else []
        if table and table[1]:
            shown.append(_markdown(table, "lrrr"))
        if shown:
            parts += [f"## {title}", *shown]
    parts += [
        "## Settings and versions",
        _markdown(tables.settings(evaluation), "ll"),
        "## How to read this",
        "\n".join(f"- {text(line)}" for line in summary.READING),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown(table, align):
    header, lines = table
    return markdown_table(
        header, [map(escape_markdown, row) for row in lines], align
    )
