"""Numbers and tables as text."""

import re


def percent(share):
    """A share as a percentage, or a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def percent_range(low, high):
    """Two shares as a range of percentages."""
    return f"{100 * low:.1f}–{100 * high:.1f} %"


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
