"""Sparse-RS: pixels, brute force, schedule, seeds, errors."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn.attacks import SparseRandomSearch


def changed(x_adv, x):
    return (x_adv != x).reshape(len(x), -1).sum(1)


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


def small_net():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((4, 3, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(20, "tanh"),
            keras.layers.Dense(4),
        ]
    )


@pytest.mark.parametrize("count", [1, 2])
def test_finds_what_trying_all_pixels_finds(count):
    model = small_net()
    x = np.random.default_rng(0).uniform(size=(30, 4, 3, 2)).astype("float32")
    # Some pixels at an end, which can go to the other one only.
    x[:, 0] = x[:, 0].round()
    y = np.asarray(model(x)).argmax(-1)
    broken = np.zeros(len(x), bool)
    for places in itertools.combinations(range(24), count):
        for ends in itertools.product((0.0, 1.0), repeat=count):
            tried = x.reshape(len(x), -1).copy()
            tried[:, places] = ends
            logits = np.asarray(model(tried.reshape(x.shape)))
            broken |= logits.argmax(-1) != y
    assert 0.1 < broken.mean() < 0.9
    attack = SparseRandomSearch(count, nb_queries=300, nb_restarts=4)
    result = attack.run(model, x, y)
    np.testing.assert_array_equal(result.success, broken)
    assert (changed(result.x_adv, x) == count).all()
    moved = result.x_adv[result.x_adv != x]
    assert set(moved) == {0.0, 1.0}


def test_targets_range_and_what_is_fooled_already(trained, images):
    x, y = images
    scaled = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)]
    )
    scaled.add(trained["none"])
    attack = SparseRandomSearch(20, 150, clip_max=255.0)
    wrong = np.asarray(trained["none"](x)).argmax(-1) != y
    result = attack.run(scaled, 255 * x, y)
    assert (changed(result.x_adv, 255 * x)[~wrong] == 20).all()
    np.testing.assert_array_equal(result.x_adv[wrong], 255 * x[wrong])
    assert set(result.x_adv[result.x_adv != 255 * x]) <= {0.0, 255.0}
    assert result.success.mean() > wrong.mean() + 0.3
    target = (y + 1) % 10
    aimed = attack.run(scaled, 255 * x, y_target=target)
    before = np.asarray(trained["none"](x)).argmax(-1) == target
    assert aimed.success.sum() > before.sum()


def test_more_queries_and_starts_break_no_fewer(trained, images):
    x, y = images
    few, many, starts = (
        SparseRandomSearch(8, *effort).run(trained["none"], x, y).success
        for effort in ((30,), (300,), (30, 0.3, 3))
    )
    assert many.sum() > few.sum()
    # What the first start breaks, later ones leave alone.
    assert not (few & ~starts).any() and starts.sum() > few.sum()


def test_same_seed_same_pixels_whatever_the_batch_size(trained, images):
    x, y = images
    attack = SparseRandomSearch(8, 20, seed=3)
    whole, parts = (
        attack.generate(trained["none"], x, y, batch_size=n) for n in (50, 7)
    )
    assert (whole == parts).reshape(len(x), -1).all(1).mean() > 0.95
    other = SparseRandomSearch(8, 20, seed=4).generate(trained["none"], x, y)
    assert (other != whole).any()


def test_no_pixel_and_all_pixels(trained, images):
    x, y = images
    still = SparseRandomSearch(0, 5).generate(trained["none"], x, y)
    np.testing.assert_array_equal(still, x)
    wrong = np.asarray(trained["none"](x)).argmax(-1) != y
    every = SparseRandomSearch(784, 5).generate(trained["none"], x, y)
    assert (changed(every, x)[~wrong] == 784).all()


def test_fewer_pixels_are_swapped_in_the_course_of_the_search():
    attack = SparseRandomSearch(400, 1000, 0.5)
    found = [
        int(attack._swapped(i, tf.constant(400.0)))
        for i in (1, 5, 6, 20, 21, 51, 101, 201, 401, 601, 801, 999)
    ]
    assert found == [100, 100, 50, 50, 40, 33, 25, 20, 16, 13, 10, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 2.5}, "`eps` must be a whole number for `norm=0`"),
        ({"eps": -1}, "`eps` must be a finite number >= 0"),
        ({"eps": None}, "SparseRandomSearch works inside a ball"),
        ({"share": 2}, "`share` must be a number from 0 to 1"),
        ({"nb_queries": 0}, "`nb_queries` must be a whole number"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparseRandomSearch(**arguments)


def test_config_rebuilds_the_attack():
    attack = SparseRandomSearch(3, 50, 0.5, 2, 0.0, 255.0, 7)
    again = SparseRandomSearch.from_config(attack.get_config())
    assert repr(again) == repr(attack) and again.threat == "queries"
