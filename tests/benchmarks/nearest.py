"""Our nearest adversarial examples beside those of adversarial-library.

    python3 -m pip install -e '.[demo,peers]'
    python3 tests/benchmarks/nearest.py [--steps 100] [--images 200]

Writes `nearest.md`, or `nearest-STEPS.md`, beside this file. Model, weights and
images are those of `peers.py`. All attacks take as many steps, and what each
costs is counted, not believed: images that go through the network, forwards and
backwards. Distances are measured by this script, and are infinite where the
model that was attacked is not fooled.
"""

import argparse
import functools
import importlib.metadata
import os
import pathlib
import platform
import time

import numpy as np
import torch
from adv_lib import attacks as peers
from libraries import BATCH
from libraries import channels_first
from libraries import channels_last
from libraries import in_batches
from libraries import torch_twin
from peers import images_it_knows
from peers import trained_model

from keras_qsn import attacks
from keras_qsn import datasets
from keras_qsn import report
from keras_qsn.evaluation import minimal_distances

HEADER = ["norm", "attack", "library", "success", "median", "mean"]
HEADER += ["forward", "backward", "s / image"]
PACKAGES = ["tensorflow", "keras", "torch", "adv-lib"]
NAMES = {np.inf: "L∞", 2: "L2", 1: "L1", 0: "L0"}


def ours(norm, steps):
    """Our attacks by name."""
    found = {"FMN": attacks.FastMinimumNorm(norm, steps)}
    if norm == 2:
        found["DDN"] = attacks.DecoupledDirectionNorm(steps)
    if norm == 0:
        found["sigma-zero"] = attacks.SigmaZero(steps)
    return found


def theirs(norm, steps):
    """Theirs: functions of a model, images and labels."""
    part = functools.partial
    found = {"FMN": part(peers.fmn, norm=norm, steps=steps)}
    if norm == 2:
        # Not rounded to 256 levels, as ours.
        found["DDN"] = part(peers.ddn, steps=steps, levels=None)
    if norm in (2, 1):
        found["ALMA"] = part(peers.alma, distance=f"l{norm}", num_steps=steps)
    if norm == 1:
        found["PDPGD"] = part(peers.pdpgd, norm=norm, num_steps=steps)
    if norm == 0:
        found["sigma-zero"] = part(peers.sigma_zero, num_steps=steps)
    return found


def measured(attack, twin, norm, x, y):
    """Distances, passes and seconds of an attack of theirs."""
    passes = np.zeros(2)

    def forward(module, inputs, outputs):
        passes[0] += len(outputs)
        if outputs.requires_grad:
            outputs.register_hook(backward)

    def backward(slope):
        passes[1] += len(slope)

    def generate(x, y):
        labels = torch.tensor(y, dtype=torch.long)
        return channels_last(attack(twin, channels_first(x), labels))

    def classes(x, _):
        with torch.no_grad():
            return twin(channels_first(x)).argmax(-1).numpy()

    hook = twin.register_forward_hook(forward)
    started = time.perf_counter()
    x_adv = in_batches(generate)(x, y)
    seconds = time.perf_counter() - started
    hook.remove()
    delta = x_adv.astype("float64") - x
    far = np.linalg.norm(delta.reshape(len(x), -1), norm, axis=1)
    far[in_batches(classes)(x_adv, y) == y] = np.inf
    return far, passes / len(x), seconds


def rows_of(norm, steps, model, twin, x, y):
    """The table's rows of a norm, and the medians of ours and of theirs."""
    rows, medians = [], ([], [])

    def add(name, library, far, passes, seconds):
        hit = np.isfinite(far)
        rows.append(
            [
                NAMES[norm],
                name,
                library,
                f"{100 * hit.mean():.1f} %",
                f"{np.median(far):.4g}",
                f"{far[hit].mean():.4g}",
                *(f"{count:.0f}" for count in passes),
                f"{seconds / len(x):.4f}",
            ]
        )
        print(" | ".join(rows[-1]), flush=True)
        medians[library != "keras_qsn"].append(np.median(far))

    for name, attack in ours(norm, steps).items():
        few = x[:BATCH], y[:BATCH]
        # Once to compile.
        minimal_distances(model, *few, norm, [attack], verbose=0)
        result = minimal_distances(model, x, y, norm, [attack], verbose=0)
        (found,) = result.found
        passes = found.forward, found.backward
        add(name, "keras_qsn", found.distances, passes, found.seconds)
    for name, attack in theirs(norm, steps).items():
        found = measured(attack, twin, norm, x, y)
        add(name, "adversarial-library", *found)
    return rows, [min(part) for part in medians]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    data = datasets.load("digits")
    model = trained_model(data)
    x, y = images_it_knows(model, data)
    x, y = x[: options.images], y[: options.images]
    twin = torch_twin(model, x[:BATCH])
    torch.manual_seed(0)
    rows, ratios = [], []
    for norm in NAMES:
        more, best = rows_of(norm, options.steps, model, twin, x, y)
        rows += more
        ratios.append(f"{NAMES[norm]} {best[0] / best[1]:.3f}")
    own = "" if options.steps == 100 else f"-{options.steps}"
    command = "python3 tests/benchmarks/nearest.py"
    command += f" --steps {options.steps} --images {options.images}"
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in PACKAGES
    )
    report.write_text(
        pathlib.Path(__file__).with_name(f"nearest{own}.md"),
        f"# The nearest examples, beside adversarial-library's\n\nMade by "
        f"`{command}`: Cleverhans CNN, 6 epochs on {data.description}; "
        f"{len(x)} test images it classifies correctly, in a random order, "
        "seed 0. The median is over all images, infinite where most have no "
        "example, the mean over those that have one. Passes are of one image, "
        "counted. Our best median over their best: "
        f"{', '.join(ratios)}. One run on {os.cpu_count()} cores "
        f"({platform.machine()}), shared with other work: read times as "
        f"ratios at most. {versions}.\n\n"
        + report.markdown_table(HEADER, rows)
        + "\n",
    )


if __name__ == "__main__":
    main()
