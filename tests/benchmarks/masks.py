"""The zoo of masks: what is true, what plain PGD sees, what a plan says.

    python3 -m pip install -e '.[demo]'
    python3 tests/benchmarks/masks.py [--plan standard] [--images 100]

Writes `masks.json` and `masks.md`, or `masks-PLAN.json` and so on, beside this
file, a row as soon as it is measured; the same command goes on after the last
one. Small networks, undefended behind each mask of `tests/masks.py`: at
L-infinity 0.3 the truth is 0 %, or what an attack written by hand leaves. A row
holds what an attacker without a word of the mask would see by PGD with 40
steps, the plan's accuracy, and which of its checks failed or warned.
"""

import argparse
import importlib.metadata
import json
import pathlib
import sys
import time

import keras
import numpy as np

from keras_qsn import attacks
from keras_qsn import datasets
from keras_qsn import report
from keras_qsn._core.shares import percent
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import plans
from keras_qsn.report import summary
from keras_qsn.version import __version__

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import masks  # noqa: E402

EPS, SEED = 0.3, 0
# Facts of a report that name a mask.
NAMING = ("Masked gradients", "Few bits", "Answers at random", "Detector")
HEADER = ["mask", "clean", "truth", "PGD-40 alone", "plan"]
HEADER += ["failed checks", "warnings", "named as", "processor s"]
ALIGN = "lrrrrlllr"
PACKAGES = ["tensorflow", "keras"]


def measured(name, undefended, digits, x, y, plan):
    """The plain values of a row."""
    keras.utils.set_random_seed(SEED)
    member = masks.ZOO[name]
    model = member.make(undefended, digits)
    detector = member.detector(model, digits)
    given = {"verbose": 0, "seed": SEED, "detector": detector}
    started = time.process_time()
    found = evaluate_robustness(model, x, y, EPS, plan=plan, **given)
    seconds = time.process_time() - started
    alone = [attacks.ProjectedGradientDescent(EPS, nb_iter=40)]
    plain = evaluate_robustness(
        model, x, y, EPS, plan=alone, checks=None, **given
    )
    facts = dict(summary.facts(found))
    return {
        "mask": name,
        "clean": found.clean_accuracy,
        "truth": float(member.left(model, x, y, EPS).mean()),
        "truth_is_a_bound": member.left is not masks.nothing,
        "pgd": plain.robust_accuracy,
        "plan": found.robust_accuracy,
        **{
            status: [c.key for c in found.checks if c.status == status]
            for status in ("fail", "warn")
        },
        "named": {name: facts[name] for name in NAMING if name in facts},
        "processor_seconds": seconds,
    }


def cells(row):
    """A row as text."""
    # Below nothing there is nothing.
    bound = row["truth_is_a_bound"] and row["truth"] > 0
    return [
        row["mask"],
        percent(row["clean"]),
        ("≤ " if bound else "") + percent(row["truth"]),
        percent(row["pgd"]),
        percent(row["plan"]),
        *(", ".join(row[status]) or "none" for status in ("fail", "warn")),
        # As far as it names the mask; the rest stands in the report.
        "; ".join(
            f"{name}: {value.split(';')[0].split(':')[0]}"
            if name in ("Answers at random", "Detector")
            else f"{name}: {value}"
            for name, value in row["named"].items()
        )
        or "none",
        f"{row['processor_seconds']:.0f}",
    ]


def kept(path, settings):
    """The rows that an earlier run of the same settings has measured."""
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["rows"] if found["settings"] == settings else []


def write(path, settings, rows, description):
    """Keep the rows, and make a page of them."""
    report.write_json(path, {"settings": settings, "rows": rows})
    command = (
        f"python3 tests/benchmarks/masks.py --plan {settings['plan']} "
        f"--images {settings['images']}"
    )
    versions = ", ".join(f"{k} {v}" for k, v in settings["versions"].items())
    report.write_text(
        path.with_suffix(".md"),
        f"# What masks hide, and what a plan says\n\nMade by `{command}`: "
        f"small networks, undefended behind each mask, trained on "
        f"{description}; {settings['images']} test images drawn by seed "
        f"{settings['seed']}, the same share of each class, none of those that "
        f"a detector is fitted on; L∞, eps {settings['eps']:g}, seed "
        f"{settings['seed']}; plan `{settings['plan']}` with all its checks, "
        "without a word of the mask. The truth is 0 % by construction; of the "
        "two ensembles it is what an attack written by hand leaves, an upper "
        "bound: ≤, where that is above 0. PGD alone: 40 steps of the model's "
        "own gradient, judged as the plan is. Where the answers are random an "
        "image is right if half of 100 answers are. Processor seconds of the "
        "plan and its checks, compiling included; the machine was shared. "
        f"{versions}.\n\n"
        + report.markdown_table(HEADER, map(cells, rows), ALIGN)
        + "\n",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plan", choices=plans.NAMES, default="standard")
    parser.add_argument("--images", type=int, default=100)
    options = parser.parse_args()
    digits = datasets.load("digits")
    # Detectors are fitted on every seventh.
    others = np.arange(len(digits.y_test)) % 7 != 1
    x, y = datasets.stratified_subset(
        digits.x_test[others], digits.y_test[others], options.images, SEED
    )
    settings = {
        "plan": options.plan,
        "images": options.images,
        "norm": "inf",
        "eps": EPS,
        "seed": SEED,
        "versions": {
            "keras_qsn": __version__,
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }
    own = "" if options.plan == "standard" else f"-{options.plan}"
    path = pathlib.Path(__file__).with_name(f"masks{own}.json")
    rows = kept(path, settings)
    finished = {row["mask"] for row in rows}
    keras.utils.set_random_seed(SEED)
    undefended = masks.fit(masks.network(), digits)
    for name in masks.ZOO:
        if name not in finished:
            given = undefended, digits, x, y, options.plan
            rows.append(measured(name, *given))
            write(path, settings, rows, digits.description)
            print(" | ".join(cells(rows[-1])), flush=True)


if __name__ == "__main__":
    main()
