"""What commands print: progress bars, tables, accuracies."""

import contextlib

from rich.markup import escape
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeRemainingColumn
from rich.table import Table

from keras_qsn._core.shares import percent
from keras_qsn._core.shares import wilson_interval


@contextlib.contextmanager
def bars(console):
    """A function that draws a progress bar for each name it is told of."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as shown:
        tasks = {}

        def progress(name, done, total):
            if name not in tasks:
                tasks[name] = shown.add_task(name, total=total)
            shown.update(tasks[name], completed=done)

        yield progress


@contextlib.contextmanager
def parts(console):
    """A function that prints the name of each finished part, above one bar."""
    with bars(console) as progress:

        def finished(name, done, total):
            console.print(name, markup=False)
            progress("all", done, total)

        yield finished


def print_table(console, header, rows, texts=1, title=None):
    """Print rows of text; after the first `texts` columns are numbers."""
    table = Table(*header, title=title)
    for column in table.columns[texts:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def with_interval(share, count):
    """An accuracy of `count` images with its 95 % interval."""
    low, high = map(percent, wilson_interval(share, count))
    return f"{percent(share)} (95 %: {low} to {high})"
