"""Which training leaves most images right at eps 0.3?

    python3 tests/benchmarks/record.py all
    python3 tests/benchmarks/record.py 3x3-warp-ema --out results/record
    python3 tests/benchmarks/record.py --table

Trains networks behind one threshold by `certified.py`, on one thread, each as
`TRIES` has it, and attacks them on 1,000 of the 5,000 held-out training
images, drawn by seed 0: where choices are made, and no figure of the test set;
the first 100 of them are proved too. One line of JSON a try goes to
`record.jsonl` beside this file. The same command goes on where it was, to the
same weights.
"""

import argparse
import json
import pathlib
import time

import certified
import numpy as np
import tensorflow as tf

from keras_qsn._core.precision import fast_dtype
from keras_qsn.attacks import CubeAttack
from keras_qsn.attacks import SquareAttack
from keras_qsn.certification import certify
from keras_qsn.report import markdown_table

RESULTS = pathlib.Path(__file__).with_suffix(".jsonl")

# Options of `certified.py` that all tries have, and those of each.
ALL = """
    --data mnist --eps 0.3 --thresholds 0.43 --method attacked --steps 3
    --optimizer muon --lr 0.002 --batch-size 64
    --network 3x3 --epochs 8 --threads 1 --judged 1000
"""
# Held-out images that are proved, and seconds for each.
PROVED = 100
TIME_LIMIT = 5.0
TRIES = {
    "3x3-warp-ema": "--warp --ema 0.995",
    "3x3-warp-ema-16": "--warp --ema 0.995 --epochs 16",
    "3x3-warp-ema-interval1": (
        "--warp --ema 0.995 --method mixed --clean-share 0.99 --regularizer 0"
    ),
    "3x3-warp-ema-interval3": (
        "--warp --ema 0.995 --method mixed --clean-share 0.97 --regularizer 0"
    ),
    "3x3-ema-interval5-20": (
        "--ema 0.998 --epochs 20 --ramp 7"
        " --method mixed --clean-share 0.95 --regularizer 0"
    ),
    "paper-ema-interval10-28": (
        "--network paper --ema 0.998 --epochs 28 --ramp 10"
        " --method mixed --clean-share 0.9 --regularizer 0"
    ),
    "paper-sharp-warp-ema-interval10-28": (
        "--network paper --ema 0.998 --epochs 28 --ramp 10"
        " --warp --contrast 1.5"
        " --method mixed --clean-share 0.9 --regularizer 0"
    ),
    "wide-ema-interval10-16": (
        "--network wide --ema 0.998 --epochs 16 --ramp 7"
        " --method mixed --clean-share 0.9 --regularizer 0"
    ),
    "wide-ema-interval10-32": (
        "--network wide --ema 0.998 --epochs 32 --ramp 10"
        " --method mixed --clean-share 0.9 --regularizer 0"
    ),
    "3x3-plain": "",
    "3x3-20k-warp-ema-interval1": (
        "--train-images 20000 --warp --ema 0.995"
        " --method mixed --clean-share 0.99 --regularizer 0"
    ),
    "3x3-20k-warp-ema-interval3": (
        "--train-images 20000 --warp --ema 0.995"
        " --method mixed --clean-share 0.97 --regularizer 0"
    ),
    "3x3-20k-warp-ema-interval10": (
        "--train-images 20000 --warp --ema 0.995"
        " --method mixed --clean-share 0.9 --regularizer 0"
    ),
    "3x3-20k-warp-ema-interval5": (
        "--train-images 20000 --warp --ema 0.995"
        " --method mixed --clean-share 0.95 --regularizer 0"
    ),
    "3x3-20k-warp-ema-interval10-box50": (
        "--train-images 20000 --warp --ema 0.995"
        " --method mixed --clean-share 0.9 --regularizer 0 --box-share 0.5"
    ),
    "3x3-20k-ema-interval10": (
        "--train-images 20000 --ema 0.995"
        " --method mixed --clean-share 0.9 --regularizer 0"
    ),
    "3x3-20k-ema-interval30": (
        "--train-images 20000 --ema 0.995"
        " --method mixed --clean-share 0.7 --regularizer 0"
    ),
    "paper-20k-ema-interval10": (
        "--train-images 20000 --ema 0.995 --network paper"
        " --method mixed --clean-share 0.9 --regularizer 0"
    ),
    "3x3-20k-plain": "--train-images 20000 --epochs 4",
    "3x3-20k-warp": "--train-images 20000 --epochs 4 --warp",
    "3x3-20k-ema": "--train-images 20000 --epochs 4 --ema 0.995",
    "3x3-20k-warp-ema": "--train-images 20000 --epochs 4 --warp --ema 0.995",
    "5x5-warp-ema": "--warp --ema 0.995 --network 5x5",
}


