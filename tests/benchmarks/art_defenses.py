"""Our defences beside those of ART: same weights, same attacked images.

    python3 -m pip install -e '.[demo,peers]'
    python3 tests/benchmarks/art_defenses.py

Writes `art_defenses.md` beside this file. ART has what is in the table, and of
ours no other; its Defense-GAN, of SciPy's L-BFGS-B in a session of TensorFlow
1, is gone since version 1.20.
"""

import importlib.metadata
import os
import pathlib
import platform
from unittest import mock

import keras
import numpy as np
from art.defences import postprocessor
from art.defences import preprocessor
from art_training import EPOCHS
from art_training import EPS
from art_training import SIGMA
from art_training import STEPS
from art_training import Row
from art_training import adversarial
from art_training import augmented
from art_training import by_art
from art_training import by_keras
from art_training import distillation
from art_training import fitted
from art_training import same_noise
from art_training import timed
from networks import small

from keras_qsn import attacks
from keras_qsn import datasets
from keras_qsn import defenses
from keras_qsn import report

HEADER = ["defence", "in ART", "difference, clean", "attacked"]
HEADER += ["same classes", "clean", "FGSM", "PGD", "seconds", "why they differ"]
PACKAGES = ["tensorflow", "keras", "torch", "adversarial-robustness-toolbox"]


def squeezers(model, x_train):
    kinds = [
        (f"bits: {b}", defenses.BitDepthReduction(b), (0, 1), b)
        for b in (1, 2, 5)
    ]
    scipy = [
        (f"median {n}x{n}", defenses.MedianSmoothing(n), n) for n in (2, 3)
    ]
    # An eps of 25.5 grey levels makes them.
    tie = "pixels halfway: up here, to the even level in ART"
    ties, found = {"bits: 1": tie, "bits: 2": tie}, {}
    for name, ours, *args in [*kinds, *scipy]:
        make = preprocessor.FeatureSqueezing
        make = make if len(args) > 1 else preprocessor.SpatialSmoothing
        art = by_art(model, preprocessing_defences=make(*args)).predict
        found[name] = by_keras(defenses.squeezed(model, ours)), art
        yield Row(name, make.__name__, [found[name]], ties.get(name, ""))
    art = by_art(
        model,
        preprocessing_defences=preprocessor.SpatialSmoothingTensorFlowV2(3),
    )
    yield Row(
        "median 3x3",
        "SpatialSmoothingTensorFlowV2",
        [(found["median 3x3"][0], art.predict)],
        "reflects without the outermost pixel, SciPy and we with it",
    )
    layers = defenses.recommended_squeezers("mnist")
    detector = defenses.FeatureSqueezingDetector(model, layers)
    line = detector.fit(x_train).threshold
    bare = by_art(model).predict

    def scores(x):
        p, *moved = (
            keras.ops.softmax(f(x))
            for f in (bare, found["bits: 1"][1], found["median 2x2"][1])
        )
        return np.max([np.abs(p - q).sum(1) for q in moved], 0)

    def decide(score):
        return lambda x: np.stack([np.full(len(x), line), score(x)], 1)

    yield Row(
        "detector: 1 bit, median 2x2",
        "none; of its two squeezers",
        [(decide(detector.score), decide(scores))],
        "as of 1 bit",
        labels=(0, 1),
    )


def answers(model):
    soft = keras.Sequential([model, keras.layers.Softmax()])

    def art(defence):
        return by_art(soft, postprocessing_defences=defence).predict

    def ours(layer):
        return by_keras(defenses.with_defended_answers(model, layer))

    def over_sum(function):
        return lambda x: function(x) / function(x).sum(1, keepdims=True)

    def one_by_one(x):
        tell = postprocessor.ClassLabels()
        return np.concatenate(
            [tell(p[None]) for p in soft.predict(x, verbose=0)]
        )

    rounded, art_rounded = (
        ours(defenses.RoundedAnswers(2)),
        art(postprocessor.Rounded(2)),
    )
    note = "ART's answers do not sum to 1"
    yield Row("2 decimals", "Rounded", [(rounded, art_rounded)], note)
    pair = rounded, over_sum(art_rounded)
    yield Row("2 decimals", "Rounded, over its sum", [pair])
    labels = ours(defenses.LabelsOnly())
    pair = labels, art(postprocessor.ClassLabels())
    note = "ART marks the class of any image of a batch for all of it"
    yield Row("labels only", "ClassLabels", [pair], note)
    yield Row(
        "labels only", "ClassLabels, image by image", [(labels, one_by_one)]
    )
    sigmoid = postprocessor.ReverseSigmoid(0.7, 0.2)
    reverse = ours(defenses.ReverseSigmoid(0.7, 0.2))
    note = "kept 1e-6 from 0 and 1; in ART 1e-9, none from 1 in float32"
    yield Row(
        "reverse sigmoid", "ReverseSigmoid", [(reverse, art(sigmoid))], note
    )

    def inside(x):
        return np.clip(soft.predict(x, verbose=0), 1e-6, 1 - 1e-6)

    pair = (
        lambda x: np.asarray(defenses.ReverseSigmoid(0.7, 0.2)(inside(x))),
        lambda x: sigmoid(inside(x)),
    )
    yield Row("reverse sigmoid, 1e-6 from 0 and 1", "ReverseSigmoid", [pair])

    def same_draws(x):
        p = soft.predict(x, verbose=0)
        noise = SIGMA * keras.random.normal(
            p.shape, seed=keras.random.SeedGenerator(0)
        )
        with mock.patch("numpy.random.normal", return_value=noise.numpy()):
            return postprocessor.GaussianNoise(SIGMA)(p)

    def noisy(x):
        layer = defenses.NoisyAnswers(SIGMA, seed=0)
        return layer(soft.predict(x, verbose=0)).numpy()

    yield Row(
        f"noise {SIGMA}, same draws", "GaussianNoise", [(noisy, same_draws)]
    )


