"""What commands print: progress, tables, accuracies."""

import contextlib

from rich.cells import cell_len
from rich.markup import escape
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.progress import TimeRemainingColumn
from rich.table import Table

from keras_qsn._core.display import open_page
from keras_qsn._core.shares import percent
from keras_qsn._core.shares import wilson_interval


@contextlib.contextmanager
def bar(console):
    """A function that draws how far what it is told of has come.

    One bar, of what is at work, which is gone in the end; none in a file.
    """
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        task = shown.add_task("", total=None)
        at_work = None

        def progress(name, done, total):
            nonlocal at_work
            if name != at_work:
                shown.reset(task, total=total, description=name)
                at_work = name
            shown.update(task, completed=done, total=total)

        yield progress


@contextlib.contextmanager
def parts(console):
    """A function that prints the name of each finished part, above a bar."""
    with bar(console) as progress:

        def finished(name, done, total):
            console.print(name, markup=False, soft_wrap=True)
            progress("all", done, total)

        yield finished


def print_table(console, header, rows, texts=1, title=None):
    """Print rows of text; after the first `texts` columns are numbers."""
    table = Table(*header, title=title)
    # A column has two spaces and a line beside it.
    room = console.width - 3 * len(header) - 1
    for column, width in zip(table.columns, _widths([header, *rows], room)):
        # Long names are broken, not cut.
        column.width, column.overflow = width, "fold"
    for column in table.columns[texts:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _widths(rows, room):
    """Of columns: the widest give way, between words first, then inside."""
    columns = list(zip(*rows))
    widths = [max(map(cell_len, column)) for column in columns]
    longest = [
        max(map(cell_len, " ".join(column).split()), default=1)
        for column in columns
    ]
    for least in (longest, [1] * len(columns)):
        while sum(widths) > room:
            gaps = [(w, i) for i, w in enumerate(widths) if w > least[i]]
            if not gaps:
                break
            widths[max(gaps)[1]] -= 1
    return widths


def with_interval(share, count):
    """An accuracy of `count` images with its 95 % interval."""
    low, high = map(percent, wilson_interval(share, count))
    return f"{percent(share)} (95 %: {low} to {high})"


def written(path, console, show=False):
    """Say where results are; `show` a page in the browser."""
    console.print(f"Written to {path}", markup=False, soft_wrap=True)
    if show and not open_page(path):
        console.print("No browser was found: open the page yourself.")