def attacks(eps, seed):
    """What a try is judged by, one after the other on what is left."""
    yield "cube", CubeAttack(eps, nb_iter=20, nb_restarts=3, seed=seed)
    yield "square", SquareAttack(eps, nb_queries=1000, seed=seed)


def judge(model, x, y, options):
    """Shares of the images: right, proved by intervals, left by attacks.

    And of the first `PROVED` of them, proved and broken by branching.
    """
    start = time.process_time()
    bounds = certify(model, x, y, options.eps, methods="interval", verbose=0)
    found = {
        "images": len(x),
        "weights": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
        "clean": bounds.clean_accuracy,
        "interval": bounds.certified_accuracy,
    }
    left = bounds.status != "misclassified"
    for name, attack in attacks(options.eps, options.seed):
        rows = np.flatnonzero(left)
        if len(rows):
            result = attack.run(model, x[rows], y[rows], verbose=0)
            left[rows] = ~result.success
        found[f"left by {name}"] = float(left.mean())
    first = slice(PROVED)
    whole = certify(
        model, x[first], y[first], options.eps, time_limit=TIME_LIMIT, verbose=0
    )
    found["proved"] = whole.certified_accuracy
    found["not broken"] = whole.possible_accuracy
    return found | {"judge processor seconds": time.process_time() - start}


def attempt(name, out):
    """Train and judge one try; its line of JSON."""
    own = [*ALL.split(), "--product-dtype", fast_dtype(), *TRIES[name].split()]
    options = certified.parser().parse_args([*own, "--out", out])
    x, y = certified.training_images(options)
    folder = certified.folder_of(options)
    model, seconds = certified.train(options, x, y, folder)
    return {
        "try": name,
        "options": " ".join(own),
        "trained on": len(x),
        "judged on": "held-out training images",
        "training seconds": seconds[0],
        "processor seconds": seconds[1],
        **judge(model, *certified.judged_images(options), options),
    }


def lines():
    """Results so far, a line of JSON each."""
    return RESULTS.read_text().splitlines() if RESULTS.exists() else []


def results():
    found = map(json.loads, lines())
    return {line["try"]: line for line in found}


def table():
    """All tries so far, the best first, as Markdown."""
    shares = (
        *("clean", "interval", "left by cube", "left by square"),
        *("proved", "not broken"),
    )
    found = sorted(results().values(), key=lambda line: -line["left by square"])
    return markdown_table(
        [
            *("try", "weights", "trained on", "held-out images"),
            *(*shares, "processor minutes"),
        ],
        [
            [
                line["try"],
                f"{line['weights']:,}",
                f"{line['trained on']:,}",
                f"{line['images']:,}",
                *(f"{100 * line[share]:.2f} %" for share in shares),
                f"{line['processor seconds'] / 60:.0f}",
            ]
            for line in found
        ],
        "l" + "r" * 10,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tries", nargs="*", metavar="TRY")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", default="results/record")
    given = parser.parse_args()
    unknown = {*given.tries} - {*TRIES, "all"}
    if unknown:
        parser.error(f"choose from {', '.join(TRIES)}, all; not {unknown}")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for name in TRIES if "all" in given.tries else given.tries:
        if name in results():
            continue
        line = json.dumps(attempt(name, given.out))
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(line + "\n")
    if given.table:
        print(table())


if __name__ == "__main__":
    main()
