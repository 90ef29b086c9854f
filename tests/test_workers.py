"""The same answers from several processes, whatever becomes of these."""

import os
import pickle
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_qsn import attacks
from keras_qsn._core import executors
from keras_qsn._core.pool import work_off
from keras_qsn.certification import certify
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import Step
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.layers import ConstantQuantization

EPS = 0.1


@pytest.fixture(scope="module")
def model():
    """Small, with weights of a seed."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            ConstantQuantization(3, hard=True),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def images(model):
    x = np.random.default_rng(1).random((30, 6, 6, 1), "float32")
    y = np.asarray(model(x)).argmax(-1)
    # Some of them wrong.
    y[::7] = (y[::7] + 1) % 3
    return x, y


def plan(model):
    """Steps of few batches and of none, the first images only, random starts,
    another model."""
    twin = keras.models.clone_model(model)
    return [
        Step("FGSM", "white-box", attacks.FastGradientMethod(EPS)),
        Step("first", "queries", attacks.SquareAttack(EPS, nb_queries=5), 5),
        attacks.ProjectedGradientDescent(EPS, nb_iter=3, seed=1),
        Step("none", "queries", attacks.SquareAttack(EPS, nb_queries=2), 0),
        attacks.TransferAttack(attacks.FastGradientMethod(EPS), twin),
        Step("cube", "adaptive", attacks.CubeAttack(EPS, nb_iter=3), 9),
        attacks.SquareAttack(EPS, nb_queries=10),
    ]


def evaluated(model, images, steps, **kwargs):
    kwargs = {"eps": EPS, "batch_size": 4, "checks": None} | kwargs
    return evaluate_robustness(
        model, *images, plan=steps, verbose=0, **kwargs
    )


def same_evaluation(found, wanted):
    assert len(found.outcomes) == len(wanted.outcomes)
    for one, other in zip(found.outcomes, wanted.outcomes):
        assert one.step.name == other.step.name and one.blind == other.blind
        np.testing.assert_array_equal(one.tried, other.tried)
        np.testing.assert_array_equal(one.broken, other.broken)
        np.testing.assert_array_equal(one.x_adv, other.x_adv)


def same_certificate(found, wanted):
    for name in ("status", "method", "margin", "undetermined"):
        np.testing.assert_array_equal(
            getattr(found, name), getattr(wanted, name)
        )
    assert {*found.counterexamples} == {*wanted.counterexamples}
    for i, image in wanted.counterexamples.items():
        np.testing.assert_array_equal(found.counterexamples[i], image)


def test_try(model, images):
    steps = plan(model)
    one = evaluated(model, images, steps)
    for o in one.outcomes:
        print(o.step.name, len(o.tried), len(o.broken))
    two = evaluated(model, images, steps, workers=2)
    same_evaluation(two, one)
    c = certify(model, *images, EPS, verbose=0, batch_size=4)
    print(np.unique(c.status, return_counts=True), np.unique(c.method, return_counts=True))
    same_certificate(certify(model, *images, EPS, verbose=0, batch_size=4, workers=2), c)
