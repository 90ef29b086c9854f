"""Single pixel, local search and SPSA: closed forms, queries, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import linear_model
from keras_qsn.attacks.scores import spsa
from keras_qsn.attacks.scores.local_search import LocalSearchAttack
from keras_qsn.attacks.scores.single_pixel import SinglePixelAttack
from keras_qsn.attacks.scores.spsa import SPSA
from keras_qsn.attacks.white_box.gradient import ProjectedGradientDescent
from keras_qsn.layers import ConstantQuantization

FAST = dict(nb_iter=20, learning_rate=0.05, spsa_samples=32)


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


def changed(x_adv, x):
    """Changed pixels of each image; a pixel has all its channels."""
    return (x_adv != x).any(-1).sum((1, 2))


def seeds(count):
    return tf.constant([[0, i] for i in range(count)])


def traced(attack, logits_fn, x, labels, targeted=False):
    """The images of every query, and the result."""
    seen = []

    def spy(x):
        seen.append(np.array(x))
        return logits_fn(x)

    x_adv = attack.craft(
        spy,
        tf.constant(x),
        tf.constant(labels, tf.int32),
        tf.constant(attack.eps or 0.0),
        seeds(len(x)),
        targeted,
    )
    return seen, x_adv.numpy()


@pytest.fixture
def images(digits):
    return digits.x_test[::40], digits.y_test[::40]


@pytest.fixture(scope="module")
def linear_images():
    """Images of 4x5 pixels, two channels, and a linear model of them."""
    rng = np.random.default_rng(0)
    x = rng.random((60, 4, 5, 2), "float32")
    w = rng.normal(size=x.shape[1:]).astype("float32")
    flat = linear_model(w.ravel(), -float(w.ravel() @ x[0].ravel()))
    model = keras.Sequential([keras.Input(w.shape), keras.layers.Flatten()])
    model.add(flat.layers[-1])
    return model, x, w


@pytest.mark.parametrize("name", ["none", "hard"])
@pytest.mark.parametrize(
    ("attack", "most", "usual", "broken"),
    [
        (SinglePixelAttack(40), 1, 1, 0.0),
        (LocalSearchAttack(), 750, 30, 0.95),
    ],
    ids=["single", "local"],
)
def test_successes_are_real_and_failures_unchanged(
    attack, most, usual, broken, name, trained, images
):
    model, (x, y) = trained[name], images
    result = attack.run(model, x, y)
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    np.testing.assert_array_equal(
        result.prediction, predicted(model, result.x_adv)
    )
    np.testing.assert_array_equal(result.success, result.prediction != y)
    count = changed(result.x_adv, x)
    assert count.max() <= most and np.median(count) <= usual
    assert (count[~result.success] == 0).all()
    # Nothing is to be done where the model is wrong already.
    wrong = predicted(model, x) != y
    assert (count[wrong] == 0).all()
    assert result.success.mean() >= max(broken, wrong.mean())


@pytest.mark.parametrize(
    "attack",
    [
        SinglePixelAttack(40, seed=3),
        LocalSearchAttack(nb_iter=5, seed=3),
        SPSA(nb_iter=5, spsa_samples=8, seed=3),
    ],
    ids=["single", "local", "spsa"],
)
def test_same_seed_same_examples_whatever_the_batch_size(
    attack, trained, images
):
    x, _ = images
    model = trained["none"]
    target = (predicted(model, x) + 1) % 10
    whole = attack.run(model, x, y_target=target)
    parts = attack.run(model, x, y_target=target, batch_size=7)
    np.testing.assert_array_equal(whole.success, parts.success)
    # A finite difference keeps the rounding of the logits.
    tolerance = 1e-3 if isinstance(attack, SPSA) else 0
    np.testing.assert_allclose(whole.x_adv, parts.x_adv, atol=tolerance)


@pytest.mark.parametrize(
    "attack",
    [
        SinglePixelAttack(),
        SinglePixelAttack(7, -1.0, 2.0, 9),
        LocalSearchAttack(),
        LocalSearchAttack(0.5, 2, 3, 4, -1.0, 2.0, 9),
        SPSA(),
        SPSA(0.2, 3, 0.1, 0.2, 4, 5, -1.0, 2.0, 9),
    ],
)
def test_config_rebuilds_the_attack(attack):
    config = attack.get_config()
    assert repr(type(attack).from_config(config)) == repr(attack)
    assert ("eps" in config) == isinstance(attack, SPSA)
    assert "norm" not in config


@pytest.mark.parametrize(
    ("attack", "arguments", "message"),
    [
        (SinglePixelAttack, {"max_pixels": 0}, "`max_pixels` must be .*=0"),
        (SinglePixelAttack, {"max_pixels": 1.5}, "must be a whole number"),
        (SinglePixelAttack, {"clip_min": 1.0}, "`clip_min` must be below"),
        (LocalSearchAttack, {"scale": 1}, "`scale` must be .*: scale=1"),
        (LocalSearchAttack, {"scale": 2.1}, "`scale` must be .* 0 to 2 other"),
        (LocalSearchAttack, {"scale": -0.1}, "Received: scale=-0.1"),
        (LocalSearchAttack, {"scale": np.nan}, "Received: scale=nan"),
        (LocalSearchAttack, {"neighborhood": 0}, "`neighborhood` must be"),
        (LocalSearchAttack, {"pixels_per_iter": 0}, "`pixels_per_iter` must"),
        (LocalSearchAttack, {"nb_iter": 0}, "`nb_iter` must be .* nb_iter=0"),
        (SPSA, {"eps": -1}, "`eps` must be a finite number >= 0"),
        (SPSA, {"eps": None}, "`eps` must be a number: SPSA works inside"),
        (SPSA, {"nb_iter": 0}, "`nb_iter` must be .* Received: nb_iter=0"),
        (SPSA, {"learning_rate": 0}, "`learning_rate` must .*learning_rate=0"),
        (SPSA, {"delta": np.inf}, "`delta` must .* Received: delta=inf"),
        (SPSA, {"spsa_samples": 1}, "`spsa_samples` must be .* least 2"),
        (SPSA, {"spsa_samples": 9}, "`spsa_samples` must be even.*=9"),
        (SPSA, {"spsa_iters": 0}, "`spsa_iters` must be .* spsa_iters=0"),
    ],
)
def test_bad_parameters(attack, arguments, message):
    with pytest.raises(ValueError, match=message):
        attack(**arguments)


@pytest.mark.parametrize("attack", [SinglePixelAttack(), LocalSearchAttack()])
def test_flat_images(attack):
    with pytest.raises(ValueError, match=r"images of shape \(height.*\(4,\)"):
        attack.generate(linear_model(np.ones(4)), np.zeros((1, 4), "float32"))


class TestSinglePixelAttack:
    @pytest.mark.parametrize("targeted", [False, True])
    def test_finds_a_pixel_wherever_there_is_one(self, linear_images, targeted):
        model, x, w = linear_images
        scores = np.asarray(model(x))
        y = scores.argmax(1)
        labels = {"y_target": 1 - y} if targeted else {"y": y}
        result = SinglePixelAttack().run(model, x, **labels)
        # The score after each pixel has become 0, or 1, in both channels.
        after = np.stack(
            [
                scores[:, 1, None, None] + (w * (value - x)).sum(-1)
                for value in (0, 1)
            ],
            -1,
        )
        fooling = (after > 0) != y[:, None, None, None]
        np.testing.assert_array_equal(result.success, fooling.any((1, 2, 3)))
        assert 0 < result.success.mean() < 1
        for i in np.flatnonzero(result.success):
            ((row, column),) = np.argwhere((result.x_adv != x)[i].any(-1))
            (value,) = set(result.x_adv[i, row, column])
            assert value in (0, 1) and fooling[i, row, column, int(value)]

    def test_tries_each_pixel_and_value_once(self, linear_images):
        model, x, _ = linear_images
        image = x[:1].copy()
        # Black, white, and of both: a value that is there is not tried.
        image[0, 0, 0], image[0, 0, 1], image[0, 0, 2] = 0, 1, (0, 1)
        target = [5]

        def three_classes(x):
            return tf.pad(model(x), [[0, 0], [0, 4]], constant_values=-9.0)

        seen, x_adv = traced(
            SinglePixelAttack(), three_classes, image, target, targeted=True
        )
        np.testing.assert_array_equal(x_adv, image)
        seen = np.concatenate(seen[1:])
        assert len(seen) == len(np.unique(seen, axis=0)) == 2 * 20 - 2
        assert (changed(seen, image) == 1).all()
        assert set(seen[seen != np.broadcast_to(image, seen.shape)]) == {0, 1}
        # Of four pixels, both values each where they change it.
        seen, _ = traced(
            SinglePixelAttack(4), three_classes, image, target, targeted=True
        )
        seen = np.concatenate(seen[1:])
        assert ((seen != image).any((0, -1))).sum() == 4

    def test_an_image_leaves_the_batch_with_its_success(self, linear_images):
        model, x, _ = linear_images
        y = predicted(model, x)
        seen, x_adv = traced(SinglePixelAttack(), model, x, y)
        sizes = [len(query) for query in seen]
        assert sizes == sorted(sizes, reverse=True) and len(seen) <= 1 + 40
        fooled = predicted(model, x_adv) != y
        assert sizes[-1] <= (~fooled).sum()
        # All are wrong already.
        assert len(traced(SinglePixelAttack(), model, x, 1 - y)[0]) == 1

    def test_the_order_is_random(self, linear_images):
        model, x, _ = linear_images
        y = predicted(model, x)
        found = [
            SinglePixelAttack(seed=seed).generate(model, x, y)
            for seed in range(2)
        ]
        assert (changed(found[0], found[1]) > 0).sum() > 5
        # Each image has an order of its own.
        seen, _ = traced(SinglePixelAttack(), model, x[[1, 1, 1]], y[[1, 1, 1]])
        assert len(np.unique(seen[1], axis=0)) > 1


class TestLocalSearchAttack:
    @pytest.mark.parametrize(
        ("low", "high"), [(0.0, 1.0), (-1.0, 3.0), (0.0, 255.0)]
    )
    @pytest.mark.parametrize(
        ("scale", "wanted"),
        [
            (1.5, [0.75, 0.9, 0.2, 0.5, 0.65, 0.1, 0.25]),
            (2.0, [0.5, 0.7, 0.1, 0.5, 0.7, 0.3, 0.5]),
            (0.0, [0.5] * 7),
        ],
    )
    def test_the_change_wraps_around(self, low, high, scale, wanted):
        pixels = np.array([0.0, 0.1, 0.3, 0.5, 0.6, 0.9, 1.0], "float32")
        attack = LocalSearchAttack(scale, clip_min=low, clip_max=high)
        found = attack._changed(low + (high - low) * pixels)
        wanted = low + (high - low) * np.array(wanted)
        np.testing.assert_allclose(found, wanted, atol=1e-6 * (high - low))

    @pytest.mark.parametrize("targeted", [False, True])
    def test_each_round_changes_the_best_of_what_it_tried(self, targeted):
        """By queries of one image, of a linear model that is not fooled."""
        rng = np.random.default_rng(0)
        w = rng.normal(size=(12, 13, 2)).astype("float32")
        x = rng.random((1, *w.shape), "float32")

        def logits_fn(x):
            score = 200 + tf.reduce_sum(x * w, [1, 2, 3])
            return tf.stack([0 * score, score], 1)

        attack = LocalSearchAttack(1.5, 2, 3, nb_iter=4, seed=1)
        label = 0 if targeted else 1
        seen, x_adv = traced(attack, logits_fn, x, [label], targeted)
        assert (seen[0] == x).all()
        (current,), (queries, picked) = x, ([q[0] for q in seen[1:]], None)
        for _ in range(4):
            np.testing.assert_array_equal(queries.pop(0), current)
            tried = []
            while (queries[0] != current).any(-1).sum() == 1:
                tried.append(queries.pop(0))
            after, tried = queries.pop(0), np.array(tried)
            _, *places = np.nonzero((tried != current).any(-1))
            places = np.transpose(places)
            assert len(np.unique(places, axis=0)) == len(places) == len(tried)
            if picked is None:
                assert len(places) == 15
            else:
                grid = np.indices(w.shape[:2]).reshape(2, -1).T
                near = np.abs(grid[:, None] - picked).max(-1).min(1) <= 2
                assert {*map(tuple, places)} == {*map(tuple, grid[near])}
            drop = ((current - tried) * w).sum((1, 2, 3))
            best = np.argsort(-drop)[:3]
            picked = np.argwhere((after != current).any(-1))
            assert {*map(tuple, picked)} == {*map(tuple, places[best])}
            step = (tried[best] - current).sum(0)
            np.testing.assert_allclose(after, current + step, atol=1e-6)
            current = after
        assert not queries
        np.testing.assert_array_equal(x_adv[0], current)

    def test_tries_128_others_each_round_and_no_batch_is_larger(self):
        x = np.random.default_rng(0).random((3, 40, 40, 1), "float32")

        def logits_fn(x):
            score = 9 + tf.reduce_mean(x, [1, 2, 3])
            return tf.stack([0 * score, score], 1)

        attack = LocalSearchAttack(nb_iter=3, neighborhood=40)
        seen, _ = traced(attack, logits_fn, x, [1, 1, 1])
        assert {len(query) for query in seen} == {3}
        assert len(seen) == 1 + 3 * (1 + 128 + 1)
        tried = set()
        for i in range(3):
            current, *queries, _ = seen[1 + 130 * i : 1 + 130 * (i + 1)]
            # Of the first image come first.
            places = np.nonzero(np.concatenate(queries)[:128] != current[0])
            tried |= {*zip(*places[1:])}
        assert len(tried) > 2 * 128

    def test_changes_only_what_it_tried(self):
        """A tenth of 5x5 pixels, which is less than a round may change."""
        x = np.random.default_rng(0).random((4, 5, 5, 1), "float32")

        def logits_fn(x):
            score = 9 + tf.reduce_mean(x, [1, 2, 3])
            return tf.stack([0 * score, score], 1)

        attack = LocalSearchAttack(pixels_per_iter=9, nb_iter=1)
        _, x_adv = traced(attack, logits_fn, x, [1] * 4)
        np.testing.assert_array_equal(changed(x_adv, x), 2)

    def test_rounding_is_no_gain(self):
        def logits_fn(x):
            noise = 1e-7 * tf.sin(1e4 * tf.reduce_sum(x, [1, 2, 3]))
            return tf.stack([noise, 1 - noise - x[:, 1, 0, 0]], 1)

        x = np.random.default_rng(0).random((1, 2, 3, 1), "float32")
        places = tf.range(6)[None]
        gains = LocalSearchAttack()._gains(
            *(logits_fn, tf.constant(x), tf.constant([1]), False),
            *(places, places != 2, 4),
        )
        np.testing.assert_array_equal(
            gains[0].numpy()[[0, 1, 2, 4, 5]], [0, 0, -np.inf, 0, 0]
        )
        assert abs(gains[0, 3]) > 1000

    def test_targeted_rate_grows_with_the_rounds(self, trained, images):
        x, y = images
        target = (predicted(trained["none"], x) + 1) % 10
        rates = []
        for rounds in (2, 50):
            result = LocalSearchAttack(nb_iter=rounds).run(
                trained["none"], x, y_target=target
            )
            np.testing.assert_array_equal(
                result.success, result.prediction == target
            )
            assert changed(result.x_adv, x).max() <= 5 * rounds
            rates.append(result.success.mean())
        assert rates[0] < 0.5 and rates[1] > 0.9

    def test_scores_that_saturate_still_count(self):
        """Logits of which the softmax is 0 and 1 to the last bit."""
        w = np.zeros((5, 5, 1), "float32")
        w[1, 2] = w[3, 3] = 40

        def logits_fn(x):
            score = 20 + tf.reduce_sum(x * w, [1, 2, 3])
            return tf.stack([0 * score, score], 1)

        x = np.full((1, 5, 5, 1), 0.9, "float32")
        attack = LocalSearchAttack(pixels_per_iter=1, nb_iter=8)
        _, x_adv = traced(attack, logits_fn, x, [1])
        moved = np.argwhere((x_adv != x)[0, :, :, 0])
        assert {(1, 2), (3, 3)} <= {*map(tuple, moved)}


class TestSPSA:
    w = np.array([3.0, -1.0, 0.5, -2.0, 1.0, -0.7], "float32")
    x = np.array([[0.3] * 6, [0.6, 0.3, 0.5, 0.4, 0.5, 0.7]], "float32")

    def estimate(self, attack, logits_fn, targeted=False, size=2):
        return attack._estimate(
            logits_fn,
            tf.constant(self.x),
            tf.constant([1, 1]),
            seeds(2),
            7,
            targeted,
            size,
        ).numpy()

    @pytest.mark.parametrize("targeted", [False, True])
    def test_estimate_is_the_gradient_in_expectation(self, targeted):
        attack = SPSA(spsa_samples=400, spsa_iters=5)
        found = self.estimate(attack, linear_model(self.w), targeted, 500)
        wanted = self.w if targeted else -self.w
        # Of n directions, s (w.s) has the variance of the other pixels' w.
        spread = np.sqrt(((self.w**2).sum() - self.w**2) / 1000)
        assert (np.abs(found - wanted) < 4 * spread).all()
        assert (np.abs(found - wanted) > 0.01 * spread).any()

    @pytest.mark.parametrize("size", [1, 7])
    @pytest.mark.parametrize("samples", [2, 80])
    def test_estimate_is_the_mean_over_its_directions(self, size, samples):
        directions = samples // 2
        blocks = [
            spsa._draw_bits([6], seeds(2), 7 * directions + first)
            for first in range(0, directions, 32)
        ]
        signs = np.concatenate(
            [[spsa._signs(bits, k) for k in range(32)] for bits in blocks]
        )[:directions]
        wanted = -(signs * (signs @ self.w)[..., None]).mean(0)
        attack = SPSA(spsa_samples=samples, delta=0.1)
        found = self.estimate(attack, linear_model(self.w, 0.1), False, size)
        np.testing.assert_allclose(found, wanted, atol=1e-4)

    def test_signs_are_independent(self):
        bits = [spsa._draw_bits([500], seeds(2), i) for i in range(2)]
        signs = [[spsa._signs(b, k) for k in range(32)] for b in bits]
        signs = np.swapaxes(signs, 1, 2).reshape(-1, 500)
        assert set(np.unique(signs)) == {-1, 1}
        products = signs @ signs.T / 500 - np.eye(len(signs))
        assert np.abs(products).max() < 6 / np.sqrt(500)
        assert abs(signs.mean()) < 4 / np.sqrt(signs.size)

    def test_rounding_is_no_slope(self):
        def flat(x):
            noise = 1e-7 * tf.sin(1e4 * tf.reduce_sum(x, 1))
            return tf.stack([noise, 1 - noise], 1)

        assert (self.estimate(SPSA(), flat) == 0).all()

    @pytest.mark.parametrize("targeted", [False, True])
    def test_reaches_the_best_point_of_a_linear_model(self, targeted):
        # Far enough above that the attack cannot succeed and stop.
        model = linear_model(self.w, 100)
        attack = SPSA(0.1, 30, 0.02)
        labels = {"y_target": [0, 0]} if targeted else {"y": [1, 1]}
        result = attack.run(model, self.x, **labels)
        wanted = self.x - 0.1 * np.sign(self.w)
        np.testing.assert_allclose(result.x_adv, wanted, atol=1e-6)
        assert not result.success.any()

    def test_is_near_pgd(self, trained, images):
        x, y = images
        model = trained["none"]
        result = SPSA(0.3, **FAST).run(model, x, y)
        pgd = ProjectedGradientDescent(0.3, early_stop=True).run(model, x, y)
        clean = (predicted(model, x) != y).mean()
        assert result.success.mean() >= pgd.success.mean() - 0.15
        assert result.success.mean() >= clean + 0.5
        assert np.abs(result.x_adv - x).max() <= 0.3 * (1 + 1e-6)
        assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
        still = SPSA(0.0, nb_iter=2, spsa_samples=2).run(model, x, y)
        np.testing.assert_array_equal(still.x_adv, x)
        np.testing.assert_array_equal(still.success, predicted(model, x) != y)

    def test_targeted_raises_the_rate_of_the_target(self, trained, images):
        x, _ = images
        model = trained["none"]
        target = (predicted(model, x) + 1) % 10
        result = SPSA(0.4, **FAST).run(model, x, y_target=target)
        np.testing.assert_array_equal(
            result.success, result.prediction == target
        )
        assert result.success.mean() > 0.3

    def test_a_large_delta_sees_across_a_threshold(self):
        """A linear model of pixels rounded to 0 or 1; all must change."""
        model = keras.Sequential(
            [
                keras.Input((6,)),
                ConstantQuantization(2, hard=True),
                linear_model(np.ones(6), -5.5).layers[-1],
            ]
        )
        x = np.full((10, 6), 0.1, "float32")
        rates = [
            SPSA(0.5, delta=delta, **FAST).run(model, x).success.mean()
            for delta in (1e-4, 0.5)
        ]
        assert rates[0] < 0.2 and rates[1] > 0.8

    def test_queries_are_counted_and_fit_in_the_batch(self):
        attack = SPSA(0.01, 3, spsa_samples=34, spsa_iters=2)
        model = linear_model(self.w, 100)
        seen, _ = traced(attack, model, self.x, [1, 1])
        assert sum(map(len, seen)) == 2 * (1 + 3 * (68 + 1))
        assert max(map(len, seen)) == 2
        # All are fooled at the start, and stay as they are.
        seen, x_adv = traced(attack, model, self.x, [0, 0])
        assert len(seen) == 1
        np.testing.assert_array_equal(x_adv, self.x)

    def test_a_fooled_image_leaves_the_batch(self):
        model = linear_model(self.w, -0.1 - float(self.w @ self.x[0]))
        labels = predicted(model, self.x)
        seen, x_adv = traced(
            SPSA(0.2, 50, spsa_samples=4), model, self.x, labels
        )
        sizes = [len(query) for query in seen]
        assert len(seen) < 50 * 5 and min(sizes) == 1
        assert predicted(model, x_adv[:1]) != labels[0]

    def test_a_failure_keeps_its_best_point(self):
        """Steps far too long for a hill of the margin, which is below 0."""
        top = np.array([0.45, 0.62, 0.5], "float32")

        def logits_fn(x):
            height = tf.reduce_sum(tf.square(x - top), 1)
            return tf.stack([0 * height, 1 + height], 1)

        x = np.full((1, 3), 0.5, "float32")
        attack = SPSA(0.4, 15, learning_rate=0.3, spsa_samples=8)
        seen, x_adv = traced(attack, logits_fn, x, [1])
        points = np.concatenate([query for query in seen if len(query) == 1])
        assert len(points) == 1 + 15
        best = ((points - top) ** 2).sum(1).argmin()
        assert best < 15
        np.testing.assert_array_equal(x_adv[0], points[best])

    def test_other_seeds_start_elsewhere(self):
        model = linear_model(self.w, 100)
        found = [
            SPSA(0.1, 1, 1e-6, spsa_samples=2, seed=seed).generate(
                model, self.x, [1, 1]
            )
            for seed in (0, 1)
        ]
        assert (np.abs(found[0] - found[1]) > 1e-3).any(1).all()