def cells(row, images, y):
    """A line of the table."""
    scores, spent = [], []
    for pair in row.pairs:
        for function in pair:
            function(next(iter(images.values())))
        told = [timed(lambda f: [*map(f, images.values())], f) for f in pair]
        scores.append([answer for answer, _ in told])
        spent.append([seconds for _, seconds in told])
    # Of seed, library, kind of images, image and class.
    scores = np.array(scores, "float64")
    differences = np.abs(scores[:, 0] - scores[:, 1]).max((0, 2, 3))
    clean, *attacked = differences
    classes = scores.argmax(-1)
    same = (classes[:, 0] == classes[:, 1]).mean()
    shares, errors, seeds = [], [], len(row.pairs)
    for i in range(len(images)):
        labels = row.labels[i > 0] if row.labels else y
        right = 100 * (classes[:, :, i] == labels).mean(2)
        shares.append(" / ".join(f"{share:.1f}" for share in right.mean(0)))
        if seeds > 1:
            errors.append(np.std(right[:, 0] - right[:, 1], ddof=1))
    note = row.note
    if seeds > 1:
        error = max(errors) / seeds**0.5
        note += f"; {seeds} seeds, standard error {error:.1f}"
    seconds = row.seconds or np.mean(spent, 0)
    seconds = " / ".join(f"{s:.2f}" for s in seconds)
    line = [row.name, row.art, f"{clean:.0e}", f"{max(attacked):.0e}"]
    return [*line, f"{100 * same:.1f} %", *shares, seconds, note]


def main():
    data = datasets.load("digits")
    x, y = data.x_train, data.y_train
    model = fitted(small(0), x, y)
    young = fitted(small(0), x, y, epochs=1)
    images = {"clean": data.x_test}
    for name, attack in (
        ("FGSM", attacks.FastGradientMethod(EPS)),
        ("PGD", attacks.ProjectedGradientDescent(EPS, nb_iter=40)),
    ):
        images[name] = attack.generate(
            model, data.x_test, y=data.y_test, verbose=0
        )
    rows = []
    for part in (
        squeezers(model, x),
        answers(model),
        *(adversarial(young, x[:1000], y[:1000], n) for n in STEPS),
        distillation(x, y),
        augmented(x, y),
    ):
        for row in part:
            rows.append(cells(row, images, data.y_test))
            print(" | ".join(rows[-1]), flush=True)
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in PACKAGES
    )
    report.write_text(
        pathlib.Path(__file__).with_name("art_defenses.md"),
        "# Defences beside those of ART\n\nMade by `python3 "
        "tests/benchmarks/art_defenses.py`: a CNN of 57,000 weights, "
        f"{EPOCHS} epochs on {data.description}, seed 0; all "
        f"{len(data.x_test):,} test images, clean and under FGSM and PGD (40 "
        f"steps) at eps {EPS}, made once on the undefended network. Two "
        "numbers are ours / ART's. Difference: the largest of any logit, or "
        "of any probability where answers are defended. Accuracy in %; of "
        "the detector the share of images told rightly. Steps: SGD on one "
        "batch of 1,000 images, from that CNN after one epoch, whose logits "
        "are less than 30 apart: above, our attacks look at a temperature. "
        "Standard error: of the difference of the means over seeds, the "
        "largest of the three. Noisy images of the same draws differ by "
        f"{same_noise(data.x_train):.0e}. Seconds: training where there is "
        "any, else answers to all images, ours by Keras in batches of 128, "
        f"ART's at once. One run on {os.cpu_count()} cores "
        f"({platform.machine()}), shared with other work: read no more than "
        f"an order of size from times. {versions}.\n\n"
        + report.markdown_table(HEADER, rows, "llrrrrrrrl")
        + "\n",
    )


if __name__ == "__main__":
    main()
