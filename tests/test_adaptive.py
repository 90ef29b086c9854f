"""Attacks that know of the quantizer: exact on small cases, on real ones."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import input_gradient
from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn.attacks.views import passes
from keras_qsn.attacks.views.base import Seen
from keras_qsn.attacks.views.surrogate import AnnealedSurrogate
from keras_qsn.attacks.views.surrogate import Surrogate
from keras_qsn.classifier.opened import OpenedModel
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper

EPS = 0.3
PIXELS = 7


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


def small_model(quantizer, seed=0, before=()):
    """Few pixels, so that everything reachable can be tried."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((PIXELS,)), *before, quantizer]
        + [keras.layers.Dense(12, "tanh", kernel_initializer="glorot_normal")]
        + [keras.layers.Dense(3, kernel_initializer="glorot_normal")]
    )


def few_pixels(count=40):
    rng = np.random.default_rng(0)
    return rng.random((count, PIXELS)).astype("float32")


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


class TestViews:
    @pytest.mark.parametrize("hard", [False, True])
    @pytest.mark.parametrize("steepness", [None, 3.0])
    def test_another_gradient_through_the_same_function(self, hard, steepness):
        x = few_pixels()
        layer = QuantLayer(3, 40.0, hard=hard)
        model = small_model(layer)
        surrogate = small_model(
            QuantLayer(
                3,
                steepness or 40.0,
                hard=True,
                gradient="exact" if steepness else "straight_through",
            )
        )
        # Behind the same levels, so that the rest of the gradient agrees.
        levels = np.asarray(layer(x))
        rest = keras.Sequential(model.layers[1:])
        upstream = input_gradient(rest, levels)
        view = Seen(KerasModelWrapper(model), [Surrogate(steepness)])
        np.testing.assert_array_equal(view(x), model(x))
        np.testing.assert_allclose(
            input_gradient(view, x),
            input_gradient(surrogate.layers[0], x, upstream),
            rtol=1e-4,
            atol=1e-6,
        )
        # The model is as it was.
        assert "call" not in vars(layer)

    @pytest.mark.parametrize("hard", [False, True])
    def test_an_opened_model_is_the_model(self, hard):
        x = few_pixels()
        model = small_model(QuantLayer(4, 9.0, hard=hard))
        opened = OpenedModel(KerasModelWrapper(model), 0.0, 1.0)
        levels = opened.quantize(x)
        np.testing.assert_array_equal(levels, model.layers[0](x))
        np.testing.assert_array_equal(opened.behind(levels), model(x))
        np.testing.assert_array_equal(opened(x), model(x))
        # Inverted: the levels of other images, from these images on.
        wanted = opened.quantize(tf.constant(few_pixels()[::-1].copy()))
        zeros, ones = tf.zeros_like(x), tf.ones_like(x)
        found = opened.invert(wanted, tf.constant(x), zeros, ones)
        np.testing.assert_allclose(opened.quantize(found), wanted, atol=1e-6)
        same = np.isclose(levels, wanted, atol=1e-7)
        if hard:
            np.testing.assert_array_equal(found.numpy()[same], x[same])
            nearer = found + 1e-5 * tf.sign(x - found)
            levels = np.asarray(opened.quantize(nearer))
            moved = ~np.isclose(levels, wanted, atol=1e-7)[~same]
            assert moved.all()

    def test_scaling_before_the_quantizer(self):
        before = [keras.layers.Rescaling(1 / 255)]
        model = small_model(ConstantQuantization(2, hard=True), before=before)
        x = 255 * few_pixels()
        attack = attacks.CubeAttack(80, nb_iter=10, clip_max=255)
        result = attack.run(model, x)
        assert result.success.any()
        assert np.abs(result.x_adv - x).max() <= 80 * (1 + 1e-6)

    @pytest.mark.parametrize(
        "before",
        [
            keras.layers.Dense(PIXELS),
            keras.layers.Rescaling(-1, offset=1),
            keras.layers.LayerNormalization(),
        ],
    )
    def test_quantizers_of_something_else_are_refused(self, before):
        quantizer = ConstantQuantization(2, value_range=(-9, 9))
        model = small_model(quantizer, before=[before])
        with pytest.raises(ValueError, match="maps each pixel of the image"):
            attacks.CubeAttack().run(model, few_pixels())

    @pytest.mark.parametrize(
        "attack",
        [
            attacks.CubeAttack(),
            attacks.LevelFlipAttack(),
            attacks.AnnealedBPDA(),
            attacks.BPDA(attacks.FastGradientMethod()),
        ],
    )
    def test_models_without_a_quantizer_are_refused(self, attack, images):
        with pytest.raises(ValueError, match="a model with a quantization la"):
            attack.run(small_cnn(), *images)


