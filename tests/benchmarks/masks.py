"""The zoo of masks: what is true, what plain PGD sees, what a plan says.

    python3 -m pip install -e '.[demo]'
    python3 tests/benchmarks/masks.py --plan standard --images 200

Small networks, undefended behind each mask of `tests/masks.py`: at L-infinity
0.3 the truth is 0 %, or what an attack written by hand leaves. Prints a table
in Markdown, a row as soon as it is measured: PGD with 40 steps as an attacker
without a word of the mask would run it, the plan's accuracy, and the checks
that failed or warned.
"""

import argparse
import pathlib
import sys
import time

import keras

from keras_qsn import attacks
from keras_qsn import datasets
from keras_qsn._core.shares import percent
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import plans
from keras_qsn.report import summary

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import masks  # noqa: E402

EPS = 0.3
HEADER = [
    "mask",
    "truth",
    "PGD-40 alone",
    "plan",
    "failed checks",
    "warnings",
    "named as",
    "seconds",
]


def row(name, model, x, y, plan, left, detector):
    started = time.perf_counter()
    found = evaluate_robustness(
        model, x, y, EPS, plan=plan, verbose=0, detector=detector
    )
    seconds = time.perf_counter() - started
    pgd = attacks.ProjectedGradientDescent(EPS, nb_iter=40)
    plain = evaluate_robustness(
        *(model, x, y, EPS),
        plan=[pgd],
        checks=None,
        verbose=0,
        detector=detector,
    )
    by_status = {
        status: ", ".join(c.key for c in found.checks if c.status == status)
        for status in ("fail", "warn")
    }
    facts = dict(summary.facts(found))
    named = [
        facts[name]
        for name in (
            "Masked gradients",
            "Few bits",
            "Answers at random",
            "Detector",
        )
        if name in facts
    ]
    return [
        name,
        percent(left(model, x, y, EPS).mean()),
        percent(plain.robust_accuracy),
        percent(found.robust_accuracy),
        by_status["fail"] or "none",
        by_status["warn"] or "none",
        "; ".join(named) or "none",
        f"{seconds:.0f}",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plan", choices=plans.NAMES, default="standard")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--masks", nargs="*", default=[*masks.ZOO])
    options = parser.parse_args()
    digits = datasets.load("digits")
    few = slice(options.images)
    x, y = digits.x_test[few], digits.y_test[few]
    keras.utils.set_random_seed(0)
    undefended = masks.fit(masks.network(), digits)
    for cells in (HEADER, ["---"] * len(HEADER)):
        print(f"| {' | '.join(cells)} |")
    for name in options.masks:
        keras.utils.set_random_seed(0)
        member = masks.ZOO[name]
        model = member.make(undefended, digits)
        detector = member.detector(model, digits)
        cells = row(name, model, x, y, options.plan, member.left, detector)
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
