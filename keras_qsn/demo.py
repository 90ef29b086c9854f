"""The main job: train the paper's defences, attack them, show what is left.

Five networks: undefended, CQ, TQ, and Fig. 5's pair, the undefended network
and TQ trained adversarially. Each is measured on clean images, under
white-box FGSM and PGD, and black-box on examples crafted on the undefended
network; the figure that counts is the worst case per image. The cells are
those of the figures `demo` and `demo-eps` of `paper`.
"""

import dataclasses
import pathlib

import numpy as np

from keras_qsn import datasets
from keras_qsn import report
from keras_qsn._core.files import write_bytes
from keras_qsn._core.kept import versions
from keras_qsn._core.kept import work_folder
from keras_qsn.paper import runner
from keras_qsn.paper.figures import showcase
from keras_qsn.paper.grid import FULL
from keras_qsn.paper.grid import Grid
from keras_qsn.paper.plots import image_row
from keras_qsn.version import __version__

COLUMNS = {
    "clean": "clean",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "black_box_fgsm": "black-box FGSM",
    "black_box_pgd": "black-box PGD",
    "worst_case": "worst case",
}


_SCALE = dataclasses.replace(FULL, images=1000, watched=False)
_QUICK = dataclasses.replace(
    _SCALE,
    epochs=2,
    train_images=2000,
    images=200,
    few_images=64,
    pgd="PGD-10",
)


def grid_for(data="digits", quick=False, seed=0):
    """The `Grid` with the demo's cells; `quick` is a smoke test."""
    return Grid(_QUICK if quick else _SCALE, data, seed)


def run(grid, out, data_dir=None, progress=None, show=None):
    """Run the demo, or go on where an earlier run of it stopped.

    Args:
        grid: A `Grid`.
        out: Results folder. Receives `results.json`, `results.md`,
            `accuracy.png`, `images.png` and the trained models, and keeps
            what is finished in `cells`.
        data_dir: Optional folder with the data set's file.
        progress: Optional function called with a line of text for each
            finished cell, the work done, and all of it.
        show: Optional function of the results, called before the tables and
            plots are written: a full disk does not keep them from being seen.

    Returns:
        The content of `results.json`.

    Raises:
        OSError: If the folder cannot be written.
        RuntimeError: If a network cannot be trained or attacked.
        ValueError: If the folder holds other files, a run with other
            settings, or one of another version.
    """
    columns, curves = showcase.columns(grid), showcase.curves(grid)
    wanted = []
    for name in columns:
        wanted += columns[name].values()
        wanted += (c for line in curves[name].values() for c in line.values())
    settings = _settings(grid)
    # Missing data are said before any work.
    datasets.load(grid.data, data_dir)
    with work_folder(out, {"demo": settings, "versions": versions()}):
        out = pathlib.Path(out)
        folder = out / "cells"
        finished = runner.run(wanted, folder, data_dir, progress=progress)
        if finished.failures:
            raise RuntimeError([*finished.failures.values()][0])
        results = _results(grid, columns, curves, finished)
        if show is not None:
            show(results)
        for name, network in showcase.defences(grid).items():
            path = out / f"{name.replace(' ', '-')}.keras"
            write_bytes(path, finished.kept.content(network))
        report.write_text(out / "results.md", _markdown(results))
        report.write_figure(out / "accuracy.png", _accuracy_figure(results))
        images = _image_figure(columns, finished)
        report.write_figure(out / "images.png", images)
        report.write_json(out / "results.json", results)
    return results


def table(results):
    """Header and rows of the demo's table, as text."""
    header = ["defence", *COLUMNS.values()]
    rows = [
        [name, *(report.percent(measured[column]) for column in COLUMNS)]
        for name, measured in results["defences"].items()
    ]
    return header, rows


def caption(results):
    """What the table's figures were measured on."""
    s = results["settings"]
    return (
        f"Accuracy on {results['images']['test']} test images of "
        f"{results['data']}; L-infinity, eps {s['eps']}, PGD {s['nb_iter']} "
        "steps with one random start, through the exact gradient, seed "
        f"{s['seed']}. Black-box: examples crafted on the undefended network. "
        "Worst case: per image, over the columns. No adaptive attack was "
        "run: the true figures of quantized networks can only be lower."
    )


