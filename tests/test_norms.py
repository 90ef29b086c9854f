"""One definition of the ball, for attacks, checks and proofs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn.attacks import norms

RANGES = [(0, 1), (-1, 1), (0, 255), (-2.1, 2.6)]


def images(low, high, shape=(28, 28, 1)):
    """Random ones, both ends of the range, and levels of 8 bits."""
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, (6, *shape))
    x[0], x[1] = low, high
    x[2] = low + (high - low) * rng.integers(0, 256, shape) / 255
    return np.clip(x.astype("float32"), np.float32(low), np.float32(high))


@pytest.mark.parametrize(("low", "high"), RANGES)
@pytest.mark.parametrize("eps", [0.1, 0.3, 8 / 255, 1e-6])
def test_both_ends_are_inside_and_the_next_step_is_not(low, high, eps):
    x, eps = images(low, high), eps * (high - low)
    bottom, top = (np.asarray(end) for end in norms.ball(x, eps, low, high))
    assert bottom.min() >= np.float32(low) and top.max() <= np.float32(high)
    for end, beyond in ((bottom, -np.inf), (top, np.inf)):
        assert norms.inside(x, end, eps, np.inf, low, high).all()
        for image in range(len(x)):
            moved = end.copy()
            moved[image, 3, 3] = np.nextafter(end[image, 3, 3], beyond)
            found = norms.inside(x, moved, eps, np.inf, low, high)
            assert not found[image] and found.sum() == len(x) - 1


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_at_radius_0_the_image_alone_is_inside(norm):
    x = images(0, 1)
    assert norms.inside(x, x, 0.0, norm).all()
    other = np.nextafter(x, np.float32(2))
    assert not norms.inside(x, other, 0.0, norm).any()


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_of_no_image_none_is_outside(norm):
    none = images(0, 1)[:0]
    assert norms.inside(none, none, 0.1, norm).shape == (0,)


@pytest.mark.parametrize("norm", [2, 1])
def test_lengths_allow_rounding_and_no_more(norm):
    x, rng = images(0, 1), np.random.default_rng(1)
    delta = rng.normal(size=x.shape)
    delta /= np.linalg.norm(delta.reshape(len(x), -1), norm, axis=1)[
        :, None, None, None
    ]
    on, beyond = ((x + s * delta).astype("float32") for s in (1, 1 + 1e-4))
    assert norms.inside(x, on, 1.0, norm).all()
    assert not norms.inside(x, beyond, 1.0, norm).any()


@pytest.mark.parametrize("shape", [(28, 28, 1), (96, 96, 3)])
@pytest.mark.parametrize(("low", "high"), RANGES)
@pytest.mark.parametrize(
    ("norm", "eps"),
    [(np.inf, 0.1), (np.inf, 0.3), (np.inf, 8 / 255), (2, 3.0), (1, 20.0)],
)
def test_a_projection_lands_inside(shape, low, high, norm, eps):
    x, rng = images(low, high, shape), np.random.default_rng(2)
    eps *= high - low
    attack = attacks.FastGradientMethod(eps, norm, low, high)
    for direction in (
        rng.choice([-1.0, 1.0], x.shape),
        rng.normal(size=x.shape) ** 9,
    ):
        far = (x + eps * direction).astype("float32")
        x_adv = attack._project(x, far, tf.constant(eps, tf.float32))
        assert norms.inside(x, x_adv, eps, norm, low, high).all()


def rescaled(low, high):
    scale = 1 / (high - low)
    rescaling = keras.layers.Rescaling(scale, -low * scale)
    return keras.Sequential([keras.Input((28, 28, 1)), rescaling, small_cnn()])


IN_BALL = [
    attacks.FastGradientMethod,
    attacks.ProjectedGradientDescent,
    attacks.AutoProjectedGradientDescent,
    attacks.FastAdaptiveBoundary,
    attacks.SquareAttack,
    attacks.SPSA,
]
FEW = {"nb_iter": 2, "nb_queries": 3, "spsa_samples": 4}


@pytest.mark.parametrize(("low", "high"), RANGES[1:])
@pytest.mark.parametrize("kind", IN_BALL, ids=lambda kind: kind.__name__)
def test_results_are_inside(kind, low, high):
    model, eps = rescaled(low, high), 8 / 255 * (high - low)
    x = images(low, high)[1:]
    attack = kind(eps, clip_min=low, clip_max=high)
    few = {k: v for k, v in FEW.items() if k in attack.get_config()}
    attack = kind(eps, clip_min=low, clip_max=high, **few)
    x_adv = attack.generate(model, x)
    assert norms.inside(x, x_adv, eps, np.inf, low, high).all()


@pytest.mark.parametrize(("low", "high"), RANGES[1:])
def test_results_without_a_ball_stay_in_the_range(low, high):
    model, x = rescaled(low, high), images(low, high)[1:]
    for attack in (
        attacks.DeepFool(max_iter=3, clip_min=low, clip_max=high),
        attacks.CarliniWagnerL2(
            max_iterations=3,
            binary_search_steps=1,
            learning_rate=0.5,
            clip_min=low,
            clip_max=high,
        ),
    ):
        x_adv = attack.generate(model, x)
        far = high - low
        assert norms.inside(x, x_adv, far, np.inf, low, high).all()
