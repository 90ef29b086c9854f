"""The Square Attack: ball, schedule, queries, closed form, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn.attacks import square
from keras_qsn.attacks.square import SquareAttack

QUERIES = 300


def make(eps=0.3, nb_queries=QUERIES, **kwargs):
    return SquareAttack(eps, nb_queries=nb_queries, **kwargs)


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


def seeds(count):
    return tf.constant([[0, i] for i in range(count)])


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


@pytest.mark.parametrize(("name", "broken"), [("none", 0.9), ("hard", 0.25)])
def test_breaks_models_with_and_without_gradients(
    name, broken, trained, images
):
    x, y = images
    model = trained[name]
    clean = (predicted(model, x) != y).mean()
    result = make().run(model, x, y)
    assert result.success.mean() >= clean + 0.1
    assert result.success.mean() >= broken
    assert np.abs(result.x_adv - x).max() <= 0.3 * (1 + 1e-6)
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    still = make(0.0, nb_queries=5).generate(model, x, y)
    np.testing.assert_array_equal(still, x)


def test_needs_no_gradient(trained, images):
    """Of a model that rounds its input, and has no gradient at all."""
    x, y = images

    def logits_fn(x):
        return trained["none"](tf.py_function(np.round, [x], tf.float32))

    x_adv = make(0.6).craft(
        logits_fn, x, tf.constant(y, tf.int32), tf.constant(0.6), seeds(len(x))
    )
    clean = (predicted(logits_fn, x) != y).mean()
    assert (predicted(logits_fn, x_adv) != y).mean() > clean + 0.5


def test_targeted_raises_the_rate_of_the_target(trained, images):
    x, y = images
    model, target = trained["none"], (y + 1) % 10
    result = make().run(model, x, y, y_target=target)
    np.testing.assert_array_equal(result.success, result.prediction == target)
    before = (predicted(model, x) == target).mean()
    assert result.success.mean() > before + 0.3


@pytest.mark.parametrize("channels", [1, 3])
def test_reaches_the_best_point_of_a_linear_model(channels):
    rng = np.random.default_rng(0)
    shape = (4, 5, channels)
    w = rng.normal(size=shape).astype("float32")
    x = np.full((2, *shape), 0.5, "float32")
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    kernel = np.stack([0 * w.ravel(), w.ravel()], 1)
    # Far enough above that the attack cannot succeed and stop.
    model.set_weights([kernel, np.array([0, 100], "float32")])
    found = make(0.1, nb_queries=3000).generate(model, x, [1, 1])
    wanted = np.broadcast_to(-0.1 * np.sign(w), x.shape)
    np.testing.assert_allclose(found - x, wanted, atol=1e-6)


def test_more_queries_or_starts_fool_no_fewer(trained, images):
    x, y = images
    model = trained["hard"]
    one = make(nb_queries=60).run(model, x, y).success
    three = make(nb_queries=60, nb_restarts=3).run(model, x, y).success
    assert not (one & ~three).any() and three.sum() > one.sum()
    assert make().run(model, x, y).success.sum() > one.sum()


def traced(model, x, labels, **kwargs):
    """The images of every query, for images attacked one query at a time."""
    seen = []

    def logits_fn(x):
        seen.append(np.array(x))
        return model(x)

    attack = make(**kwargs)
    labels = tf.constant(labels, tf.int32)
    eps = tf.constant(attack.eps)
    x_adv = attack.craft(logits_fn, x, labels, eps, seeds(len(x)))
    return seen, x_adv.numpy()


def test_queries_are_counted_and_end_with_the_last_fooled_image(
    trained, images
):
    x, _ = images
    model = trained["none"]
    y = predicted(model, x)
    kwargs = dict(nb_queries=20, nb_restarts=2)
    assert len(traced(model, x, y, eps=0.001, **kwargs)[0]) == 2 * 20
    assert len(traced(model, x, (y + 1) % 10, eps=0.0, **kwargs)[0]) == 1
    assert len(traced(model, x, y, eps=0.9, nb_queries=QUERIES)[0]) < QUERIES


def test_the_first_query_is_stripes_and_later_ones_change_a_square(trained):
    x = np.full((3, 28, 28, 1), 0.5, "float32")
    labels = predicted(trained["none"], x)
    seen, x_adv = traced(trained["none"], x, labels, eps=0.01, nb_queries=60)
    stripes = seen[0] - x
    np.testing.assert_allclose(np.abs(stripes), 0.01, atol=1e-7)
    assert (stripes == stripes[:, :1]).all() and stripes.std(2).min() > 0.005
    assert (stripes[0] != stripes[1]).any()
    sides = square._sides(60, 0.8, 28, 28)
    # The last point is `best`; the search goes from better to better.
    for image in range(3):
        best, low = seen[0][image], np.inf
        for side, query in zip(sides, seen):
            changed = np.argwhere((query[image] != best)[..., 0])
            if side:
                extent = np.ptp(changed, axis=0) + 1
                assert 1 <= extent.max() <= side
            z = np.asarray(trained["none"](query))[image]
            loss = z[labels[image]] - np.delete(z, labels[image]).max()
            if loss < low - square._ROUNDING * np.abs(z).max():
                best, low = query[image], loss
        np.testing.assert_array_equal(x_adv[image], best)


def test_sides_are_those_of_the_paper():
    """p_selection, in its own words, at the paper's 10 000 queries."""
    steps = [0, 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000, 10000]
    sides = square._sides(10000, 0.8, 32, 32)
    for i, (first, last) in enumerate(zip(steps, steps[1:])):
        wanted = max(round(np.sqrt(0.8 / 2**i * 32 * 32)), 1)
        assert set(sides[first + 1 : last + 1]) == {wanted}
    # Rescaled to the number of queries; never more than the image.
    assert square._sides(100, 0.8, 32, 32) == [0, *sides[100::100]]
    assert square._sides(2000, 1.0, 4, 9)[:2] == [0, 4]
    assert square._sides(1, 0.8, 4, 9) == [0]


