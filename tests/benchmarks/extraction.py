"""Copies of one victim, by our attacks and by ART's, with the same queries.

    python3 -m pip install -e '.[demo,peers]'
    python3 tests/benchmarks/extraction.py [--data mnist] [--budget 10000]

Writes `extraction.md`, or `extraction-mnist.md`, beside this file. A small CNN
is trained on two thirds of the training images; the others are asked about,
and agreement is measured on the test set. All copies are that CNN from the
same new weights, trained in batches of 64 by Adam; ours for as many epochs as
ART's, and for half of them. ART gets our learning rate and Keras' own, and the
better copy counts. With `--art-defaults` ART's own batches of one image, too.
"""

import argparse
import functools
import importlib.metadata
import os
import pathlib
import platform
import time

import keras
import numpy as np
from art.attacks.extraction import CopycatCNN
from art.attacks.extraction import KnockoffNets
from art.estimators.classification import TensorFlowV2Classifier
from networks import small as cnn

from keras_qsn import datasets
from keras_qsn import extraction
from keras_qsn import report
from keras_qsn.models import KerasModelWrapper

BATCH = 64
RATES = (0.003, 0.001)
HEADER = ["attack", "answers", "library", "queries", "agreement", "seconds"]
FILES = {"digits": "extraction.md", "mnist": "extraction-mnist.md"}
PACKAGES = ["tensorflow", "keras", "adversarial-robustness-toolbox"]


def trained_victim(x, y):
    model = cnn(seed=0)
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batches = datasets.ShuffledBatches(x, y, 128, seed=0)
    model.fit(batches, epochs=5, shuffle=False, verbose=0)
    return model


def by_art(attack, victim, x, settings, soft, rate, **own):
    """A copy taught by ART, and how long that took."""
    # ART takes what the model returns for its answer.
    asked = keras.Sequential([victim, keras.layers.Softmax()])
    copy = cnn(seed=1)

    def art(model):
        return TensorFlowV2Classifier(
            model,
            10,
            (28, 28, 1),
            loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
            optimizer=keras.optimizers.Adam(rate),
            clip_values=(0, 1),
        )

    thief = attack(
        art(asked),
        **{
            "batch_size_fit": BATCH,
            "batch_size_query": 128,
            "nb_epochs": settings.epochs,
            "nb_stolen": settings.budget,
            "use_probability": soft,
            **own,
        },
    )
    np.random.seed(0)
    start = time.perf_counter()
    thief.extract(x, thieved_classifier=art(copy))
    return copy, time.perf_counter() - start


def by_keras_qsn(attack, victim, x, settings, epochs):
    copy = cnn(seed=1)
    thief = attack(settings.budget, epochs=epochs, batch_size=BATCH)
    start = time.perf_counter()
    # One image to measure on: the script measures for all alike.
    thief.run(victim, copy, x, x[:1], verbose=0)
    return copy, time.perf_counter() - start


def rows(victim, x, x_test, settings):
    """Rows of the table."""
    classes = KerasModelWrapper(victim).predict(x_test)
    families = (
        ("KnockoffNets", "soft", extraction.KnockoffNets, KnockoffNets),
        ("Copycat", "hard", extraction.CopyCat, CopycatCNN),
    )
    for name, answers, ours, theirs in families:
        ask = functools.partial(by_art, theirs, victim, x, settings)
        soft = answers == "soft"
        found = {
            f"keras_qsn, {epochs} epochs": [
                by_keras_qsn(ours, victim, x, settings, epochs)
            ]
            for epochs in (settings.epochs, settings.epochs // 2)
        }
        found[f"ART, {settings.epochs} epochs"] = [
            ask(soft, rate) for rate in RATES
        ]
        if settings.art_defaults:
            own = {"batch_size_fit": 1, "batch_size_query": 1, "nb_epochs": 10}
            found["ART, its defaults"] = [ask(soft, RATES[-1], **own)]
        for library, copies in found.items():
            share, seconds = max(
                ((KerasModelWrapper(c).predict(x_test) == classes).mean(), s)
                for c, s in copies
            )
            row = [name, answers, library, f"{settings.budget:,}"]
            row += [f"{100 * share:.1f} %", f"{seconds:.1f}"]
            print(" | ".join(row), flush=True)
            yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--art-defaults", action="store_true")
    settings = parser.parse_args()
    data = datasets.load(settings.data)
    order = np.random.default_rng(0).permutation(len(data.x_train))
    own, others = np.split(order, [2 * len(order) // 3])
    victim = trained_victim(data.x_train[own], data.y_train[own])
    made = [*rows(victim, data.x_train[others], data.x_test, settings)]
    command = (
        f"python3 tests/benchmarks/extraction.py --data {settings.data} "
        f"--budget {settings.budget} --epochs {settings.epochs}"
        + " --art-defaults"
        * settings.art_defaults
    )
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in PACKAGES
    )
    right = KerasModelWrapper(victim).predict(data.x_test) == data.y_test
    report.write_text(
        pathlib.Path(__file__).with_name(FILES[settings.data]),
        f"# Copies beside those of ART\n\nMade by `{command}`: a CNN of 57,000 "
        f"weights, {100 * right.mean():.1f} % right, trained on two thirds of "
        f"the training images of {data.description}; asked about the others, "
        f"agreement on {len(data.x_test):,} test images. Each copy: "
        f"batches of {BATCH}, Adam; ART at learning rates "
        f"{' and '.join(map(str, RATES))}, the better of two; its defaults are "
        "batches of one image, 10 epochs. One run on "
        f"{os.cpu_count()} cores ({platform.machine()}): read times as "
        f"ratios. {versions}.\n\n"
        + report.markdown_table(HEADER, made, "lllrrr")
        + "\n",
    )


if __name__ == "__main__":
    main()