def reachable(layer, x, eps):
    """All levels of one image in the ball: every pixel at its two ends."""
    both = np.clip(np.stack([x - eps, x + eps]), 0, 1)
    ends = [
        sorted({float(y) for y in pixel}) for pixel in layer(both).numpy().T
    ]
    return np.array(list(itertools.product(*ends)), "float32")


class TestCube:
    @pytest.mark.parametrize("seed", range(3))
    def test_finds_every_example_there_is(self, seed):
        """Against all reachable levels of a nonlinear model, one by one."""
        layer = ConstantQuantization(2, hard=True, shared_axes=[1])
        model, x = small_model(layer, seed), few_pixels()
        y = predicted(model, x)
        rest = keras.Sequential(model.layers[1:])
        exists = np.array(
            [
                (predicted(rest, reachable(layer, image, 0.2)) != label).any()
                for image, label in zip(x, y)
            ]
        )
        assert 5 < exists.sum() < 38
        result = attacks.CubeAttack(0.2, nb_iter=10).run(model, x, y)
        np.testing.assert_array_equal(result.success, exists)
        np.testing.assert_array_equal(
            result.success, predicted(model, result.x_adv) != y
        )

    @pytest.mark.parametrize("name", ["soft", "hard"])
    def test_beats_what_the_quantizer_blinds(self, name, trained, images):
        x, y = images
        model = trained[name]
        result = attacks.CubeAttack(EPS, nb_iter=20).run(model, x, y)
        assert np.abs(result.x_adv - x).max() <= EPS * (1 + 1e-6)
        assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
        for other in (
            attacks.ProjectedGradientDescent(EPS, nb_iter=20),
            attacks.SquareAttack(EPS, nb_queries=100),
        ):
            theirs = other.run(model, x, y).success
            # A soft quantizer hides little from PGD: one may be its alone.
            missed = theirs & ~result.success
            assert missed.sum() <= (name == "soft")
            assert result.success.sum() >= theirs.sum()

    def test_eps_zero_and_batches_and_seeds(self, trained, images):
        x, y = images
        model = trained["hard"]
        still = attacks.CubeAttack(0.0, nb_iter=2).generate(model, x, y)
        np.testing.assert_array_equal(still, x)
        attack = attacks.CubeAttack(EPS, nb_iter=5, nb_restarts=2, seed=3)
        whole = attack.generate(model, x, y)
        parts = attack.generate(model, x, y, batch_size=17)
        # A batch of another size may round otherwise, and a level with it.
        assert (np.abs(whole - parts) > 1e-6).mean() < 1e-3
        other = attacks.CubeAttack(EPS, nb_iter=5, nb_restarts=2, seed=4)
        assert (other.generate(model, x, y) != whole).any()

    def test_targeted(self, trained, images):
        x, y = images
        target = (y + 1) % 10
        attack = attacks.CubeAttack(0.45, nb_iter=20)
        result = attack.run(trained["hard"], x, y, y_target=target)
        before = (predicted(trained["hard"], x) == target).mean()
        assert result.success.mean() > before + 0.2

    def test_polish_finds_more(self, trained, images):
        """Where the search over all pixels is cut short."""
        kwargs = {"nb_iter": 1, "nb_restarts": 1}
        rough, fine = (
            attacks.CubeAttack(EPS, nb_polish=n, **kwargs)
            .run(trained["hard"], *images)
            .success
            for n in (0, 40)
        )
        assert not (rough & ~fine).any() and fine.sum() > rough.sum()

    @pytest.mark.parametrize("shape", [(6, 6, 1), (6, 6, 3), (9,)])
    def test_polish_flips_what_helps_together_only(self, shape):
        """One corner of all is an example; beside others nothing slopes."""
        wanted = np.zeros(shape, "float32")
        wanted[(slice(2, 4),) * min(2, len(shape) - 1 or 1)] = 1
        layers = keras.layers
        model = keras.Sequential([keras.Input(shape)])
        model.add(QuantLayer(2, 50.0, hard=True))
        model.add(layers.Flatten())
        model.add(layers.Dense(1, "relu"))
        model.add(layers.Dense(2))
        weights = [2 * wanted.ravel()[:, None] - 1, [0.5 - wanted.sum()]]
        weights += [np.array([[0.0, 10.0]]), [1.0, 0.0]]
        for variable, value in zip(model.weights[-4:], weights):
            variable.assign(value)
        x, y = np.full((1, *shape), 0.4, "float32"), [0]
        start = {"nb_iter": 3, "nb_restarts": 2}
        rough = attacks.CubeAttack(EPS, nb_polish=0, **start)
        assert not rough.run(model, x, y).success
        fine = attacks.CubeAttack(EPS, nb_polish=300, **start).run(model, x, y)
        assert fine.success
        np.testing.assert_array_equal(fine.x_adv[0] >= 0.5, wanted > 0)

    def test_first_gradient_in_the_middle_of_the_box(self):
        """At the image there is none."""
        model = keras.Sequential(
            [keras.Input((2,)), QuantLayer(2, 50.0, hard=True)]
            + [keras.layers.Dense(1, "relu"), keras.layers.Dense(2)]
        )
        weights = [np.ones((2, 1)), [-0.9], [[0.0, 1.0]], [0.5, 0.0]]
        for variable, value in zip(model.weights[-4:], weights):
            variable.assign(value)
        x = np.full((1, 2), 0.4, "float32")
        attack = attacks.CubeAttack(EPS, nb_iter=1, nb_restarts=1, nb_polish=0)
        result = attack.run(model, x, [0], verbose=0)
        assert result.success.all()

    def test_no_search_where_nothing_can_change(self):
        """A black image far from the threshold is alone in its box."""
        model = small_cnn(ConstantQuantization(2, hard=True))
        x = np.zeros((5, 28, 28, 1), "float32")
        x[4] = 0.45
        y = KerasModelWrapper(model).predict(x)
        attack = attacks.CubeAttack(0.1, nb_iter=3, nb_restarts=2, nb_polish=1)
        spent = []
        for images in (x, x[:4]):
            rows = slice(len(images))
            wrapper = KerasModelWrapper(keras.models.clone_model(model))
            wrapper.model.set_weights(model.get_weights())
            counting = attacks.ViewedAttack(attack, passes.Passes())
            found = counting.generate(wrapper, images, y[rows], verbose=0)
            np.testing.assert_array_equal(found[:4], x[:4])
            spent.append(passes.count(wrapper)[0])
        # Each image where it is, and no more than that.
        assert spent[1] == 4
        assert spent[0] > 6


