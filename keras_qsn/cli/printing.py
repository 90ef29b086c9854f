"""What commands print: progress, tables, accuracies."""

import contextlib
import re

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
    """Print rows of text; after the first `texts` columns are numbers.

    What is too wide becomes several tables, each with these first columns.
    """
    lines = [header, *rows]
    for columns in _fitting(lines, texts, console.width):
        chosen = [[line[i] for i in columns] for line in lines]
        table = Table(*chosen[0], title=title)
        widths = _widths(chosen, _room(console.width, len(columns)))
        for i, (column, width) in enumerate(zip(table.columns, widths)):
            # Long names are broken, not cut.
            column.width, column.overflow = width, "fold"
            column.justify = "left" if i < texts else "right"
        for line in chosen[1:]:
            table.add_row(*map(escape, line))
        console.print(table)
        title = None


def _room(width, columns):
    """For text: a column has two spaces and a line beside it."""
    return width - 3 * columns - 1


def _fitting(lines, texts, width):
    """Columns of the tables that whole words need, as few as there can be."""
    longest = [max(map(cell_len, words)) for words in _words(lines)]
    first = [*range(texts)]
    tables = [[*first]]
    for i in range(texts, len(longest)):
        together = [*tables[-1], i]
        needed = sum(longest[j] for j in together)
        if needed > _room(width, len(together)) and len(together) > texts + 1:
            together = [*first, i]
            tables.append(together)
        tables[-1] = together
    return tables


def _words(lines):
    """Of each column, none of them empty; units and marks belong to them."""
    for column in zip(*lines):
        yield re.split(" (?![%×*†])", " ".join(column))


def _widths(lines, room):
    """Of columns: the widest give way, between words first, then inside."""
    widths = [max(map(cell_len, column)) for column in zip(*lines)]
    longest = [max(map(cell_len, words)) for words in _words(lines)]
    for least in (longest, [1] * len(widths)):
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
