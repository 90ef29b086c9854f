"""Our attacks beside their peers': same model, images and parameters.

    python3 -m pip install -e '.[demo,peers]'
    python3 tests/benchmarks/peers.py [--data mnist]

Writes `peers.md`, or `peers-mnist.md`, beside this file. The model is the
Cleverhans CNN after 6 epochs; torchattacks gets the same weights in PyTorch.
Slow peers get fewer images, and ours are measured on those too. Success is
counted by this script, on the returned images and the model that was attacked,
for every library alike.
"""

import argparse
import importlib.metadata
import os
import pathlib
import platform
import time
import typing

import keras
import numpy as np
import torch
import torchattacks
from art.attacks import evasion
from cleverhans.tf2.attacks.projected_gradient_descent import (
    projected_gradient_descent,
)
from libraries import BATCH
from libraries import LOSS
from libraries import by_art
from libraries import by_cleverhans
from libraries import by_keras_qsn
from libraries import by_torchattacks
from libraries import in_all_libraries

from keras_qsn import attacks
from keras_qsn import datasets
from keras_qsn import report
from keras_qsn._core.precision import fast_dtype
from keras_qsn.models import cleverhans_cnn

HEADER = ["attack", "library", "images", "success", "distance", "s / image"]
FILES = {"digits": "peers.md", "mnist": "peers-mnist.md"}
PACKAGES = [
    "tensorflow",
    "keras",
    "cleverhans",
    "adversarial-robustness-toolbox",
    "torch",
    "torchattacks",
]


class Family(typing.NamedTuple):
    """One attack in all libraries.

    A library is a function from images and labels to adversarial images;
    `slow` ones get few images.
    """

    name: str
    measure: typing.Callable
    ours: dict
    fast: dict
    slow: dict
    targeted: bool = False


def pgd(models, eps):
    settings = dict(eps=eps, eps_iter=0.01, nb_iter=40)
    ours = attacks.ProjectedGradientDescent(**settings)
    early = attacks.ProjectedGradientDescent(**settings, early_stop=True)
    cleverhans = by_cleverhans(
        projected_gradient_descent, models, **settings, rand_init=True
    )
    art = evasion.ProjectedGradientDescent(
        models.art,
        eps=eps,
        eps_step=0.01,
        max_iter=40,
        num_random_init=1,
        batch_size=BATCH,
        verbose=False,
    )
    return Family(
        f"PGD, 40 steps, eps {eps}",
        linf,
        {
            "keras_qsn": by_keras_qsn(ours, models),
            "keras_qsn, early stop": by_keras_qsn(early, models),
            **rounded(ours, models),
        },
        {
            "cleverhans": cleverhans,
            "torchattacks": by_torchattacks(
                torchattacks.PGD(models.torch, eps, 0.01, 40)
            ),
            "ART": by_art(art),
        },
        {},
    )


def apgd(models, loss):
    ours = attacks.AutoProjectedGradientDescent(0.1, loss=loss, nb_iter=40)
    theirs = torchattacks.APGD(models.torch, eps=0.1, steps=40, loss=loss)
    return Family(
        f"APGD, {loss}, 40 steps, eps 0.1",
        linf,
        {"keras_qsn": by_keras_qsn(ours, models), **rounded(ours, models)},
        {"torchattacks": by_torchattacks(theirs)},
        {},
    )


def fab(models):
    settings = dict(eps=0.3, alpha_max=0.1, eta=1.05, beta=0.9)
    ours = attacks.FastAdaptiveBoundary(nb_iter=40, **settings)
    theirs = torchattacks.FAB(models.torch, steps=40, **settings)
    return Family(
        "FAB, 40 steps, eps 0.3",
        linf,
        {"keras_qsn": by_keras_qsn(ours, models)},
        {"torchattacks": by_torchattacks(theirs)},
        {},
    )


def square(models):
    ours = attacks.SquareAttack(0.1, nb_queries=500)
    theirs = torchattacks.Square(models.torch, eps=0.1, n_queries=500)
    return Family(
        "Square, 500 queries, eps 0.1",
        linf,
        {"keras_qsn": by_keras_qsn(ours, models)},
        {"torchattacks": by_torchattacks(theirs)},
        {},
    )


def deepfool(models):
    art = evasion.DeepFool(
        models.art, max_iter=50, epsilon=0.02, batch_size=BATCH, verbose=False
    )
    theirs = torchattacks.DeepFool(models.torch, steps=50, overshoot=0.02)
    return Family(
        "DeepFool L2",
        l2,
        {"keras_qsn": by_keras_qsn(attacks.DeepFool(), models)},
        {},
        {"torchattacks": by_torchattacks(theirs), "ART": by_art(art)},
    )


def jsma(models):
    settings = dict(theta=1.0, gamma=0.1)
    ours = attacks.SaliencyMapMethod(**settings)
    art = evasion.SaliencyMapMethod(
        models.art, **settings, batch_size=1, verbose=False
    )
    theirs = torchattacks.JSMA(models.torch, **settings)
    return Family(
        "JSMA targeted, theta 1, gamma 0.1",
        l0,
        {"keras_qsn": by_keras_qsn(ours, models, targeted=True)},
        {},
        {
            "torchattacks": by_torchattacks(theirs, targeted=True),
            "ART": by_art(art),
        },
        targeted=True,
    )


