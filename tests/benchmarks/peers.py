"""Our attacks beside their peers': same model, images and parameters.

    python3 -m pip install -e '.[demo,peers]'
    python3 tests/benchmarks/peers.py

Writes `peers.md` beside this file. The model is the Cleverhans CNN, trained
for 6 epochs on the embedded digits; images are its test images. Peers that
take seconds for each image get fewer images; times are per image. Success is
counted by this script, on the returned images, for every library alike.
"""

import argparse
import pathlib
import platform
import time

import keras
import numpy as np
import tensorflow as tf
from art.attacks import evasion
from art.estimators.classification import TensorFlowV2Classifier
from cleverhans.tf2.attacks.projected_gradient_descent import (
    projected_gradient_descent,
)

from keras_qsn import attacks
from keras_qsn import datasets
from keras_qsn import report
from keras_qsn.models import KerasModelWrapper
from keras_qsn.models import cleverhans_cnn

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HEADER = ["attack", "library", "images", "success", "distance", "s / image"]


def trained_model(data):
    keras.utils.set_random_seed(0)
    model = cleverhans_cnn(seed=0)
    model.compile(keras.optimizers.Adam(1e-3), LOSS)
    model.fit(data.x_train, data.y_train, batch_size=128, epochs=6, verbose=0)
    return model


class Comparison:
    """One table, filled row by row."""

    def __init__(self, model, data):
        self.model = model
        # Images the model gets right, so that success means the same to all.
        right = model.predict(data.x_test, verbose=0).argmax(-1) == data.y_test
        self.x, self.y = data.x_test[right], data.y_test[right]
        order = np.random.default_rng(0).permutation(len(self.x))
        self.x, self.y = self.x[order], self.y[order]
        self.target = (self.y + 1) % 10
        self.art = TensorFlowV2Classifier(
            model, 10, (28, 28, 1), loss_object=LOSS, clip_values=(0, 1)
        )
        self.rows = []

    def add(self, attack, library, run, count, measure, targeted=False):
        """Run once to compile where it pays, then time one run."""
        x, y = self.x[:count], self.y[:count]
        target = self.target[:count]
        if library != "ART":
            run(x, y, target)
        start = time.perf_counter()
        x_adv = np.asarray(run(x, y, target))
        seconds = (time.perf_counter() - start) / count
        prediction = self.model.predict(x_adv, verbose=0).argmax(-1)
        success = prediction == target if targeted else prediction != y
        distance = np.median(measure(x_adv - x)[success])
        self.rows.append(
            [
                attack,
                library,
                count,
                f"{100 * success.mean():.1f} %",
                f"{distance:.3f}",
                f"{seconds:.4f}",
            ]
        )
        print(" | ".join(map(str, self.rows[-1])), flush=True)


def linf(delta):
    return np.abs(delta).reshape(len(delta), -1).max(1)


def l2(delta):
    return np.linalg.norm(delta.reshape(len(delta), -1), axis=1)


def l0(delta):
    return (np.abs(delta).reshape(len(delta), -1) > 1e-6).sum(1)


def compare_pgd(table, count):
    eps, eps_iter, nb_iter = 0.3, 0.01, 40
    ours = attacks.ProjectedGradientDescent(eps, eps_iter, nb_iter)
    early = attacks.ProjectedGradientDescent(
        eps, eps_iter, nb_iter, early_stop=True
    )
    theirs = evasion.ProjectedGradientDescent(
        table.art,
        eps=eps,
        eps_step=eps_iter,
        max_iter=nb_iter,
        num_random_init=1,
        batch_size=128,
        verbose=False,
    )
    wrapper = KerasModelWrapper(table.model)

    def cleverhans(x, y, target):
        batches = [
            projected_gradient_descent(
                wrapper,
                tf.constant(x[i : i + 128]),
                eps,
                eps_iter,
                nb_iter,
                np.inf,
                clip_min=0.0,
                clip_max=1.0,
                y=tf.constant(y[i : i + 128]),
                rand_init=True,
            )
            for i in range(0, len(x), 128)
        ]
        return np.concatenate(batches)

    for library, run in (
        ("keras_qsn", lambda x, y, t: ours.generate(table.model, x, y)),
        (
            "keras_qsn, early stop",
            lambda x, y, t: early.generate(table.model, x, y),
        ),
        ("cleverhans", cleverhans),
        ("ART", lambda x, y, t: theirs.generate(x, np.eye(10)[y])),
    ):
        table.add("PGD, 40 steps, eps 0.3", library, run, count, linf)


def compare_carlini_wagner(table, count, art_count):
    settings = dict(
        confidence=0.0,
        learning_rate=0.1,
        binary_search_steps=1,
        initial_const=10.0,
    )
    ours = attacks.CarliniWagnerL2(max_iterations=100, **settings)
    theirs = evasion.CarliniL2Method(
        table.art, max_iter=100, batch_size=100, verbose=False, **settings
    )
    name = "CW-L2, 100 iterations"
    table.add(
        name,
        "keras_qsn",
        lambda x, y, t: ours.generate(table.model, x, y, batch_size=100),
        count,
        l2,
    )
    for library, images in (("keras_qsn", art_count), ("ART", art_count)):
        run = (
            (lambda x, y, t: ours.generate(table.model, x, y))
            if library != "ART"
            else (lambda x, y, t: theirs.generate(x, np.eye(10)[y]))
        )
        table.add(name, library, run, images, l2)


def compare_jsma(table, count):
    ours = attacks.SaliencyMapMethod(theta=1.0, gamma=0.1)
    theirs = evasion.SaliencyMapMethod(
        table.art, theta=1.0, gamma=0.1, batch_size=1, verbose=False
    )
    for library, run in (
        (
            "keras_qsn",
            lambda x, y, t: ours.generate(table.model, x, y, y_target=t),
        ),
        ("ART", lambda x, y, t: theirs.generate(x, np.eye(10)[t])),
    ):
        table.add(
            "JSMA targeted, theta 1, gamma 0.1",
            library,
            run,
            count,
            l0,
            targeted=True,
        )


def compare_deepfool(table, count):
    ours = attacks.DeepFool()
    theirs = evasion.DeepFool(
        table.art, max_iter=50, epsilon=0.02, batch_size=count, verbose=False
    )
    for library, run in (
        ("keras_qsn", lambda x, y, t: ours.generate(table.model, x, y)),
        ("ART", lambda x, y, t: theirs.generate(x)),
    ):
        table.add("DeepFool L2", library, run, count, l2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=900)
    parser.add_argument("--slow-images", type=int, default=20)
    options = parser.parse_args()
    data = datasets.load("digits")
    table = Comparison(trained_model(data), data)
    compare_pgd(table, options.images)
    compare_deepfool(table, options.slow_images)
    compare_jsma(table, options.slow_images)
    compare_carlini_wagner(table, 100, options.slow_images // 2)
    report.write_text(
        pathlib.Path(__file__).with_name("peers.md"),
        "# Attacks beside their peers\n\n"
        "Made by `python3 tests/benchmarks/peers.py`: Cleverhans CNN, 6 "
        f"epochs on {data.description}; test images it classifies "
        "correctly, in a random order, seed 0. Distance: median over "
        "successes (L-infinity for PGD, L2 for CW and DeepFool, changed "
        f"pixels for JSMA). TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}, {platform.machine()}, one run: read times as "
        "ratios.\n\n" + report.markdown_table(HEADER, table.rows) + "\n",
    )


if __name__ == "__main__":
    main()
