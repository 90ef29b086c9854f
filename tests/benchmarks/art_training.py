"""Defences that train, ours and ART's, from the same weights.

The rows of `art_defenses.py` on adversarial training, TRADES, distillation
and Gaussian augmentation. On one batch all steps are the same in both; on
shuffled batches, or with own noise, the means of some seeds are compared.
"""

import functools
import sys
import time
import typing
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
import torch
from art.attacks import evasion
from art.defences import preprocessor
from art.defences.trainer import AdversarialTrainer
from art.defences.trainer import AdversarialTrainerTRADESPyTorch
from art.defences.transformer.evasion import DefensiveDistillation
from art.estimators.classification import PyTorchClassifier
from art.estimators.classification import TensorFlowV2Classifier
from libraries import LOSS
from libraries import channels_first
from libraries import torch_twin
from networks import small

from keras_qsn import attacks
from keras_qsn import defenses
from keras_qsn import training

EPS, SIGMA, TEMPERATURE, BETA = 0.1, 0.3, 20.0, 6.0
EPOCHS, STEPS, RATE, SEEDS = 4, (1, 10), 0.05, range(10)


class Row(typing.NamedTuple):
    """A defence: for each seed our and ART's function from images to scores.

    Seconds are those of training, if given, else of all answers; `labels`
    those of clean and of attacked images, if not the data's.
    """

    name: str
    art: str
    pairs: list
    note: str = ""
    seconds: tuple = ()
    labels: tuple = ()


def by_art(model, rate=1e-3, loss=LOSS, optimizer=keras.optimizers.Adam, **kw):
    return TensorFlowV2Classifier(
        model,
        10,
        model.input_shape[1:],
        loss_object=loss,
        optimizer=optimizer(rate),
        clip_values=(0, 1),
        **kw,
    )


def by_keras(model):
    return functools.partial(model.predict, batch_size=128, verbose=0)


def timed(function, *args, **kwargs):
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def fitted(model, x, y, *objectives, seed=0, optimizer=None, **settings):
    keras.utils.set_random_seed(seed)
    net = training.QuSecNet(model, list(objectives)) if objectives else model
    net.compile(optimizer or keras.optimizers.Adam(1e-3), LOSS)
    net.fit(
        x, y, verbose=0, **{"batch_size": 128, "epochs": EPOCHS, **settings}
    )
    return model


