"""The result of `transfer_matrix`: a table for each attack."""

import dataclasses

import numpy as np

from keras_qsn._core import display
from keras_qsn._core.shares import percent
from keras_qsn._core.shares import wilson_interval


@dataclasses.dataclass(frozen=True, eq=False)
class TransferMatrix:
    """The result of `transfer_matrix`: a table of sources and targets each.

    Attributes:
        settings: What was attacked, how: plain values; of these `sources`,
            `targets` and `attacks` name rows, columns and tables.
        y: The true classes.
        prediction: Classes that each target gives the images, integers of
            shape `(targets, images)`.
        became: `{attack: classes}`, what each target says of the examples of
            each source, integers of shape `(sources, targets, images)`.
        blind: `{attack: booleans}` of shape `(sources, images)`: whether the
            attack follows the gradient of the source, and that is zero.
    """

    settings: dict
    y: np.ndarray
    prediction: np.ndarray
    became: dict
    blind: dict

    @property
    def right(self):
        """Which images each target has right as they are."""
        return self.prediction == self.y

    def success(self, attack):
        """Of the images that a target has right, the share it gets wrong.

        Args:
            attack: Name of an attack.

        Returns:
            Array of shape `(sources, targets)`; NaN where a target has no
            image right.
        """
        wrong = self._named(attack) != self.y
        count = self.right.sum(-1).astype("float64")
        count[count == 0] = np.nan
        return (wrong & self.right).sum(-1) / count

    def white_box(self, attack):
        """The mean of `success` on the source itself, over all targets."""
        return float(np.diag(self._square(attack)).mean())

    def transferred(self, attack):
        """The mean of `success` from one target to another, over all pairs."""
        square = self._square(attack)
        return float(square[~np.eye(len(square), dtype=bool)].mean())

    def to_json(self):
        """Plain values, for `json.dumps`.

        Returns:
            A dict of `settings`; `summary`, a list of objects of `attack`,
            `white_box` and `transferred`; and `cells`, a list of objects as
            `to_dataframe` has rows. What is no number is `None`.
        """
        return {
            "settings": self.settings,
            "summary": [
                {
                    "attack": attack,
                    "white_box": _plain(self.white_box(attack)),
                    "transferred": _plain(self.transferred(attack)),
                }
                for attack in self.became
            ],
            "cells": self._cells(),
        }

    def to_dataframe(self):
        """A pandas `DataFrame` with a row for each attack, source and target.

        Columns `attack`, `source`, `target`, `success`, the ends `low` and
        `high` of its 95 % interval, `images`, those that the target has
        right, and `blind`, how many of all the attack was blind on.
        """
        cells = self._cells()
        return display.data_frame({k: [c[k] for c in cells] for k in cells[0]})

    def __repr__(self):
        lines = [self._subject()]
        for attack in self.became:
            header, rows = self._table(attack)
            sizes = [max(map(len, column)) for column in zip(header, *rows)]
            lines += ["", *(_line(row, sizes) for row in (header, *rows))]
            lines.append(self._means(attack))
        return "\n".join(lines)

    def _repr_html_(self):
        parts = [display.html_paragraph(self._subject())]
        for attack in self.became:
            parts.append(display.html_table(*self._table(attack)))
            parts.append(display.html_paragraph(self._means(attack)))
        return "".join(parts)

    def _subject(self):
        return (
            f"{self.settings['images']} images. Rows: crafted on; columns: "
            "judged on. Of what a target has right, the share it gets wrong."
        )

    def _means(self, attack):
        return (
            f"On the source itself {percent(_plain(self.white_box(attack)))}, "
            f"on others {percent(_plain(self.transferred(attack)))}."
        )

    def _table(self, attack):
        """Header and rows of text."""
        return [attack, *self.settings["targets"]], [
            [source, *(percent(_plain(share)) for share in row)]
            for source, row in zip(
                self.settings["sources"], self.success(attack)
            )
        ]

    def _cells(self):
        images = self.right.sum(-1)
        cells = []
        for attack in self.became:
            success = self.success(attack)
            for i, source in enumerate(self.settings["sources"]):
                for j, target in enumerate(self.settings["targets"]):
                    low, high = None, None
                    if images[j]:
                        low, high = wilson_interval(success[i, j], images[j])
                    cells.append(
                        {
                            "attack": attack,
                            "source": source,
                            "target": target,
                            "success": _plain(success[i, j]),
                            "low": low,
                            "high": high,
                            "images": int(images[j]),
                            "blind": int(self.blind[attack][i].sum()),
                        }
                    )
        return cells

    def _square(self, attack):
        """`success` where targets are the sources too, which come first."""
        return self.success(attack)[: len(self.settings["targets"])]

    def _named(self, attack):
        if attack not in self.became:
            raise ValueError(
                f"`attack` must be one of {', '.join(self.became)}. "
                f"Received: {attack!r}"
            )
        return self.became[attack]


def _plain(number):
    return float(number) if np.isfinite(number) else None


def _line(row, sizes):
    name, *cells = row
    return "  ".join([name.ljust(sizes[0]), *map(str.rjust, cells, sizes[1:])])
