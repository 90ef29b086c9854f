"""Ranges of pixels, also one for each feature; seeds."""

import keras
import numpy as np
import pytest

from keras_qsn import attacks
from keras_qsn.attacks import norms
from keras_qsn.layers import ConstantQuantization

SHAPE = (6, 6, 2)
FEW = {
    "nb_iter": 2,
    "nb_queries": 4,
    "max_iter": 2,
    "max_iterations": 2,
    "binary_search_steps": 1,
    "learning_rate": 0.1,
    "spsa_samples": 4,
    "epsilons": 5,
    "num_iterations": 1,
    "initial_num_evals": 4,
    "init_size": 4,
    "max_pixels": 4,
    "nb_restarts": 1,
}
KINDS = [
    attacks.AdditiveGaussianNoiseAttack,
    attacks.AnnealedBPDA,
    attacks.AutoAttack,
    attacks.AutoProjectedGradientDescent,
    attacks.CarliniWagnerL2,
    attacks.CubeAttack,
    attacks.DecoupledDirectionNorm,
    attacks.DeepFool,
    attacks.FastAdaptiveBoundary,
    attacks.FastGradientMethod,
    attacks.FastMinimumNorm,
    attacks.HopSkipJumpAttack,
    attacks.LevelFlipAttack,
    attacks.LocalSearchAttack,
    attacks.MomentumIterativeMethod,
    attacks.PointwiseAttack,
    attacks.ProjectedGradientDescent,
    attacks.SPSA,
    attacks.SaliencyMapMethod,
    attacks.SigmaZero,
    attacks.SinglePixelAttack,
    attacks.SparseRandomSearch,
    attacks.SquareAttack,
]
ID = {"ids": lambda kind: kind.__name__}


def make(kind, low, high, **kwargs):
    config = kind().get_config()
    few = {k: v for k, v in {**FEW, **kwargs}.items() if k in config}
    return kind(clip_min=low, clip_max=high, **few)


def model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            ConstantQuantization(4, steepness=5.0),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )


def images(low, high, count=6):
    share = np.random.default_rng(0).uniform(size=(count, *SHAPE))
    x = (low + share * np.subtract(high, low)).astype("float32")
    return np.clip(x, np.float32(low), np.float32(high))


@pytest.mark.parametrize("kind", KINDS, **ID)
def test_arrays_of_one_number_are_that_number(kind):
    classifier, x = model(), images(0, 1)
    number, arrays = (
        make(kind, low, high).run(classifier, x, verbose=0)
        for low, high in ((0, 1), (np.zeros(SHAPE), np.ones((1, 1, 2))))
    )
    np.testing.assert_array_equal(number.x_adv, arrays.x_adv)
    np.testing.assert_array_equal(number.success, arrays.success)


@pytest.mark.parametrize("kind", KINDS, **ID)
def test_each_feature_stays_in_its_range(kind):
    low = np.linspace(-1.0, 0.2, 72).reshape(SHAPE)
    high = low + np.linspace(0.4, 1.3, 72).reshape(SHAPE)
    classifier, x = model(), images(low, high)
    # A radius, or a number of pixels.
    eps = 2 if kind is attacks.SparseRandomSearch else 0.25
    attack = make(kind, low, high, eps=eps)
    x_adv = attack.generate(classifier, x, verbose=0)
    assert (x_adv >= np.float32(low)).all()
    assert (x_adv <= np.float32(high)).all()
    if attack.eps is not None:
        eps, norm = attack.eps, attack.norm
        assert norms.inside(x, x_adv, eps, norm, low, high).all()


def test_a_config_holds_lists():
    attack = attacks.SquareAttack(0.5, clip_min=[-1.0, 0.0], clip_max=[1, 2])
    config = attack.get_config()
    assert (config["clip_min"], config["clip_max"]) == ([-1, 0], [1, 2])
    again = attacks.SquareAttack.from_config(config)
    assert repr(again) == repr(attack)
    np.testing.assert_array_equal(again.clip_max, attack.clip_max)


def test_attacks_of_other_ranges_share_no_function():
    classifier = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, "tanh"),
            keras.layers.Dense(3),
        ]
    )
    x = np.full((4, 2), 0.5, "float32")
    for high in ([0.6, 0.9], [0.9, 0.6]):
        attack = attacks.ProjectedGradientDescent(0.5, clip_max=high)
        assert (attack.generate(classifier, x) <= np.float32(high)).all()


def test_the_widest_feature_limits_eps():
    attacks.FastGradientMethod(5.0, clip_max=[1.0, 6.0])
    with pytest.raises(ValueError, match="at most 6 for pixels in a range"):
        attacks.FastGradientMethod(7.0, clip_max=[1.0, 6.0])


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([0.0, 1.0], 1.0, "`clip_min` must be below `clip_max`, for each"),
        (0.0, [1.0, 0.0], "`clip_min` must be below `clip_max`, for each"),
        (np.zeros(2), np.ones(3), "of one shape"),
        (0.0, np.nan, "`clip_min` must be below `clip_max`"),
        ("zero", 1.0, "`clip_min` and `clip_max` must be numbers, or arrays"),
    ],
)
def test_ends_that_are_no_range(low, high, message):
    with pytest.raises(ValueError, match=message):
        attacks.FastGradientMethod(0.1, clip_min=low, clip_max=high)


def test_ranges_for_other_images():
    attack = attacks.FastGradientMethod(0.1, clip_max=np.ones(5))
    with pytest.raises(ValueError, match="broadcast"):
        attack.generate(model(), images(0, 1))


@pytest.mark.parametrize("seed", [-5, np.int64(7), np.uint8(3), 2.0, 2**31 - 1])
def test_seeds_that_are_whole_numbers(seed):
    attack = attacks.ProjectedGradientDescent(0.1, nb_iter=1, seed=seed)
    same = attacks.ProjectedGradientDescent(0.1, nb_iter=1, seed=int(seed))
    assert type(attack.seed) is int
    classifier, x = model(), images(0, 1)
    np.testing.assert_array_equal(
        attack.generate(classifier, x), same.generate(classifier, x)
    )


@pytest.mark.parametrize("seed", [2**40, -(2**31) - 1, 1.5, np.nan, "1", None])
def test_seeds_that_are_none(seed):
    with pytest.raises(ValueError, match="`seed` must be a whole number from"):
        attacks.ProjectedGradientDescent(seed=seed)
