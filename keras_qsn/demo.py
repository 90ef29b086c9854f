"""The main job: train the paper's defences, attack them, show what is left.

Six networks: undefended, CQ, CQ with hard levels, TQ, and Fig. 5's pair, the
undefended network and TQ trained adversarially. Each is measured on clean
images, under white-box FGSM and PGD, on examples crafted on the undefended
network, and, behind a quantizer, under attacks that know of it; the figure
that counts is the worst case per image. What of the hard network can be
proved stands beside it. The cells are those of the figures `demo` and
`demo-eps` of `paper`.
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
from keras_qsn.paper.cells import Proved
from keras_qsn.paper.figures import showcase
from keras_qsn.paper.grid import FULL
from keras_qsn.paper.grid import Grid
from keras_qsn.paper.plots import image_row
from keras_qsn.version import __version__

COLUMNS = {
    "clean": "clean",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "transfer": "transfer",
    "adaptive": "adaptive",
    "worst_case": "worst case",
    "proved": "proved",
}
# Columns of several attacks, of which each image counts in the worst case.
_TOGETHER = {
    "transfer": ("black_box_fgsm", "black_box_pgd"),
    "adaptive": ("bpda", "cube"),
}

_SCALE = dataclasses.replace(FULL, images=250, few_images=60, watched=False)
_QUICK = dataclasses.replace(
    _SCALE,
    epochs=2,
    train_images=2000,
    images=100,
    few_images=30,
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
    proofs = showcase.proofs(grid)
    wanted = [*proofs.values()]
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
        results = _results(grid, columns, curves, proofs, finished)
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
        [name, *(_number(measured[column]) for column in COLUMNS)]
        for name, measured in results["defences"].items()
    ]
    return header, rows


def _number(share):
    """A share in percent: with a sign in each cell, 80 columns are too few."""
    return report.percent(share).removesuffix(" %")


def caption(results):
    """What the table's figures were measured on."""
    s, images = results["settings"], results["images"]
    return (
        f"Accuracy in percent, of {images['test']} test images of "
        f"{results['data']}, drawn by seed {s['seed']}; L-infinity, eps "
        f"{s['eps']}. PGD: "
        f"{s['nb_iter']} steps, one random start, through the exact gradient. "
        "Transfer: FGSM and PGD examples of the undefended network. Adaptive: "
        "PGD through the quantizer as if it were the identity (BPDA), and "
        "CubeAttack, on the levels behind it. Worst case: per image, over all "
        f"of these. Proved: for the first {images['proved']} of the images, "
        f"with at most {s['proof_seconds']} s of search for each; the truth "
        "lies between it and the worst case."
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
        "proof_seconds": Proved.seconds,
        "train_images": scale.train_images,
        "seed": grid.seed,
    }


def _results(grid, columns, curves, proofs, finished):
    any_cell = columns["undefended"]["fgsm"]
    trained = finished.values[any_cell.network]
    defences = {
        name: {
            **_shares(cells, proofs.get(name), finished),
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
            "proved": finished.values[[*proofs.values()][0]]["images"],
        },
        "notes": _notes(defences),
        "conclusions": _conclusions(defences),
        "complete": True,
    }


def _shares(cells, proof, finished):
    """One row of the table, `None` where there is nothing to measure."""
    arrays = {name: finished.kept.content(c) for name, c in cells.items()}
    survived = {name: kept["survived"] for name, kept in arrays.items()}
    survived["clean"] = arrays["fgsm"]["correct"]
    worst = np.logical_and.reduce([*survived.values()])
    for together, parts in _TOGETHER.items():
        ran = [survived.pop(part) for part in parts if part in survived]
        if ran:
            survived[together] = np.logical_and.reduce(ran)
    shares = {name: float(each.mean()) for name, each in survived.items()}
    shares["worst_case"] = float(worst.mean())
    if proof is not None:
        certified = finished.kept.content(proof)["certified"]
        if (certified & ~worst[: len(certified)]).any():
            raise RuntimeError(
                "An attack broke an image that is certified: the proof or the "
                "attack is wrong. Please report it, with the results folder."
            )
        shares["proved"] = float(certified.mean())
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
    """Where white-box PGD overstates what is left, in words."""
    notes = []
    for name, measured in defences.items():
        percent = {c: report.percent(measured[c]) for c in COLUMNS}
        for column, what in (
            ("transfer", "examples of another network do more harm"),
            ("adaptive", "attacks that know of the quantizer do more harm"),
        ):
            left = measured[column]
            if left is not None and left < measured["pgd"] - 0.005:
                notes.append(
                    f"{name}: {what} ({percent[column]} left) than white-box "
                    f"PGD ({percent['pgd']}), which overstates what is left."
                )
        if measured["fgsm"] < measured["pgd"] - 0.005:
            notes.append(
                f"{name}: one step ({percent['fgsm']} left) beats many "
                f"({percent['pgd']}). The gradient misleads PGD."
            )
    return notes


def _conclusions(defences):
    """The three things to read off the table."""
    percent = {
        name: {c: report.percent(measured[c]) for c in COLUMNS}
        for name, measured in defences.items()
    }
    trained, quantized = percent["adversarial"], percent["CQ"]
    hard = percent["CQ, hard"]
    return [
        f"One attack says little: trained on FGSM examples, the network keeps "
        f"{trained['fgsm']} under FGSM and {trained['worst_case']} in the "
        "worst case.",
        f"Count all attacks, image by image: white-box PGD leaves CQ "
        f"{quantized['pgd']}, all together {quantized['worst_case']}; an "
        f"undefended network keeps {percent['undefended']['worst_case']}.",
        f"What attacks leave is not proved: of the hard network "
        f"{hard['worst_case']} is left and {hard['proved']} proved. Training "
        "for the proof closes the gap: see the notebook on certificates.",
    ]


def _markdown(results):
    notes, read = (
        "".join(f"- {line}\n" for line in results[key])
        for key in ("notes", "conclusions")
    )
    return (
        "# keras-qsn demo\n\n"
        f"{report.markdown_table(*table(results))}\n\n"
        f"{caption(results)}\n\n"
        + (f"Where PGD says too much:\n\n{notes}\n" if notes else "")
        + f"What to read off:\n\n{read}\n"
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
