"""What the demo's cells say: the content of `results.json`."""

import numpy as np

from keras_qsn import report
from keras_qsn.paper.cells import Proved
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


def settings_of(grid):
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


def results_of(grid, columns, curves, proofs, finished):
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
        "settings": settings_of(grid),
        "defences": defences,
        "data": trained["data"],
        "images": {
            "train": trained["train_images"],
            "test": finished.values[any_cell]["images"],
            "proved": finished.values[[*proofs.values()][0]]["images"],
        },
        "notes": notes_on(defences),
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


def notes_on(defences):
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
