"""Table 1's worst cases beside what attacks written by hand leave.

    keras-qsn reproduce --quick --only table1 --out results
    python3 tests/benchmarks/table1.py results --quick

The attacks are those of `tests/adaptive_by_hand.py`, PGD on the margin with
100 steps and 3 restarts, which know each defence and nothing of the library.
They get the images of the worst case, and the networks that the run has kept.
Prints a Markdown table. A detector, and an image's way through a quantizer,
need attacks of their own: such lines are left out, or say what was followed.
"""

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import adaptive_by_hand
from keras_qsn import datasets
from keras_qsn.defenses import DynamicQuantizationActivation
from keras_qsn.paper import grid
from keras_qsn.paper import runner
from keras_qsn.paper.figures import table1
from keras_qsn.report import markdown_table


def answers(model, draws=1):
    """The class that most of so many draws give."""

    def judge(x):
        found = [np.asarray(model(x)).argmax(-1) for _ in range(draws)]
        votes = [(np.stack(found) == c).sum(0) for c in range(10)]
        return np.argmax(votes, 0)

    return judge


def by_hand(network, model, x, y, eps):
    """What is followed, as text, and the share of images left."""
    judge, logits, what = answers(model), model, "logits"
    if network.after == "signum":
        what = "identity behind each signum"
        logits = adaptive_by_hand.through_signs(
            model.layers,
            lambda q: isinstance(q, DynamicQuantizationActivation),
        )
    elif network.after == "random inhibition":
        what, judge = "mean of 10 draws", answers(model, 20)
        logits = adaptive_by_hand.mean_over_draws(model)
    left = adaptive_by_hand.left_by_pgd(logits, judge, x, y, eps)
    return what, float(left.mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="folder of the run")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", help="data set of a run that is not quick")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    scale = grid.QUICK if options.quick else grid.FULL
    name = options.data or scale.data[0]
    of = grid.Grid(scale, name, options.seed)
    kept = runner.KeptCells(pathlib.Path(options.out) / "cells")
    data, rows = datasets.load(name), []
    for row in table1.table1(of):
        worst = row.worst and kept.values(row.worst)
        if not worst or row.cell.network.detector:
            continue
        network = row.worst.network
        x, y = datasets.seeded_subset(
            data.x_test, data.y_test, row.worst.images, row.worst.seed
        )
        model = runner._model(kept.content(network))
        what, left = by_hand(network, model, x, y, of.eps)
        gap = 100 * (worst["accuracy"] - left)
        rows.append(
            [
                row.defence,
                what,
                len(x),
                f"{100 * left:.1f} %",
                f"{100 * worst['accuracy']:.1f} %",
                f"{gap:+.1f}",
            ]
        )
        print(rows[-1], file=sys.stderr, flush=True)
    header = ["defence", "followed", "images", "by hand", "worst case", "gap"]
    print(markdown_table(header, rows, "llrrrr"))


if __name__ == "__main__":
    main()