def carlini_wagner(models):
    settings = dict(
        confidence=0.0,
        learning_rate=0.1,
        binary_search_steps=1,
        initial_const=10.0,
    )
    ours = attacks.CarliniWagnerL2(max_iterations=100, **settings)
    art = evasion.CarliniL2Method(
        models.art, max_iter=100, batch_size=BATCH, verbose=False, **settings
    )
    theirs = torchattacks.CW(models.torch, c=10, kappa=0, steps=100, lr=0.1)
    return Family(
        "CW-L2, c 10, 100 iterations",
        l2,
        {"keras_qsn": by_keras_qsn(ours, models)},
        {"torchattacks": by_torchattacks(theirs)},
        {"ART": by_art(art)},
    )


def rounded(attack, models):
    """What a named plan makes of it where another type is faster."""
    dtype = fast_dtype()
    if dtype == "float32":
        return {}
    attack = attacks.ViewedAttack(attack, attacks.LowPrecision(dtype))
    return {f"keras_qsn, {dtype}": by_keras_qsn(attack, models)}


def linf(delta):
    return np.abs(delta).reshape(len(delta), -1).max(1)


def l2(delta):
    return np.linalg.norm(delta.reshape(len(delta), -1), axis=1)


def l0(delta):
    return (np.abs(delta).reshape(len(delta), -1) > 1e-6).sum(1)


def trained_model(data):
    keras.utils.set_random_seed(0)
    model = cleverhans_cnn(seed=0)
    model.compile(keras.optimizers.Adam(1e-3), LOSS)
    model.fit(data.x_train, data.y_train, batch_size=128, epochs=6, verbose=0)
    # Of stock layers, as most users' models are.
    stock = keras.models.clone_model(model, clone_function=_stock)
    stock.set_weights(model.get_weights())
    return stock


def _stock(layer):
    if isinstance(layer, keras.layers.Conv2D):
        return keras.layers.Conv2D.from_config(layer.get_config())
    return type(layer).from_config(layer.get_config())


def images_it_knows(model, data):
    """Test images the model gets right, in a random order.

    Of these, success means the same to all libraries.
    """
    right = model.predict(data.x_test, verbose=0).argmax(-1) == data.y_test
    x, y = data.x_test[right], data.y_test[right]
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], y[order]


def measured(family, library, generate, models, x, y):
    """A row of the table."""
    labels = (y + 1) % 10 if family.targeted else y
    if library not in family.slow:
        # Once to compile.
        generate(x[:BATCH], labels[:BATCH])
    start = time.perf_counter()
    x_adv = generate(x, labels)
    seconds = (time.perf_counter() - start) / len(x)
    hit = models.classes(library, x_adv) == labels
    success = hit if family.targeted else ~hit
    distance = np.median(family.measure(x_adv - x)[success])
    cells = [f"{100 * success.mean():.1f} %", f"{distance:.3f}"]
    return [family.name, library, len(x), *cells, f"{seconds:.4f}"]


def table(families, models, x, y, count, slow_count):
    rows = []
    for family in families:
        for peers, few in ((family.fast, count), (family.slow, slow_count)):
            libraries = {**family.ours, **peers} if peers else {}
            for library, generate in libraries.items():
                rows.append(
                    measured(
                        family, library, generate, models, x[:few], y[:few]
                    )
                )
                print(" | ".join(map(str, rows[-1])), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--slow-images", type=int, default=20)
    parser.add_argument(
        "--only", help="attacks whose name begins so; printed, and not kept"
    )
    options = parser.parse_args()
    data = datasets.load(options.data)
    model = trained_model(data)
    x, y = images_it_knows(model, data)
    models = in_all_libraries(model, x[:BATCH])
    torch.manual_seed(0)
    families = [
        # At 0.3 every library has every image: for the time alone.
        pgd(models, 0.1),
        pgd(models, 0.3),
        apgd(models, "ce"),
        apgd(models, "dlr"),
        fab(models),
        square(models),
        deepfool(models),
        jsma(models),
        carlini_wagner(models),
    ]
    families = [f for f in families if f.name.startswith(options.only or "")]
    rows = table(families, models, x, y, options.images, options.slow_images)
    if options.only:
        print(report.markdown_table(HEADER, rows))
        return
    command = f"python3 tests/benchmarks/peers.py --data {options.data}"
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in PACKAGES
    )
    report.write_text(
        pathlib.Path(__file__).with_name(FILES[options.data]),
        f"# Attacks beside their peers\n\nMade by `{command}`: Cleverhans CNN, "
        f"6 epochs on {data.description}; test images it classifies "
        "correctly, in a random order, seed 0. Distance: median over "
        "successes (L-infinity for PGD, APGD, FAB and Square, L2 for CW and "
        "DeepFool, changed pixels for JSMA). torchattacks attacks the same "
        "weights in PyTorch; its CW leaves black and white pixels as they "
        "are, where its inverse tanh is infinite. One run on "
        f"{os.cpu_count()} cores ({platform.machine()}): read times as "
        f"ratios. {versions}.\n\n" + report.markdown_table(HEADER, rows) + "\n",
    )


if __name__ == "__main__":
    main()