@pytest.mark.parametrize("filters", [1, 3])
@pytest.mark.parametrize(
    "attack", [attacks.CubeAttack(), attacks.LevelFlipAttack()]
)
def test_a_quantizer_behind_a_convolution_is_refused(attack, filters):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(filters, 3, padding="same")]
        + [ConstantQuantization(2, name="behind")]
        + [layers.Flatten(), layers.Dense(2)]
    )
    x = np.full((1, 8, 8, 1), 0.5, "float32")
    with pytest.raises(ValueError, match="layer 'behind', .* Use `BPDA`"):
        attack.run(model, x, [0])


@pytest.mark.parametrize(
    "attack",
    [attacks.CubeAttack(0.4, nb_iter=2), attacks.LevelFlipAttack(max_iter=4)],
)
def test_images_of_any_size(attack):
    layers = keras.layers
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((None, None, 1))]
        + [ConstantQuantization(2, hard=True, shared_axes=[1, 2])]
        + [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
        + [layers.Dense(2)]
    )
    for size in (8, 11):
        x = np.random.default_rng(0).uniform(size=(4, size, size, 1))
        x = x.astype("float32")
        result = attack.run(model, x)
        np.testing.assert_array_equal(
            result.prediction, predicted(model, result.x_adv)
        )


class TestSurrogates:
    @pytest.fixture
    def masked(self, trained):
        """A fine hard quantizer whose own gradient is all but zero."""
        quantizer = QuantLayer(33, 5000.0, hard=True)
        return keras.Sequential(
            [keras.Input((28, 28, 1)), quantizer, trained["none"]]
        )

    @pytest.mark.parametrize(
        "attack",
        [
            attacks.BPDA(attacks.ProjectedGradientDescent(EPS, nb_iter=10)),
            attacks.BPDA(attacks.ProjectedGradientDescent(EPS, nb_iter=10), 5),
            attacks.AnnealedBPDA(EPS, nb_iter=10),
        ],
        ids=["identity", "soft", "annealed"],
    )
    def test_see_through_the_mask(self, attack, masked, trained, images):
        plain = attacks.ProjectedGradientDescent(EPS, nb_iter=10)
        bare = plain.run(trained["none"], *images).success.mean()
        assert attack.run(masked, *images).success.mean() >= bare - 0.02

    def test_annealing_reaches_from_first_to_last(self, monkeypatch):
        seen = []
        at = AnnealedSurrogate.at

        def spy(self, share):
            view = at(self, share)
            if tf.is_tensor(share):
                seen.append(float(view.steepness))
            return view

        monkeypatch.setattr(AnnealedSurrogate, "at", spy)
        model = small_model(ConstantQuantization(2))
        attack = attacks.AnnealedBPDA(
            nb_iter=3, rand_init=False, first_steepness=2, last_steepness=8
        )
        x = tf.constant(few_pixels(2))
        attack.craft(
            attack.seen(KerasModelWrapper(model)),
            x,
            tf.constant([0, 1]),
            tf.constant(0.3),
            tf.constant([[0, 0], [0, 1]]),
        )
        np.testing.assert_allclose(seen, [2, 4, 8], rtol=1e-6)

    def test_configs(self):
        for attack in (
            attacks.BPDA(attacks.CarliniWagnerL2(max_iterations=7), 3.0),
            attacks.AnnealedBPDA(0.2, first_steepness=3.0),
            attacks.CubeAttack(0.2, nb_iter=3, nb_restarts=2, nb_polish=1),
            attacks.LevelFlipAttack(0, 12),
        ):
            again = type(attack).from_config(attack.get_config())
            assert repr(again) == repr(attack)

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (
                lambda: attacks.BPDA("PGD"),
                TypeError,
                "`attack` must be an",
            ),
            (
                lambda: attacks.BPDA(attacks.FastGradientMethod(), 0),
                ValueError,
                "`steepness` must be a finite number above 0",
            ),
            (
                lambda: attacks.AnnealedBPDA(last_steepness=-1),
                ValueError,
                "`last_steepness` must be",
            ),
            (
                lambda: attacks.CubeAttack(nb_polish=-1),
                ValueError,
                "`nb_polish` must be a whole number of at least 0",
            ),
            (
                lambda: attacks.LevelFlipAttack(1),
                ValueError,
                "`norm` must be one of 2, 0",
            ),
        ],
    )
    def test_bad_parameters(self, make, error, message):
        with pytest.raises(error, match=message):
            make()


