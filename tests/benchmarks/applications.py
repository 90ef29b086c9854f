"""Processor time of the quick plan on real networks, here and before.

    python tests/benchmarks/applications.py --before ../checkout-before

Each network of `keras.applications`, with random weights, is evaluated on a
few images of 96x96 in a process of its own, in this checkout and in the one
before. Counted is what `evaluate_robustness` alone takes of all processors.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parents[2]

# Each with its range of pixels: some rescale inside.
NETWORKS = {
    "MobileNetV2": (0.0, 1.0),
    "ResNet50": (0.0, 1.0),
    "EfficientNetV2B0": (0.0, 255.0),
}

# Run in both checkouts, so it knows both words for the range of pixels.
SCRIPT = """
import inspect, json, sys, time
import keras, numpy as np
from keras_qsn.evaluation import evaluate_robustness

name, low, high, images = json.loads(sys.argv[1])
keras.utils.set_random_seed(0)
model = getattr(keras.applications, name)(
    weights=None, classes=10, input_shape=(96, 96, 3)
)
rng = np.random.default_rng(0)
x = rng.uniform(low, high, (images, 96, 96, 3)).astype("float32")
y = np.asarray(model(x, training=False)).argmax(-1)
scale = {"value_range": (low, high)}
if "value_range" not in inspect.signature(evaluate_robustness).parameters:
    scale = {"clip_min": low, "clip_max": high}
started = time.process_time()
found = evaluate_robustness(
    model, x, y, 8 / 255 * (high - low), plan="quick", verbose=0, **scale
)
print(json.dumps([time.process_time() - started, found.robust_accuracy]))
"""


def seconds(checkout, name, images):
    """Processor time of one evaluation, and the accuracy it found."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT,
            json.dumps([name, *NETWORKS[name], images]),
        ],
        # The working folder comes before any other path.
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{name} in {checkout} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--before", type=pathlib.Path, help="a checkout to compare with"
    )
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS]
    )
    options = parser.parse_args()
    for name in options.networks:
        now, left = seconds(HERE, name, options.images)
        print(f"{name}: {now:.0f} s, robust {left:.2f}", flush=True)
        if options.before:
            before, left = seconds(
                options.before.resolve(), name, options.images
            )
            print(
                f"{name}, before: {before:.0f} s, robust {left:.2f}; "
                f"{before / now:.1f} times as much",
                flush=True,
            )


if __name__ == "__main__":
    main()