def _settings(grid):
    """Everything that decides the demo's numbers."""
    scale = grid.scale
    return {
        "data": grid.data,
        "eps": grid.eps,
        "epochs": scale.epochs,
        "num_levels": 2,
        "nb_iter": 10 if scale.pgd == "PGD-10" else 40,
        "images": scale.images,
        "sweep_images": scale.few_images,
        "train_images": scale.train_images,
        "seed": grid.seed,
    }


def _results(grid, columns, curves, finished):
    any_cell = columns["undefended"]["fgsm"]
    trained = finished.values[any_cell.network]
    defences = {
        name: {
            **_shares(cells, finished),
            "curves": _points(grid, cells, curves[name], finished),
        }
        for name, cells in columns.items()
    }
    return {
        "version": __version__,
        "settings": _settings(grid),
        "defences": defences,
        "data": trained["data"],
        "images": {
            "train": trained["train_images"],
            "test": finished.values[any_cell]["images"],
        },
        "notes": _notes(defences),
        "complete": True,
    }


def _shares(cells, finished):
    """One row of the table, `None` where there is nothing to measure."""
    arrays = {name: finished.kept.content(c) for name, c in cells.items()}
    survived = {name: kept["survived"] for name, kept in arrays.items()}
    survived["clean"] = arrays["fgsm"]["correct"]
    survived["worst_case"] = np.logical_and.reduce([*survived.values()])
    shares = {name: float(each.mean()) for name, each in survived.items()}
    return {column: shares.get(column) for column in COLUMNS}


def _points(grid, cells, curves, finished):
    """Accuracy against eps for each attack; at 0 it is that on clean images."""
    correct = finished.kept.content(cells["fgsm"])["correct"]
    clean = float(correct[: grid.scale.few_images].mean())
    return {
        attack: [[0.0, clean]]
        + [[eps, finished.values[c]["accuracy"]] for eps, c in line.items()]
        for attack, line in curves.items()
    }


def _notes(defences):
    """Signs of masked gradients, in words."""
    notes = []
    for name, measured in defences.items():
        black_box = measured["black_box_pgd"], measured["black_box_fgsm"]
        if None not in black_box and min(black_box) < measured["pgd"]:
            notes.append(
                f"{name}: black-box examples do more harm "
                f"({report.percent(min(black_box))} left) than white-box PGD "
                f"({report.percent(measured['pgd'])}). Its gradient is "
                "masked; the white-box figures are not its robustness."
            )
        if measured["fgsm"] < measured["pgd"] - 0.005:
            notes.append(
                f"{name}: one step ({report.percent(measured['fgsm'])} left) "
                f"beats many ({report.percent(measured['pgd'])}). The "
                "gradient misleads PGD."
            )
    return notes


def _markdown(results):
    notes = "".join(f"- {note}\n" for note in results["notes"])
    return (
        "# keras-qsn demo\n\n"
        f"{report.markdown_table(*table(results))}\n\n"
        f"{caption(results)}\n\n"
        + (f"Signs of masked gradients:\n\n{notes}\n" if notes else "")
        + "![accuracy against eps](accuracy.png)\n\n"
        "![clean and adversarial images](images.png)\n"
    )


def _accuracy_figure(results):
    count = min(results["settings"]["sweep_images"], results["images"]["test"])
    curves = {
        attack: {
            name: measured["curves"][attack]
            for name, measured in results["defences"].items()
        }
        for attack in ("FGSM", "PGD")
    }
    return report.plot_accuracy(
        curves, 0.1, f"White-box, {count} test images, {results['data']}"
    )


def _image_figure(columns, finished):
    return report.plot_images(
        {
            name: image_row(finished.kept.content(cells["pgd"]), "PGD")
            for name, cells in columns.items()
        },
        "Clean and PGD images with the predicted class; as seen: what the "
        "network gets behind its quantizer",
    )