def test_squares_lie_anywhere_in_the_image():
    rng = np.random.default_rng(0)
    place = tf.constant(rng.random((4000, 2)), tf.float32)
    inside = square._square(place, tf.constant(3.0), 5, 7).numpy()[..., 0]
    assert (inside.sum((1, 2)) == 9).all()
    for axis, count in ((2, 3), (1, 5)):
        first = inside.any(axis).argmax(1)
        shares = np.bincount(first, minlength=count) / len(first)
        np.testing.assert_allclose(shares, 1 / count, atol=0.04)


def test_same_seed_same_examples_whatever_the_batch_size(trained, images):
    x, y = images
    model = trained["none"]
    attack = make(nb_queries=50, nb_restarts=2, seed=3)
    whole = attack.generate(model, x, y)
    np.testing.assert_array_equal(whole, attack.generate(model, x, y))
    parts = attack.generate(model, x, y, batch_size=7)
    np.testing.assert_array_equal(whole, parts)
    other = make(nb_queries=50, nb_restarts=2, seed=4).generate(model, x, y)
    assert (other != whole).mean() > 0.1


def test_config_rebuilds_the_attack():
    attack = make(0.2, 70, p_init=0.4, nb_restarts=2, seed=9)
    again = type(attack).from_config(attack.get_config())
    assert again.get_config() == attack.get_config()
    for part in ("nb_queries=70", "p_init=0.4", "nb_restarts=2", "seed=9"):
        assert part in repr(again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1}, "`eps` must be a finite number >= 0. Received: eps=-1"),
        ({"norm": 2}, "`norm` must be one of np.inf. Received: norm=2"),
        ({"nb_queries": 0}, "`nb_queries` must be .* Received: nb_queries=0"),
        ({"nb_queries": 1.5}, "`nb_queries` must be a whole number"),
        ({"nb_restarts": 0}, "`nb_restarts` must be .* nb_restarts=0"),
        ({"p_init": 0}, "`p_init` must be a number above 0, .* p_init=0"),
        ({"p_init": 1.1}, "`p_init` must be a number above 0, at most 1"),
        ({"p_init": np.nan}, "`p_init` must be a number above 0, at most 1"),
        ({"clip_min": 1.0}, "`clip_min` must be below `clip_max`"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        SquareAttack(**arguments)


def test_flat_images():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    x = np.zeros((1, 4), "float32")
    with pytest.raises(ValueError, match=r"images of shape \(height.*\(4,\)"):
        make().generate(model, x, [0])