class Whole(torch.nn.Module):
    """ART's TRADES takes the layers of a `Sequential` for its outputs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def adversarial(model, x, y, steps):
    """Steps of SGD on one batch, from the weights of `model`."""
    fgsm = attacks.FastGradientMethod(EPS)
    pgd = attacks.BasicIterativeMethod(EPS, eps_iter=0.04, nb_iter=5)
    art_pgd = {"eps_step": 0.04, "max_iter": 5, "verbose": False}
    ours = {"batch_size": len(x), "epochs": steps, "shuffle": False}
    art_steps = {"batch_size": len(x), "nb_epochs": steps}
    note = "rounding: signs of small slopes" if steps > 1 else ""

    def copied():
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        return copy

    def by_both(name, objective, trainer, answer, x_art, y_art):
        sgd = keras.optimizers.SGD(RATE)
        net, spent = timed(
            fitted, copied(), x, y, objective, optimizer=sgd, **ours
        )
        _, art_spent = timed(trainer.fit, x_art, y_art, **art_steps)
        return Row(
            f"{name}, {steps} step{'s' * (steps > 1)}",
            type(trainer).__name__,
            [(by_keras(net), answer)],
            note,
            (spent, art_spent),
        )

    for name, attack, kind, settings in (
        ("FGSM", fgsm, evasion.FastGradientMethod, {}),
        ("PGD", pgd, evasion.ProjectedGradientDescent, art_pgd),
    ):
        art = by_art(copied(), RATE, optimizer=keras.optimizers.SGD)
        theirs = kind(art, eps=EPS, batch_size=len(x), **settings)
        yield by_both(
            f"adversarial training, {name}",
            training.AdversarialTraining(attack, clean_share=0.0),
            AdversarialTrainer(art, theirs, 1.0),
            art.predict,
            x,
            np.eye(10)[y],
        )
    # Its LLVM and TensorFlow's do not share a process.
    sys.modules.setdefault("triton", None)
    twin = Whole(torch_twin(copied(), x[:128]))
    art = PyTorchClassifier(
        twin,
        torch.nn.CrossEntropyLoss(),
        (1, 28, 28),
        10,
        torch.optim.SGD(twin.parameters(), RATE),
        clip_values=(0, 1),
    )
    theirs = evasion.FastGradientMethod(art, eps=EPS, batch_size=len(x))
    yield by_both(
        "TRADES, FGSM",
        training.TRADES(fgsm, BETA, maximize="own"),
        AdversarialTrainerTRADESPyTorch(art, theirs, BETA),
        lambda x: art.predict(channels_first(x).numpy()),
        channels_first(x).numpy(),
        y,
    )


def distillation(x, y):
    first = training.DefensiveDistillation(TEMPERATURE)
    teacher = fitted(small(0), x, y, first)
    objective = training.DefensiveDistillation(TEMPERATURE, teacher)

    def hot(model):
        layers = keras.layers
        parts = [model, layers.Rescaling(1 / TEMPERATURE), layers.Softmax()]
        return keras.Sequential(parts)

    def by_both(seed, batch_size, epochs, shuffle):
        net, spent = timed(
            fitted,
            small(seed),
            x,
            y,
            objective,
            seed=seed,
            batch_size=batch_size,
            epochs=epochs,
            shuffle=shuffle,
        )
        copy, loss = small(seed), keras.losses.CategoricalCrossentropy()
        art = by_art(hot(copy), loss=loss)
        teach = DefensiveDistillation(by_art(hot(teacher)), batch_size, epochs)
        tf.random.set_seed(seed)
        _, art_spent = timed(teach, x, art)
        return (by_keras(net), by_keras(copy)), (spent, art_spent)

    name = f"distillation, T {TEMPERATURE:g}"
    count = STEPS[-1]
    pair, spent = by_both(0, len(x), count, shuffle=False)
    counterpart = "DefensiveDistillation"
    yield Row(f"{name}, {count} steps", counterpart, [pair], seconds=spent)
    runs = [by_both(seed, 128, EPOCHS, shuffle=True) for seed in SEEDS]
    spent = tuple(np.mean([spent for _, spent in runs], 0))
    pairs = [pair for pair, _ in runs]
    note = "other order of batches"
    yield Row(f"{name}, {EPOCHS} epochs", counterpart, pairs, note, spent)


def augmented(x, y):
    pairs, spent = [], []
    for seed in SEEDS[:3]:
        ours, seconds = timed(
            defenses.gaussian_augmentation, x, y, SIGMA, 1, seed
        )
        np.random.seed(seed)
        add = preprocessor.GaussianAugmentation(SIGMA, clip_values=(0, 1))
        art, art_seconds = timed(add, x, y)
        spent.append((seconds, art_seconds))
        nets = [fitted(small(seed), *data, seed=seed) for data in (ours, art)]
        pairs.append(tuple(by_keras(net) for net in nets))
    yield Row(
        f"Gaussian augmentation, {SIGMA}, one copy, {EPOCHS} epochs",
        "GaussianAugmentation",
        pairs,
        "other noise; ART draws the images to copy, we copy all",
        tuple(np.mean(spent, 0)),
    )


def same_noise(x):
    """Largest difference of noisy images whose noise is drawn once."""
    ours, _ = defenses.gaussian_augmentation(x, x, SIGMA, 1, 0)
    noise = np.random.default_rng(0).standard_normal(x.shape, "float32")
    add = preprocessor.GaussianAugmentation(
        SIGMA, augmentation=False, clip_values=(0, 1)
    )
    with mock.patch("numpy.random.normal", return_value=x + SIGMA * noise):
        return np.abs(ours[len(x) :] - add(x)[0]).max()