class TestLevelFlips:
    def linear(self, weights, bias):
        """`score_1 - score_0 = w . q(x) + b` behind a threshold at 0.5."""
        layer = ConstantQuantization(2, hard=True, shared_axes=[1])
        model = keras.Sequential(
            [keras.Input((len(weights),)), layer, keras.layers.Dense(2)]
        )
        kernel = np.stack([np.zeros(len(weights)), weights], 1)
        model.layers[-1].set_weights([kernel, np.array([0.0, bias])])
        return model

    def test_fewest_and_nearest_pixels_of_a_linear_model(self):
        x = np.array([[0.4, 0.1, 0.45, 0.0]], "float32")
        # Two cheap pixels do what one dear pixel does.
        model = self.linear([1.0, 2.1, 1.0, 0.1], -1.95)
        fewest = attacks.LevelFlipAttack(0).run(model, x, [0])
        nearest = attacks.LevelFlipAttack(2).run(model, x, [0])
        assert fewest.success.all() and nearest.success.all()
        np.testing.assert_allclose(
            fewest.x_adv, [[0.4, 0.5, 0.45, 0.0]], atol=1e-6
        )
        np.testing.assert_allclose(
            nearest.x_adv, [[0.5, 0.1, 0.5, 0.0]], atol=1e-6
        )

    def test_what_is_not_needed_is_taken_back(self):
        x = np.array([[0.4, 0.1]], "float32")
        # The cheap pixel goes first and turns out useless.
        model = self.linear([1.0, 5.0], -4.0)
        x_adv = attacks.LevelFlipAttack(2).generate(model, x, [0])
        np.testing.assert_allclose(x_adv, [[0.4, 0.5]], atol=1e-6)

    @pytest.mark.parametrize("name", ["soft", "hard"])
    @pytest.mark.parametrize("norm", [2, 0])
    def test_breaks_trained_models(self, name, norm, trained, images):
        x, y = images
        result = attacks.LevelFlipAttack(norm).run(trained[name], x, y)
        assert result.success.mean() > 0.95
        changed = (result.x_adv != x).reshape(len(x), -1).sum(1)
        assert np.median(changed) < 40

    def test_a_failure_is_one(self, trained, images):
        x, y = images
        y = predicted(trained["hard"], x)
        result = attacks.LevelFlipAttack(max_iter=1).run(trained["hard"], x, y)
        np.testing.assert_array_equal(
            result.x_adv[~result.success], x[~result.success]
        )
        assert not result.success.all()
