"""JSMA and DeepFool: closed forms, brute force, budgets, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import input_gradient
from conftest import linear_model
from keras_qsn.attacks.white_box import saliency_map
from keras_qsn.attacks.white_box.deepfool import DeepFool
from keras_qsn.attacks.white_box.saliency_map import SaliencyMapMethod

ATTACKS = [
    pytest.param(SaliencyMapMethod(gamma=0.1), id="jsma"),
    pytest.param(DeepFool(nb_candidate=4), id="deepfool-2"),
    pytest.param(DeepFool(np.inf, nb_candidate=4), id="deepfool-inf"),
]


@pytest.fixture
def images(digits):
    return digits.x_test[::25], digits.y_test[::25]


@pytest.fixture(scope="module")
def small_model():
    """Three classes of 6x6 images; smooth, so that gradients change."""
    layers = [
        keras.layers.Flatten(),
        keras.layers.Dense(12, "tanh", kernel_initializer="he_normal"),
        keras.layers.Dense(3, kernel_initializer="he_normal"),
    ]
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6, 6, 1)), *layers])


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


def changed(x_adv, x):
    return (x_adv != x).reshape(len(x), -1).sum(1)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["none", "hard"])
def test_successes_are_real_and_failures_unchanged(
    attack, name, trained, images
):
    model, (x, y) = trained[name], images
    result = attack.run(model, x, y)
    assert result.x_adv.dtype == np.float32 and result.x_adv.shape == x.shape
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    np.testing.assert_array_equal(
        result.prediction, predicted(model, result.x_adv)
    )
    np.testing.assert_array_equal(result.success, result.prediction != y)
    failed = ~result.success
    np.testing.assert_array_equal(result.x_adv[failed], x[failed])
    # Nothing is to be done where the model is wrong already.
    wrong = predicted(model, x) != y
    np.testing.assert_array_equal(result.x_adv[wrong], x[wrong])
    if name == "none":
        assert result.success.mean() > 0.8


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_model_without_gradient_is_not_fooled(attack, trained, images):
    x, _ = images
    blind = keras.Sequential([keras.Input((28, 28, 1))])
    blind.add(keras.layers.Lambda(lambda t: tf.stop_gradient(t) + 0.0 * t))
    blind.add(trained["none"])
    with pytest.warns(RuntimeWarning, match="gradient of zero"):
        result = attack.run(blind, x)
    assert not result.success.any()
    np.testing.assert_array_equal(result.x_adv, x)


@pytest.mark.parametrize("attack", ATTACKS)
def test_batch_size_does_not_matter(attack, trained, images):
    x, y = images
    whole = attack.run(trained["none"], x, y)
    parts = attack.run(trained["none"], x, y, batch_size=7)
    np.testing.assert_allclose(whole.x_adv, parts.x_adv, atol=1e-4)
    np.testing.assert_array_equal(whole.success, parts.success)


@pytest.mark.parametrize(
    "attack",
    [
        SaliencyMapMethod(-0.5, 0.2, -1.0, 2.0),
        SaliencyMapMethod(),
        DeepFool("inf", 0.1, 7, 3, -1.0, 2.0),
        DeepFool(),
    ],
)
def test_config_rebuilds_the_attack(attack):
    config = attack.get_config()
    assert repr(type(attack).from_config(config)) == repr(attack)
    assert "eps" not in config and "seed" not in config


class TestDeepFool:
    w = np.array([3.0, -1.0, 0.5, -2.0], "float32")
    x = np.array([[0.5, 0.4, 0.6, 0.5], [0.45, 0.5, 0.5, 0.5]], "float32")

    @pytest.mark.parametrize("norm", [2, np.inf])
    @pytest.mark.parametrize("overshoot", [0.02, 0.5])
    def test_linear_model(self, norm, overshoot):
        """The distance to a hyperplane, |f| / ||w|| in the dual norm."""
        model = linear_model(self.w, bias=-0.2)
        f = np.abs(self.x @ self.w - 0.2)[:, None]
        if norm == 2:
            unit = self.w / np.linalg.norm(self.w)
            distance = f / np.linalg.norm(self.w)
        else:
            unit, distance = np.sign(self.w), f / np.abs(self.w).sum()
        attack = DeepFool(norm, overshoot, nb_candidate=2)
        result = attack.run(model, self.x)
        assert result.success.all()
        side = np.sign(self.x @ self.w - 0.2)[:, None]
        np.testing.assert_allclose(
            result.x_adv,
            self.x - side * (1 + overshoot) * distance * unit,
            atol=1e-4 * float(distance.max()),
            rtol=1e-4,
        )

    def test_clipping_is_made_up_for(self):
        """Pixels at the end of the range leave the rest to the others."""
        model = linear_model(self.w, bias=0.0)
        x = np.array([[0.1, 0.95, 0.5, 0.0]], "float32")
        assert predicted(model, x) == [0]
        result = DeepFool(nb_candidate=2).run(model, x)
        assert result.success.all() and result.x_adv[0, 3] == 0

    def test_nearest_of_many_boundaries(self):
        """Linear in 5 classes: the least of the distances to each other."""
        rng = np.random.default_rng(0)
        kernel = rng.normal(size=(8, 5)).astype("float32")
        model = keras.Sequential(
            [keras.Input((8,)), keras.layers.Dense(5, use_bias=False)]
        )
        model.set_weights([kernel])
        x = rng.normal(size=(40, 8)).astype("float32")
        scores = x @ kernel
        y = scores.argmax(1)
        gap = scores.max(1)[:, None] - scores
        w = kernel.T[None] - kernel.T[y][:, None]
        for norm, dual in ((2, 2), (np.inf, 1)):
            length = np.linalg.norm(w, dual, axis=2)
            length[np.arange(40), y] = np.nan
            nearest = np.nanmin(gap / length, 1)
            attack = DeepFool(norm, nb_candidate=5, clip_min=-9, clip_max=9)
            result = attack.run(model, x, y)
            found = np.linalg.norm(result.x_adv - x, norm, axis=1)
            assert result.success.all()
            np.testing.assert_allclose(found, 1.02 * nearest, rtol=1e-3)

    def test_is_smaller_than_a_gradient_step(self, trained, images):
        x, y = images
        result = DeepFool(np.inf, nb_candidate=4).run(trained["none"], x, y)
        distance = np.abs(result.x_adv - x).max((1, 2, 3))
        assert 0 < np.median(distance) < 0.15

    def test_more_candidates_than_classes(self):
        model = linear_model(self.w, bias=-0.2)
        many, two = (
            DeepFool(nb_candidate=n).run(model, self.x) for n in (10, 2)
        )
        assert many.success.all()
        np.testing.assert_array_equal(many.x_adv, two.x_adv)

    @pytest.mark.parametrize("norm", [2, np.inf])
    def test_many_classes_as_by_hand(self, norm):
        """A thousand classes, the ten likeliest looked at, step by step."""
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((20,)), keras.layers.Dense(30, "tanh")]
            + [keras.layers.Dense(1000)]
        )
        x = np.random.default_rng(0).uniform(0.3, 0.7, (6, 20))
        x = x.astype("float32")
        attack = DeepFool(norm, max_iter=10, clip_min=-9, clip_max=9)
        result = attack.run(model, x)
        assert result.success.all()
        for image, x_adv in zip(x, result.x_adv):
            wanted = by_hand(model, image, norm)
            np.testing.assert_allclose(x_adv - image, wanted, atol=2e-4)

    # Powers of two: no digit of the logits is lost.
    @pytest.mark.parametrize("scale", [2.0**-30, 2.0**-10, 2.0**10])
    def test_the_scale_of_the_logits_does_not_matter(
        self, scale, trained, images
    ):
        """An untrained network's are small: no push may be a leap."""
        model = keras.Sequential(
            [keras.Input((28, 28, 1)), trained["none"]]
            + [keras.layers.Rescaling(scale)]
        )
        plain, scaled = (
            DeepFool(np.inf).run(m, *images) for m in (trained["none"], model)
        )
        # Image by image: the largest alone hid that some had failed.
        sizes = (
            np.abs(r.x_adv - images[0]).max((1, 2, 3)) for r in (plain, scaled)
        )
        np.testing.assert_allclose(*sizes, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(scaled.success, plain.success)

    def test_targeted(self):
        attack = DeepFool(nb_candidate=2)
        with pytest.raises(ValueError, match="`DeepFool` is untargeted"):
            attack.run(linear_model(self.w), self.x, y_target=[0, 1])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"norm": 1}, "`norm` must be one of np.inf, 2. Received: norm=1"),
            ({"overshoot": -1}, "`overshoot` must be .* overshoot=-1"),
            ({"overshoot": np.nan}, "`overshoot` must be .* overshoot=nan"),
            ({"max_iter": 0}, "`max_iter` must be .* least 1.*max_iter=0"),
            ({"max_iter": 1.5}, "`max_iter` must be a whole number"),
            ({"nb_candidate": 1}, "`nb_candidate` must be .* least 2"),
            ({"nb_candidate": np.inf}, "`nb_candidate` must be .*=inf"),
            ({"clip_max": 0.0}, "`clip_min` must be below `clip_max`"),
        ],
    )
    def test_bad_parameters(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            DeepFool(**arguments)


def by_hand(model, image, norm):
    """The paper's loop in NumPy, with the last step's overshoot."""

    def jacobian(x):
        with tf.GradientTape() as tape:
            x = tf.constant(x[None], tf.float32)
            tape.watch(x)
            logits = model(x)
        return logits[0].numpy(), tape.jacobian(logits, x)[0, :, 0].numpy()

    moved = np.zeros_like(image)
    logits, _ = jacobian(image)
    label, *others = logits.argsort()[::-1][:10]
    for _ in range(10):
        logits, slopes = jacobian(image + 1.02 * moved)
        if logits.argmax() != label:
            break
        gaps = logits[others] - logits[label]
        w = slopes[others] - slopes[label]
        length = np.linalg.norm(w, 1 if norm == np.inf else 2, axis=1)
        k = (np.abs(gaps) / length).argmin()
        step = np.sign(w[k]) if norm == np.inf else w[k] / length[k]
        moved += np.abs(gaps[k]) / length[k] * step
    return 1.02 * moved


def brute_force(model, x, label, targeted, theta, gamma):
    """JSMA of one image in [0, 1], pair after pair."""
    x, sign = x.copy(), np.sign(theta)
    goal, scores = label, np.asarray(model(x[None]))[0]
    if not targeted:
        goal = [k for k in np.argsort(-scores) if k != label][0]
    goals = np.eye(len(scores), dtype="float32")[None, goal]
    room = (1 - x if sign > 0 else x).ravel()
    free = room > 0.1 * abs(theta)
    for _ in range(int(x.size * gamma / 2)):
        if (predicted(model, x[None])[0] == label) == targeted:
            break
        a = sign * input_gradient(model, x[None], goals).ravel()
        b = sign * input_gradient(model, x[None], 1 - goals).ravel()
        best, pair = 0, None
        for p in range(x.size):
            for q in range(p):
                alpha, beta = a[p] + a[q], b[p] + b[q]
                if not (free[p] and free[q] and alpha > 0 and beta < 0):
                    continue
                if -alpha * beta > best:
                    best, pair = -alpha * beta, [p, q]
        if pair is None:
            break
        free[pair] = False
        x.reshape(-1)[pair] = np.clip(x.reshape(-1)[pair] + theta, 0, 1)
    hit = (predicted(model, x[None])[0] == label) == targeted
    return (x if hit else None), hit


class TestSaliencyMapMethod:
    @pytest.mark.parametrize("targeted", [True, False])
    @pytest.mark.parametrize("theta", [1.0, -0.3])
    def test_is_brute_force(self, targeted, theta, small_model):
        rng = np.random.default_rng(1)
        x = rng.random((8, 6, 6, 1), "float32")
        # Some pixels are out of reach from the start.
        x[rng.random(x.shape) < 0.2] = float(theta > 0)
        y = predicted(small_model, x)
        labels = (y + 1) % 3 if targeted else y
        attack = SaliencyMapMethod(theta, 0.6)
        given = {"y_target" if targeted else "y": labels}
        result = attack.run(small_model, x, **given)
        for i in range(len(x)):
            wanted, hit = brute_force(
                small_model, x[i], labels[i], targeted, theta, 0.6
            )
            assert result.success[i] == hit
            wanted = wanted if hit else x[i]
            np.testing.assert_allclose(result.x_adv[i], wanted, atol=1e-6)
        assert result.success.any()

    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize("pixels", [2, 30])
    @pytest.mark.parametrize("opposed", [0.0, 1.0, 8.0])
    def test_best_pair_is_the_best_of_all(self, seed, pixels, opposed):
        rng = np.random.default_rng(seed)
        up, down = rng.normal(size=(2, 20, pixels)).astype("float32")
        # The more the two are opposed, the fewer pixels can be left out.
        down -= opposed * up
        # Ties, and pixels that may not be used.
        up[:5], down[:5] = up[:5].round(), down[:5].round()
        up[5:10, ::2] = down[5:10, ::2] = -np.inf
        pair, found = saliency_map._best_pair(up, down)
        p, q = np.triu_indices(pixels, 1)
        a = up[:, p].astype("float64") + up[:, q]
        b = down[:, p].astype("float64") + down[:, q]
        allowed = (a > 0) & (b > 0)
        score = np.where(allowed, a, 0) * np.where(allowed, b, 0)
        np.testing.assert_array_equal(found, score.max(1) > 0)
        first, second = pair.numpy().T
        assert (first != second)[found].all()
        rows = np.arange(len(up))
        ours = up[rows, first].astype("float64") + up[rows, second]
        ours *= down[rows, first].astype("float64") + down[rows, second]
        np.testing.assert_array_equal(ours[found], score.max(1)[found])

    def test_linear_model_changes_the_two_steepest(self):
        w = np.array([1.0, -3.0, 2.0, 0.5, 1.5], "float32")
        x = np.full((1, 5), 0.5, "float32")
        model = linear_model(w, bias=-float(w @ x[0]) - 1.0)
        # The other class has no gradient of its own: two logits, +-w.x.
        kernel, bias = model.get_weights()
        model.set_weights([kernel - kernel[:, ::-1], bias])
        x_adv = SaliencyMapMethod().generate(model, x, y_target=[1])
        np.testing.assert_array_equal(x_adv, [[0.5, 0.5, 1.0, 0.5, 1.0]])
        # Downwards, the pixel with the negative weight and the weakest other.
        x_adv = SaliencyMapMethod(-1.0).generate(model, x, y_target=[1])
        np.testing.assert_array_equal(x_adv, [[0.5, 0.0, 0.5, 0.0, 0.5]])

    @pytest.mark.parametrize("theta", [0.4, -0.4])
    @pytest.mark.parametrize("gamma", [0.021, 0.05])
    def test_budgets(self, theta, gamma, trained, images):
        x, y = images
        attack = SaliencyMapMethod(theta, gamma)
        result = attack.run(trained["none"], x, y)
        count = changed(result.x_adv, x)
        assert count.max() <= 2 * int(gamma * 784 / 2)
        assert (count % 2 == 0).all() and result.success.any()
        moved = result.x_adv != x
        wanted = np.clip(x + np.float32(theta), 0, 1)
        np.testing.assert_array_equal(result.x_adv[moved], wanted[moved])

    def test_no_pair_fits_in_a_tiny_budget(self, trained, images):
        x, y = images
        attack = SaliencyMapMethod(gamma=1 / 784)
        np.testing.assert_array_equal(attack.generate(trained["none"], x, y), x)

    def test_targeted_rate_grows_with_the_budget(self, trained, images):
        x, y = images
        target = (predicted(trained["none"], x) + 1) % 10
        rates = []
        for gamma in (0.01, 0.05, 0.2):
            result = SaliencyMapMethod(gamma=gamma).run(
                trained["none"], x, y_target=target
            )
            np.testing.assert_array_equal(
                result.success, result.prediction == target
            )
            rates.append(result.success.mean())
        assert rates[0] < rates[1] <= rates[2] and rates[2] > 0.75

    def test_small_slopes_count(self):
        """A model with slopes of 1e-25, whose products are 0 in float32."""
        w = np.array([1.0, 2.0, -1.0, 3.0], "float32")
        model = linear_model(1e-25 * w, bias=0.0)
        kernel, _ = model.get_weights()
        model.set_weights([kernel - kernel[:, ::-1], np.float32([1e-25, 0])])
        x = np.zeros((1, 4), "float32")
        x_adv = SaliencyMapMethod().generate(model, x, y_target=[1])
        np.testing.assert_array_equal(x_adv, [[0, 1, 0, 1]])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"theta": 0}, "`theta` must be .* Received: theta=0"),
            ({"theta": np.inf}, "`theta` must be .* Received: theta=inf"),
            ({"gamma": 0}, "`gamma` must be .* Received: gamma=0"),
            ({"gamma": 1.1}, "`gamma` must be .* Received: gamma=1.1"),
            ({"gamma": np.nan}, "`gamma` must be .* Received: gamma=nan"),
            ({"clip_min": 1.0}, "`clip_min` must be below `clip_max`"),
        ],
    )
    def test_bad_parameters(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            SaliencyMapMethod(**arguments)
