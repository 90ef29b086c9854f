"""What is known of defences comes back, and attacks by hand find no more."""

import keras
import numpy as np
import pytest

import adaptive_by_hand
from conftest import small_cnn
from keras_qsn.attacks import CarliniWagnerL2
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.defenses import DynamicQuantizationActivation
from keras_qsn.defenses import inhibit_gradients
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.training import DefensiveDistillation
from keras_qsn.training import QuSecNet


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


def judge(model):
    return lambda x: np.asarray(model(x)).argmax(-1)


def fit(model, digits, objective=None):
    net = QuSecNet(model, objective)
    net.compile(
        keras.optimizers.Adam(5e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    net.fit(digits.x_train, digits.y_train, epochs=5, verbose=0)
    return model


def left_by_the_plan(model, images, eps):
    return evaluate_robustness(
        model, *images, eps, plan="standard", checks=None, verbose=0
    ).robust_accuracy


def left_by_softmax(model, x, y, eps):
    """Of the images that are right, the share that the papers' FGSM leaves."""
    right = judge(model)(x) == y
    x_adv = adaptive_by_hand.fgsm_on_softmax(model, x, y, eps)
    return (judge(model)(x_adv) == y)[right].mean()


def agree(model, logits_fn, images, eps):
    by_hand = adaptive_by_hand.left_by_pgd(
        logits_fn, judge(model), *images, eps
    ).mean()
    assert left_by_the_plan(model, images, eps) <= by_hand + 0.02
    return by_hand


def test_distillation_is_blind_to_the_softmax_only(digits, images):
    teacher = fit(small_cnn(), digits, DefensiveDistillation(100.0))
    keras.utils.set_random_seed(0)
    objective = DefensiveDistillation(100.0, teacher)
    student = fit(small_cnn(), digits, objective)
    assert left_by_softmax(student, *images, 0.3) > 0.7
    assert agree(student, student, images, 0.3) <= 0.02
    x, y = (part[::5] for part in images)
    # The settings of the Cleverhans tutorial.
    attack = CarliniWagnerL2(
        learning_rate=0.2,
        binary_search_steps=1,
        max_iterations=100,
        initial_const=10.0,
    )
    found = attack.run(student, x, y, verbose=0)
    assert found.success.all()


@pytest.mark.parametrize("bits", [1, 2])
def test_the_signum_of_dqa_is_a_mask(bits, digits, images):
    layers = keras.layers
    model = fit(
        keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Conv2D(8, 5, strides=3),
                DynamicQuantizationActivation(bits),
                layers.Conv2D(16, 3, strides=2),
                DynamicQuantizationActivation(bits),
                layers.Flatten(),
                layers.Dense(10),
            ]
        ),
        digits,
    )
    plain = ProjectedGradientDescent(0.3, nb_iter=40)
    blind = evaluate_robustness(
        model, *images, 0.3, plan=[plain], checks=None, verbose=0
    )
    assert blind.robust_accuracy > 0.6
    through = adaptive_by_hand.through_signs(
        model.layers, lambda q: isinstance(q, DynamicQuantizationActivation)
    )
    assert agree(model, through, images, 0.3) <= 0.02


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_inhibition_is_undone(spread, trained, images):
    """By a tau that no accuracy bears: a smaller one masks nothing here."""
    model = inhibit_gradients(trained["none"], 10.0, spread)
    assert left_by_softmax(trained["none"], *images, 0.3) < 0.15
    assert left_by_softmax(model, *images, 0.3) > 0.5
    seen = adaptive_by_hand.mean_over_draws(model) if spread else model
    assert agree(model, seen, images, 0.3) <= 0.02
