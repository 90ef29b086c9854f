"""The Square Attack: ball, schedule, queries, closed form, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn.attacks.scores import square
from keras_qsn.attacks.scores import square_proposals as proposals
from keras_qsn.attacks.scores.square import SquareAttack

QUERIES = 300
EPS = {np.inf: 0.3, 2: 3.0}
NORMS = pytest.mark.parametrize("norm", EPS)


def make(eps=0.3, nb_queries=QUERIES, **kwargs):
    return SquareAttack(eps, nb_queries=nb_queries, **kwargs)


def sizes(delta, norm):
    flat = delta.reshape(len(delta), -1).astype("float64")
    return np.linalg.norm(flat, norm, axis=1)


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


def seeds(count):
    return tf.constant([[0, i] for i in range(count)])


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


@pytest.mark.parametrize(
    ("norm", "name", "broken"),
    [
        (np.inf, "none", 0.9),
        (np.inf, "hard", 0.25),
        (2, "none", 0.75),
        (2, "hard", 0.5),
    ],
)
def test_breaks_models_with_and_without_gradients(
    norm, name, broken, trained, images
):
    x, y = images
    model = trained[name]
    clean = (predicted(model, x) != y).mean()
    result = make(EPS[norm], norm=norm).run(model, x, y)
    assert result.success.mean() >= clean + 0.1
    assert result.success.mean() >= broken
    assert sizes(result.x_adv - x, norm).max() <= EPS[norm] * (1 + 1e-6)
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    still = make(0.0, nb_queries=5, norm=norm).generate(model, x, y)
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


@NORMS
def test_targeted_raises_the_rate_of_the_target(norm, trained, images):
    x, y = images
    model, target = trained["none"], (y + 1) % 10
    result = make(EPS[norm], norm=norm).run(model, x, y, y_target=target)
    np.testing.assert_array_equal(result.success, result.prediction == target)
    before = (predicted(model, x) == target).mean()
    assert result.success.mean() > before + 0.3


def attacked_hyperplane(channels, **kwargs):
    """Perturbations of a linear model of 4x5 images, and its normal."""
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
    return make(**kwargs).generate(model, x, [1, 1]) - x, w


@pytest.mark.parametrize("channels", [1, 3])
def test_reaches_the_best_point_of_a_linear_model(channels):
    found, w = attacked_hyperplane(channels, eps=0.1, nb_queries=3000)
    wanted = np.broadcast_to(-0.1 * np.sign(w), found.shape)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_nears_the_best_point_of_a_linear_model_in_l2(channels):
    found, w = attacked_hyperplane(channels, eps=0.4, nb_queries=3000, norm=2)
    np.testing.assert_allclose(sizes(found, 2), 0.4, rtol=1e-3)
    gain = -(found * w).sum((1, 2, 3)) / (0.4 * np.linalg.norm(w))
    assert gain.min() > 0.5


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


@NORMS
def test_queries_are_counted_and_end_with_the_last_fooled_image(
    norm, trained, images
):
    x, _ = images
    model = trained["none"]
    y = predicted(model, x)
    kwargs = dict(norm=norm, nb_queries=20, nb_restarts=2)
    assert len(traced(model, x, y, eps=0.001, **kwargs)[0]) == 2 * 20
    assert len(traced(model, x, (y + 1) % 10, eps=0.0, **kwargs)[0]) == 1
    kwargs = dict(norm=norm, nb_queries=QUERIES)
    assert len(traced(model, x, y, eps=3 * EPS[norm], **kwargs)[0]) < QUERIES


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
    rows, columns = proposals._offsets(place, 3, 5, 7)
    inside = proposals._within(rows, columns, 3).numpy()[..., 0]
    assert (inside.sum((1, 2)) == 9).all()
    for axis, count in ((2, 3), (1, 5)):
        first = inside.any(axis).argmax(1)
        shares = np.bincount(first, minlength=count) / len(first)
        np.testing.assert_allclose(shares, 1 / count, atol=0.04)


@pytest.mark.parametrize("side", [2, 3, 4, 7, 10])
def test_bumps_are_those_of_the_paper(side):
    """Eq. (2), in its own words, and half as many rows of each sign."""

    def eta(h1, h2):
        n = max(h1, h2) // 2
        values = np.zeros((h1, h2))
        for r in range(1, h1 + 1):
            for s in range(1, h2 + 1):
                away = max(abs(r - h1 // 2 - 1), abs(s - h2 // 2 - 1))
                values[r - 1, s - 1] = sum(
                    1 / (n + 1 - k) ** 2 for k in range(n - away + 1)
                )
        return values

    half = side // 2
    wanted = np.concatenate([eta(half, side), -eta(side - half, side)])
    found = proposals.bumps(side)
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted))


def test_l2_starts_with_tiles_of_equal_size():
    windows = proposals.MovedWindows((28, 30, 3), [0, 9])
    assert windows.start_size == 5 * 6 * (1 + 3)
    rng = np.random.default_rng(0)
    numbers = rng.random((2, windows.start_size)).astype("float32")
    start = windows.start(numbers).numpy()
    assert start.shape == (2, 28, 30, 3)
    np.testing.assert_allclose(sizes(start, 2), 1, rtol=1e-4)
    assert not start[:, 0].any() and not start[:, 26:].any()
    tiles = start[:, 1:26].reshape(2, 5, 5, 6, 5, 3).transpose(0, 1, 3, 5, 2, 4)
    np.testing.assert_allclose(
        np.linalg.norm(tiles, axis=(4, 5)) ** 2, 1 / (5 * 6 * 3), rtol=1e-4
    )
    shape = proposals.bumps(5)
    kinds = [s * t for s in (1, -1) for t in (shape, shape.T)]
    tiles = tiles.reshape(-1, 5, 5) * (5 * 6 * 3) ** 0.5
    apart = [abs(tiles - kind).max((1, 2)) < 1e-4 for kind in kinds]
    # One of the four, and each of them somewhere.
    assert (np.sum(apart, 0) == 1).all() and np.any(apart, 1).all()


def test_a_moved_window_is_that_of_the_paper():
    """Algorithm 3, for each image by itself, in plain NumPy."""
    height, width, channels, side, eps = 9, 8, 3, 5, 0.7
    rng = np.random.default_rng(0)
    image = np.full((40, height, width, channels), 0.5, "float32")
    best = image + rng.normal(size=image.shape).astype("float32") / 50
    windows = proposals.MovedWindows((height, width, channels), [0, side])
    numbers = rng.random((40, windows.query_size)).astype("float32")

    def put(image, perturbation):
        return image + perturbation

    def propose(k):
        return windows.propose(k, image, best, numbers, eps, put).numpy()

    # The first query is of the start itself.
    np.testing.assert_array_equal(propose(0), best)
    found = propose(1)
    for i, drawn in enumerate(numbers):
        corners = drawn[:4] * (np.array([height, width] * 2) - side + 1)
        r1, s1, r2, s2 = np.floor(corners).astype(int)
        w1 = np.zeros((height, width), bool)
        w2 = w1.copy()
        w1[r1 : r1 + side, s1 : s1 + side] = True
        w2[r2 : r2 + side, s2 : s2 + side] = True
        v = (best[i] - image[i]).astype("float64")
        unused = eps**2 - np.sum(v**2)
        eta = proposals.bumps(side)
        eta = eta.T if drawn[4] < 0.5 else eta
        for c in range(channels):
            rho = -1 if drawn[5 + c] < 0.5 else 1
            old = v[..., c][w1]
            new = rho * eta.ravel() + old / np.linalg.norm(old)
            available = np.sum(v[..., c][w1 | w2] ** 2) + unused / channels
            v[..., c][w2] = 0
            v[..., c][w1] = new / np.linalg.norm(new) * available**0.5
        np.testing.assert_allclose(found[i] - image[i], v, atol=1e-5)
    np.testing.assert_allclose(sizes(found - image, 2), eps, rtol=1e-4)


def test_windows_of_l2_are_odd_and_not_too_small():
    def sides(shape, wanted):
        return proposals.MovedWindows(shape, wanted)._sides.numpy().tolist()

    assert sides((28, 28, 1), [0, 25, 18, 4, 1]) == [0, 25, 19, 5, 3]
    assert sides((2, 9, 1), [0, 2, 1]) == [0, 2, 2]


@pytest.mark.parametrize("shape", [(2, 9, 1), (1, 1, 1), (12, 7, 3)])
def test_images_of_any_shape_in_l2(shape):
    rng = np.random.default_rng(0)
    x = rng.random((3, *shape)).astype("float32")
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    y = predicted(model, x)
    x_adv = make(0.1, nb_queries=30, norm=2).generate(model, x, y)
    assert sizes(x_adv - x, 2).max() <= 0.1 * (1 + 1e-6)
    assert (x_adv != x).any((1, 2, 3)).all()


@NORMS
def test_same_seed_same_examples_whatever_the_batch_size(norm, trained, images):
    x, y = images
    model = trained["none"]
    kwargs = dict(eps=EPS[norm] / 2, norm=norm, nb_queries=50, nb_restarts=2)
    attack = make(**kwargs, seed=3)
    whole = attack.generate(model, x, y)
    np.testing.assert_array_equal(whole, attack.generate(model, x, y))
    parts = attack.generate(model, x, y, batch_size=7)
    np.testing.assert_array_equal(whole, parts)
    other = make(**kwargs, seed=4).generate(model, x, y)
    assert (other != whole).mean() > 0.1


def test_config_rebuilds_the_attack():
    attack = make(0.2, 70, norm=2, p_init=0.4, nb_restarts=2, seed=9)
    again = type(attack).from_config(attack.get_config())
    assert again.get_config() == attack.get_config()
    for part in ("nb_queries=70", "p_init=0.4", "nb_restarts=2", "seed=9"):
        assert part in repr(again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1}, "`eps` must be a finite number >= 0. Received: eps=-1"),
        ({"norm": 1}, "`norm` must be one of np.inf, 2. Received: norm=1"),
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


@pytest.mark.parametrize("norm", [np.inf, 2])
@pytest.mark.parametrize("shape", [(40,), (20, 2)])
def test_vectors_and_sequences(shape, norm):
    """Segments in place of squares: a linear model falls to them."""
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.layers[-1].kernel.assign(rng.normal(size=(40, 2)))
    x = rng.uniform(0.2, 0.8, (30, *shape)).astype("float32")
    y = predicted(model, x)
    eps = 0.15 if norm == np.inf else 0.8
    found = [
        make(eps, norm=norm, nb_queries=n).run(model, x, y) for n in (1, 300)
    ]
    once, often = (result.success.mean() for result in found)
    assert often > once + 0.2 and often > 0.6
    assert sizes(found[1].x_adv - x, norm).max() <= eps * (1 + 1e-6)


def test_segments_are_of_the_schedule():
    assert square._sides(10000, 0.8, 1, 50)[1] == 40
    assert min(square._sides(10000, 0.8, 1, 50)[1:]) == 1
    for side in (1, 2, 3, 7):
        line = proposals._bumps_in_a_row(side)
        np.testing.assert_array_equal(line[0], line[:, 0])
        assert np.linalg.norm(line[0]) == pytest.approx(1)


def test_images_of_four_axes():
    model = keras.Sequential(
        [keras.Input((2, 2, 2, 1)), keras.layers.Flatten()]
        + [keras.layers.Dense(2)]
    )
    x = np.zeros((1, 2, 2, 2, 1), "float32")
    with pytest.raises(ValueError, match=r"images of shape \(height.*2, 2, 2"):
        make().generate(model, x, [0])
