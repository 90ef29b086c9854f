"""Progress bars of a command."""

import contextlib

from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeRemainingColumn


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
