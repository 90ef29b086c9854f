"""What makes adversaries transfer: each part against its formula in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn.attacks.views.base import Seen
from keras_qsn.attacks.views.input_diversity import placing
from keras_qsn.layers import ConstantQuantization
from keras_qsn.models import KerasModelWrapper
from keras_qsn.models import ensemble
from keras_qsn.training import QuSecNet

SHAPE = (9, 9, 3)
EPS, STEP, STEPS, MU = 0.1, 0.03, 5, 0.8


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class Curved:
    """A classifier of three classes, in Keras and in float64 NumPy."""

    def __init__(self):
        rng = np.random.default_rng(2)
        layers = keras.layers
        self.model = keras.Sequential(
            [
                keras.Input(SHAPE),
                layers.Flatten(),
                layers.Dense(12, activation="tanh"),
                layers.Dense(3),
            ]
        )
        size = int(np.prod(SHAPE))
        shapes = [(size, 12), (12,), (12, 3), (3,)]
        scales = [3 * size**-0.5, 0.1, 1.0, 0.1]
        self.weights = [
            (scale * rng.normal(size=shape)).astype("float32")
            for shape, scale in zip(shapes, scales)
        ]
        self.model.set_weights(self.weights)

    def logits(self, x):
        a, b, c, d = (w.astype("float64") for w in self.weights)
        return np.tanh(x.reshape(len(x), -1) @ a + b) @ c + d

    def slope(self, x, upstream):
        """Of the logits, weighted, with respect to the image."""
        a, b, c, _ = (w.astype("float64") for w in self.weights)
        hidden = np.tanh(x.reshape(len(x), -1) @ a + b)
        return ((upstream @ c.T * (1 - hidden**2)) @ a.T).reshape(x.shape)

    def of_cross_entropy(self, x, y):
        return self.slope(x, softmax(self.logits(x)) - np.eye(3)[y])


@pytest.fixture(scope="module")
def curved():
    return Curved()


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.random((8, *SHAPE), "float32"), np.arange(8) % 3


def momentum_steps(x, y, gradient, nesterov=False):
    """MI-FGSM, or NI-FGSM, of Dong et al. and Lin et al., in NumPy."""
    x = x.astype("float64")
    x_adv, g = x, np.zeros_like(x)
    for _ in range(STEPS):
        ahead = x_adv + MU * STEP * g if nesterov else x_adv
        slope = gradient(ahead, y)
        mean = np.abs(slope).mean((1, 2, 3), keepdims=True)
        g = MU * g + slope / mean
        x_adv = np.clip(x_adv + STEP * np.sign(g), x - EPS, x + EPS).clip(0, 1)
    return x_adv


def iterative(**kwargs):
    return attacks.MomentumIterativeMethod(
        EPS, STEP, STEPS, decay_factor=MU, **kwargs
    )


def agree(found, wanted):
    """Where a gradient is all but zero, its sign may be either."""
    return np.isclose(found, wanted, atol=1e-5).mean() > 0.995


class TestMomentum:
    @pytest.mark.parametrize("nesterov", [False, True])
    def test_is_the_formula(self, nesterov, curved, images):
        wanted = momentum_steps(*images, curved.of_cross_entropy, nesterov)
        attack = iterative(nesterov=nesterov)
        assert agree(attack.generate(curved.model, *images), wanted)
        other = momentum_steps(*images, curved.of_cross_entropy, not nesterov)
        assert not agree(wanted, other)

    def test_config(self):
        assert "nesterov" not in iterative().get_config()
        attack = iterative(nesterov=True)
        again = type(attack).from_config(attack.get_config())
        assert again.nesterov and repr(again) == repr(attack)

    @pytest.mark.parametrize("settings", [{"norm": 2}, {"early_stop": True}])
    def test_refuses_to_look_ahead(self, settings):
        with pytest.raises(ValueError, match="`nesterov=True` needs"):
            iterative(nesterov=True, **settings)


class TestTranslation:
    def test_is_the_smoothed_gradient(self, curved, images):
        way = np.arange(-2, 3)
        kernel = np.exp(-(way**2) / (2 * (4 / 6) ** 2))
        kernel = np.outer(kernel, kernel)[None, :, :, None] / kernel.sum() ** 2

        def smoothed(x, y):
            slope = curved.of_cross_entropy(x, y)
            return ndimage.convolve(slope, kernel, mode="constant")

        view = attacks.TranslationInvariance(5)
        attack = attacks.ViewedAttack(iterative(), view)
        found = attack.generate(curved.model, *images)
        wanted = momentum_steps(*images, smoothed)
        assert agree(found, wanted)
        assert not agree(found, iterative().generate(curved.model, *images))

    def test_logits_stay_as_they_are(self, curved, images):
        wrapper = KerasModelWrapper(curved.model)
        seen = Seen(wrapper, [attacks.TranslationInvariance(3, sigma=2.0)])
        np.testing.assert_array_equal(seen(images[0]), wrapper(images[0]))

    def test_refuses(self):
        for size in (4, 1):
            with pytest.raises(ValueError, match="`size` must be"):
                attacks.TranslationInvariance(size)
        with pytest.raises(ValueError, match="above 0, or None for"):
            attacks.TranslationInvariance(5, sigma=0.0)


class TestScales:
    def test_is_the_mean_of_the_logits(self, curved, images):
        def gradient(x, y):
            copies = [x / 2**i for i in range(3)]
            mean = np.mean([curved.logits(copy) for copy in copies], 0)
            upstream = softmax(mean) - np.eye(3)[y]
            return sum(
                curved.slope(copy, upstream) / (3 * 2**i)
                for i, copy in enumerate(copies)
            )

        view = attacks.ScaleInvariance(3)
        attack = attacks.ViewedAttack(iterative(nesterov=True), view)
        found = attack.generate(curved.model, *images)
        assert agree(found, momentum_steps(*images, gradient, nesterov=True))

    def test_refuses(self):
        with pytest.raises(ValueError, match="`copies` must be a whole"):
            attacks.ScaleInvariance(0)


class TestDiversity:
    @pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
    @pytest.mark.parametrize("small, start", [(25, 0), (26, 2), (20, 5)])
    def test_shrinks_as_tensorflow_does(self, interpolation, small, start):
        x = np.random.default_rng(0).random((3, 28, 28, 1), "float32")
        matrix = placing(28, small, start, interpolation).numpy()
        found = np.einsum("ip,bpqc,jq->bijc", matrix, x, matrix)
        resized = tf.image.resize(x, (small, small), interpolation).numpy()
        after = 28 - small - start
        margin = [(0, 0), (start, after), (start, after), (0, 0)]
        np.testing.assert_allclose(found, np.pad(resized, margin), atol=1e-5)

    @staticmethod
    def looks(view, x, shares):
        """What the network is given at each share of a search."""
        seen = []
        for share in shares:
            view.at(share).see(lambda x: seen.append(x.numpy()), None)(x)
        return seen

    def test_draws_sizes_and_places_of_each_step(self):
        x = tf.ones((2, 28, 28, 1))
        view = attacks.InputDiversity(fill=0.25, seed=3)
        shares = np.linspace(0, 1, 60)
        looks = self.looks(view, x, shares)
        sizes, places = [], set()
        for look in looks:
            # All images of a batch alike, and nothing between or outside.
            np.testing.assert_array_equal(look[0], look[1])
            assert set(np.unique(look)) <= {0.25, 1.0}
            rows = np.flatnonzero((look[0, ..., 0] == 1).any(1))
            columns = np.flatnonzero((look[0, ..., 0] == 1).any(0))
            assert len(rows) == len(columns)
            sizes.append(len(rows))
            places.add((rows[0], columns[0]))
        assert {*sizes} == {25, 26, 27, 28}
        # Half of them, give or take four standard deviations.
        assert 15 <= sizes.count(28) <= 45 and len(places) > 8
        for look, again in zip(looks, self.looks(view, x, shares)):
            np.testing.assert_array_equal(look, again)
        other = self.looks(attacks.InputDiversity(fill=0.25), x, shares)
        assert any((a != b).any() for a, b in zip(looks, other))

    def test_never_and_always(self):
        x = tf.ones((1, 28, 28, 1))
        shares = np.linspace(0, 1, 20)
        never = attacks.InputDiversity(0.0)
        assert all((look == 1).all() for look in self.looks(never, x, shares))
        always = attacks.InputDiversity(1.0)
        assert all((look == 0).any() for look in self.looks(always, x, shares))

    def test_steps_along_what_each_has_drawn(self, curved, images):
        """With the matrices that the view draws, at each step in turn."""
        view = attacks.InputDiversity(0.7, 0.6, seed=1)
        steps = iter(np.linspace(0, 1, STEPS, dtype="float32"))

        def gradient(x, y):
            with tf.GradientTape() as tape:
                image = tf.constant(x, tf.float32)
                tape.watch(image)
                logits_fn = KerasModelWrapper(curved.model)
                seen = view.at(next(steps)).see(logits_fn, None)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    y, seen(image)
                )
            return tape.gradient(loss, image).numpy().astype("float64")

        attack = attacks.ViewedAttack(iterative(), view)
        found = attack.generate(curved.model, *images, batch_size=3)
        assert agree(found, momentum_steps(*images, gradient))
        assert not agree(found, iterative().generate(curved.model, *images))

    def test_in_training_by_xla(self, digits):
        attack = attacks.ViewedAttack(
            attacks.BasicIterativeMethod(0.1, nb_iter=2),
            attacks.InputDiversity(1.0),
        )
        net = QuSecNet(small_cnn(), attack)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        net.compile("sgd", loss, jit_compile=True)
        x, y = digits.x_train[:32], digits.y_train[:32]
        history = net.fit(x, y, batch_size=32, verbose=0).history
        assert np.isfinite(history["loss"]).all()

    def test_refuses(self):
        for settings, message in (
            ({"probability": 1.5}, "`probability` must be a number from 0"),
            ({"resize_rate": 1.0}, "`resize_rate` must lie between"),
            ({"interpolation": "cubic"}, "`interpolation` must be one of"),
        ):
            with pytest.raises(ValueError, match=message):
                attacks.InputDiversity(**settings)
        flat, tiny = tf.ones((1, 28)), tf.ones((1, 3, 3, 1))
        for x, message in ((flat, "needs images of"), (tiny, "large enough")):
            with pytest.raises(ValueError, match=message):
                self.looks(attacks.InputDiversity(), x, [0.0])


def test_parts_compose_and_are_read_back(trained, digits):
    x, y = digits.x_test[:20], digits.y_test[:20]
    attack = attacks.MomentumIterativeMethod(0.1, nb_iter=3, nesterov=True)
    for view in (
        attacks.ScaleInvariance(2),
        attacks.InputDiversity(fill=0.5),
        attacks.TranslationInvariance(5, sigma=1.5),
    ):
        attack = attacks.ViewedAttack(attack, view)
    kept = keras.saving.serialize_keras_object(attack)
    again = keras.saving.deserialize_keras_object(kept)
    assert repr(again) == repr(attack) and attack.threat == "white-box"
    transfer = attacks.TransferAttack(attack, trained["none"])
    found = transfer.run(trained["soft"], x, y)
    wanted = again.generate(trained["none"], x, y, batch_size=7)
    np.testing.assert_allclose(found.x_adv, wanted, atol=1e-6)
    assert np.abs(wanted - x).max() <= 0.1 + 1e-6


class TestEnsemble:
    def test_is_the_mean_of_the_logits(self, trained, digits, tmp_path):
        x, y = digits.x_test[:20], digits.y_test[:20]
        ending = keras.Sequential([trained["none"], keras.layers.Softmax()])
        together = ensemble([trained["soft"], trained["hard"], ending])
        wanted = np.mean(
            [trained[name](x) for name in ("soft", "hard", "none")], 0
        )
        np.testing.assert_allclose(together(x), wanted, atol=1e-4)
        together.save(tmp_path / "together.keras")
        loaded = keras.models.load_model(tmp_path / "together.keras")
        np.testing.assert_allclose(loaded(x), wanted, atol=1e-4)
        # Views find the quantizers of its members.
        attack = attacks.BPDA(attacks.BasicIterativeMethod(0.2, nb_iter=3))
        hard = ensemble([trained["hard"]])
        assert not attack.run(hard, x, y).blind.any()
        assert len(KerasModelWrapper(together).quantizers) == 2

    def test_models_of_one_name(self, digits):
        twins = [keras.models.clone_model(small_cnn()) for _ in range(2)]
        for twin in twins:
            twin.name = "twin"
        x = digits.x_test[:5]
        wanted = np.mean([twin(x) for twin in twins], 0)
        np.testing.assert_allclose(ensemble(twins)(x), wanted, atol=1e-5)

    def test_refuses(self):
        model = small_cnn(ConstantQuantization(2))
        with pytest.raises(ValueError, match="at least one Keras classifier"):
            ensemble([])
        with pytest.raises(TypeError, match="must be a Keras model"):
            ensemble([model, "other"])
        with pytest.raises(ValueError, match="the same images and classes"):
            ensemble([model, small_cnn(num_classes=4)])
