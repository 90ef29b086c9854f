"""What a figure is: rows of cells, and what the paper says of them."""

import dataclasses
import typing

from keras_qsn.paper.cells import Cell


@dataclasses.dataclass(frozen=True)
class Row:
    """A measured number beside a printed one.

    Args:
        defence: What was defended with, as text.
        setting: What was done to it, as text.
        cell: The cell that holds the number.
        printed: What the paper prints, in percent; `None` where it shows an
            image alone.
        worst: The cell with the worst case over adaptive attacks.
        field: `"accuracy"`, `"L0"` or `"L2"` for the median distance of the
            examples that succeed; `"gain"` over `baseline`; of a network
            `"training"`, its time over that of `baseline`, or
            `"parameters"`; `"inference"`, the time of an answer;
            `"agreement"` of a copy with it.
        baseline: The undefended network's cell.
        at: Place on the horizontal axis of a curve.
        claim: What the defence's own paper claims, as text.
    """

    defence: str
    setting: str
    cell: Cell
    printed: float | None = None
    worst: Cell | None = None
    field: str = "accuracy"
    baseline: Cell | None = None
    at: float | None = None
    claim: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure.

    Args:
        name: Short name, for the command line.
        title: What it shows.
        paper: What the paper shows or says there.
        data: Data sets it is drawn for.
        kind: How it is drawn: `"bars"`, `"curves"`, `"epochs"`, `"images"`,
            `"table"`, one line for each defence, or `"copies"`, one for each
            victim.
        make_rows: Function of a `Grid` that yields its rows.
    """

    name: str
    title: str
    paper: str
    data: tuple
    kind: str
    make_rows: typing.Callable

    def rows(self, grid):
        """Its rows, with the cells of a grid."""
        return list(self.make_rows(grid))


FIGURES = {}


def figure(name, title, paper, data=("mnist", "cifar10"), kind="bars"):
    """Register the function of a `Grid` below as a `Figure`."""

    def register(make_rows):
        FIGURES[name] = Figure(name, title, paper, data, kind, make_rows)
        return make_rows

    return register
