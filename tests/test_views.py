"""What attacks look at: views compose, any attack takes any of them."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import linear_model
from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn.attacks import losses
from keras_qsn.attacks import steps
from keras_qsn.attacks.views.base import Seen
from keras_qsn.attacks.views.expectation import Expectation
from keras_qsn.attacks.views.surrogate import Surrogate
from keras_qsn.evaluation import Step
from keras_qsn.evaluation.masking import is_thorough
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper
from keras_qsn.models import cleverhans_cnn

SHAPE = (6, 6, 1)
EPS = 0.1
DRAWS = 4


class Noise(keras.layers.Layer):
    """Noise at every call, in inference too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x):
        return x + 0.1 * keras.random.normal(tf.shape(x), seed=self.seeds)


@keras.saving.register_keras_serializable("tests")
class Scaled(attacks.View):
    """Of a user: the logits at another scale."""

    def __init__(self, factor):
        self.factor = factor

    def see(self, logits_fn, wrapper):
        return lambda x: self.factor * logits_fn(x)


@keras.saving.register_keras_serializable("tests")
class Brighter(attacks.Attack):
    """Of a user: so much brighter, with arguments of the base class."""

    def __init__(self, share=1.0, **kwargs):
        super().__init__(**kwargs)
        self.share = share

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        return x + self.share * eps


def network(*before, seed=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input(SHAPE), *before]
        + [keras.layers.Conv2D(4, 3, activation="relu")]
        + [keras.layers.Flatten(), keras.layers.Dense(4)]
    )


@pytest.fixture
def random_model():
    """A model in which the noise comes before a hard quantizer."""
    return network(Noise(), QuantLayer(4, 20.0, hard=True))


@pytest.fixture
def images():
    return np.random.default_rng(0).random((8, *SHAPE)).astype("float32")


def drawn(model, x, straight_through=False):
    """The logits of each draw, by the layers one after the other."""
    _, quantizer, *rest = model.layers
    for i in range(DRAWS):
        seed = tf.random.fold_in([0, i], 0)
        noisy = x + 0.1 * tf.random.stateless_normal(tf.shape(x), seed)
        levels = quantizer(noisy)
        if straight_through:
            levels = noisy + tf.stop_gradient(levels - noisy)
        yield keras.Sequential(rest)(levels)


def mean_of(model, x, **kwargs):
    return tf.add_n([*drawn(model, x, **kwargs)]) / DRAWS


class TestExpectation:
    def test_is_the_mean_of_the_draws(self, random_model, images):
        seen = Seen(KerasModelWrapper(random_model), [Expectation(DRAWS)])
        wanted = np.mean([*drawn(random_model, images)], 0)
        np.testing.assert_allclose(seen(images), wanted, atol=1e-6)
        traced = tf.function(seen, autograph=False)
        np.testing.assert_allclose(traced(images), wanted, atol=1e-6)
        assert traced(images).shape[1] == 4
        # The model is as it was, and goes on drawing.
        assert "next" not in vars(random_model.layers[0].seeds)
        assert (random_model(images) != random_model(images)).numpy().any()

    def test_composes_with_a_surrogate_gradient(self, random_model, images):
        x, y = tf.constant(images), np.arange(8, dtype="int32") % 4
        # Written out: steps of PGD on the mean, straight through.
        point = x
        for _ in range(3):
            with tf.GradientTape() as tape:
                tape.watch(point)
                mean = mean_of(random_model, point, straight_through=True)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, mean)
            step = 0.04 * tf.sign(tape.gradient(loss, point))
            point = tf.clip_by_value(point + step, x - EPS, x + EPS)
            point = tf.clip_by_value(point, 0, 1)
        pgd = attacks.BasicIterativeMethod(EPS, eps_iter=0.04, nb_iter=3)
        attack = attacks.EOT(attacks.BPDA(pgd), DRAWS)
        found = attack.generate(random_model, images, y)
        # Where a gradient is all but zero, its sign may be either.
        assert np.isclose(found, point, atol=1e-6).mean() > 0.99
        again = attack.generate(random_model, images, y)
        np.testing.assert_array_equal(found, again)
        other = attacks.BPDA(attacks.EOT(pgd, DRAWS))
        inside_out = other.generate(random_model, images, y)
        np.testing.assert_array_equal(found, inside_out)

    def test_is_followed_by_any_attack(self, random_model, images):
        y = np.arange(8) % 4
        for attack in (
            attacks.AutoProjectedGradientDescent(EPS, nb_iter=3),
            attacks.AutoAttack(EPS, nb_iter=2, nb_queries=5),
            attacks.FastAdaptiveBoundary(EPS, nb_iter=2),
            attacks.SquareAttack(EPS, nb_queries=5),
            attacks.CubeAttack(EPS, nb_iter=2, nb_restarts=1),
            attacks.AnnealedBPDA(EPS, nb_iter=2),
            attacks.CarliniWagnerL2(max_iterations=2, binary_search_steps=1),
            attacks.DeepFool(max_iter=2),
            attacks.FastMinimumNorm(nb_iter=2),
        ):
            # Cube and the like need a quantizer that sees the image itself.
            model = network(QuantLayer(4, 20.0), Noise())
            viewed = attacks.EOT(attacks.BPDA(attack), DRAWS)
            x_adv = viewed.generate(model, images, y)
            assert x_adv.shape == images.shape and np.isfinite(x_adv).all()
            assert viewed.threat == "adaptive"

    def test_the_network_behind_a_quantizer_is_averaged_too(self, images):
        model = network(QuantLayer(4, 20.0, hard=True), Noise())
        wrapper = KerasModelWrapper(model)
        attack = attacks.EOT(attacks.CubeAttack(EPS), DRAWS)
        opened = attack.seen(wrapper, SHAPE)
        plain = Seen(wrapper, [Expectation(DRAWS)])
        np.testing.assert_allclose(
            opened.behind(opened.quantize(images)), plain(images), atol=1e-6
        )

    def test_of_many_steps_is_as_thorough_as_what_is_inside(self):
        for nb_iter in (5, 50):
            pgd = attacks.ProjectedGradientDescent(EPS, nb_iter=nb_iter)
            attack = attacks.EOT(pgd)
            assert attack.threat == "white-box"
            step = Step("EOT", attack.threat, attack)
            assert is_thorough(step) == (nb_iter == 50)

    def test_bad_parameters(self):
        with pytest.raises(ValueError, match="`draws` must be a whole number"):
            attacks.EOT(attacks.FastGradientMethod(), 0)
        with pytest.raises(TypeError, match="`attack` must be an attack"):
            attacks.EOT("PGD")


class TestComposition:
    def test_the_inner_view_is_seen_through_the_outer(self, images):
        wrapper = KerasModelWrapper(network())

        class Shifted(attacks.View):
            def see(self, logits_fn, wrapper):
                return lambda x: 1 + logits_fn(x)

        logits = wrapper(images)
        attack = attacks.ViewedAttack(attacks.FastGradientMethod(), Shifted())
        attack = attacks.ViewedAttack(attack, Scaled(2.0))
        np.testing.assert_allclose(
            attack.seen(wrapper)(images), 2 * (1 + logits), rtol=1e-6
        )

    def test_another_model_is_the_one_that_is_seen(self, images):
        source = network(QuantLayer(4, 20.0), seed=3)
        target = network()
        pgd, y = attacks.ProjectedGradientDescent(EPS, nb_iter=2), [0] * 8
        first = attacks.TransferAttack(attacks.BPDA(pgd), source)
        second = attacks.BPDA(attacks.TransferAttack(pgd, source))
        wanted = attacks.BPDA(pgd).generate(source, images, y)
        for attack in (first, second):
            assert attack.threat == "transfer" and attack.follows is None
            np.testing.assert_array_equal(
                attack.generate(target, images, y), wanted
            )
        for inside in (second, attacks.EOT(first)):
            with pytest.raises(TypeError, match="not be a `TransferAttack`"):
                attacks.TransferAttack(inside, source)

    def test_success_is_judged_on_the_model_itself(self, images):
        model = network()
        y = KerasModelWrapper(model).predict(images)
        # Seen so, every image seems to be fooled.
        attack = attacks.ViewedAttack(
            attacks.SquareAttack(0.0, nb_queries=2), Scaled(-1.0)
        )
        assert not attack.run(model, images, y).success.any()

    def test_attacks_with_the_same_views_share_a_function(self, images):
        calls = []

        class Counting(attacks.FastGradientMethod):
            def _perturb(self, *args):
                calls.append(args)
                return super()._perturb(*args)

        model, y = network(QuantLayer(4, 20.0)), [0] * 8
        for eps, steepness in ((0.1, 3.0), (0.2, 4.0), (0.2, None)):
            attack = attacks.BPDA(Counting(eps), steepness)
            attack.generate(model, images, y)
        assert len(calls) == 2

    @pytest.mark.parametrize("kind", ["soft", "annealed"])
    def test_of_a_shared_function_each_has_its_own_steepness(
        self, kind, images
    ):
        """Step by step, nothing is shared."""
        model, y = network(QuantLayer(4, 20.0)), tf.zeros(8, tf.int32)
        few = {"eps": 0.5, "nb_iter": 3, "norm": 2}
        made = []
        for z in (1.0, 30.0):
            if kind == "soft":
                descent = attacks.ProjectedGradientDescent(**few)
                attack = attacks.BPDA(descent, z)
                inside = descent.with_views(attack.views)
            else:
                attack = inside = attacks.AnnealedBPDA(
                    **few, first_steepness=z, last_steepness=2 * z
                )
            made.append(attack.generate(model, images, y.numpy()))
            seeds = tf.stack([tf.zeros(8, tf.int32), tf.range(8)], 1)
            alone = inside.craft(
                inside.seen(KerasModelWrapper(model)),
                *(images, y, tf.constant(0.5), seeds),
            )
            np.testing.assert_allclose(made[-1], alone, atol=1e-5)
        assert np.abs(made[0] - made[1]).max() > 0.01

    def test_low_precision_is_near(self, images):
        wrapper = KerasModelWrapper(network())
        seen = Seen(wrapper, [attacks.LowPrecision()])
        logits = wrapper(images)
        found = seen(images)
        assert (found != logits).numpy().any()
        np.testing.assert_allclose(found, logits, atol=0.05)

    def test_bad_views(self):
        with pytest.raises(TypeError, match="`view` must be a `View`"):
            attacks.ViewedAttack(attacks.FastGradientMethod(), "logits")
        with pytest.raises(TypeError, match="does not implement `see`"):
            Seen(KerasModelWrapper(network()), [attacks.View()])


class TestConfigs:
    def test_of_users_are_read_back(self):
        attack = attacks.ViewedAttack(
            attacks.EOT(Brighter(0.5, eps=EPS, seed=3), 7), Scaled(2.0)
        )
        config = json.loads(json.dumps(attack.get_config()))
        assert config["view"] == {
            "class_name": "tests>Scaled",
            "config": {"factor": 2.0},
        }
        again = attacks.ViewedAttack.from_config(config)
        assert repr(again) == repr(attack)
        inside = again.attack.attack
        assert type(inside) is Brighter
        assert (inside.share, inside.eps, inside.seed) == (0.5, EPS, 3)
        kept = keras.saving.serialize_keras_object(attack)
        again = keras.saving.deserialize_keras_object(kept)
        assert repr(again) == repr(attack)

    def test_as_kept_by_the_version_before(self):
        config = {
            "attack": {
                "class_name": "MomentumIterativeMethod",
                "config": {"eps": 0.2, "norm": "inf", "decay_factor": 0.5},
            },
            "steepness": 3.0,
        }
        attack = attacks.BPDA.from_config(config)
        assert (attack.attack.decay_factor, attack.steepness) == (0.5, 3.0)

    def test_of_a_class_that_is_not_registered(self):
        class Unknown(attacks.Attack):
            pass

        config = attacks.BPDA(Unknown()).get_config()
        with pytest.raises(TypeError, match="register"):
            attacks.BPDA.from_config(config)

    def test_an_argument_that_is_not_kept(self):
        class Forgetful(attacks.Attack):
            def __init__(self, inside):
                super().__init__()

        with pytest.raises(TypeError, match="keep its argument `inside`"):
            Forgetful(1).get_config()


@keras.saving.register_keras_serializable("tests")
def own_loss(y, logits):
    return -tf.gather(logits, y, batch_dims=1)


class TestLosses:
    @pytest.mark.parametrize("loss", ["margin", "dlr", own_loss])
    def test_are_followed(self, loss, trained, digits):
        x, y = digits.x_test[:50], digits.y_test[:50]
        plain, other = (
            attacks.ProjectedGradientDescent(EPS, nb_iter=5, **kwargs)
            for kwargs in ({}, {"loss": loss})
        )
        model = trained["none"]
        found = other.run(model, x, y)
        assert (found.x_adv != plain.generate(model, x, y)).any()
        assert found.success.mean() > 0.3 and other.follows == "margin"
        again = type(other).from_config(other.get_config())
        assert again.loss == loss and repr(again) == repr(other)

    def test_the_margin_is_that_of_a_linear_model(self):
        weights = np.array([[1.0, -2.0, 0.5], [0.2, 0.3, -0.4]], "float32")
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        model.set_weights([weights, np.zeros(3, "float32")])
        x = np.array([[0.5, 0.5]], "float32")
        for loss in ("margin", lambda y, z: z[:, 2] - z[:, 0]):
            attack = attacks.FastGradientMethod(0.1, loss=loss)
            # The largest other logit than the first is the third.
            wanted = x + 0.1 * np.sign(weights[:, 2] - weights[:, 0])
            np.testing.assert_allclose(
                attack.generate(model, x, [0]), wanted, rtol=1e-6
            )

    def test_functions_of_one_name_are_told_apart(self, images):
        model, y = network(), [0] * 8
        up, down = (
            attacks.FastGradientMethod(
                EPS, loss=lambda y, z, sign=sign: sign * z[:, 1]
            ).generate(model, images, y)
            for sign in (1, -1)
        )
        assert (up != down).any()

    def test_the_default_is_not_told(self):
        assert "loss" not in attacks.FastGradientMethod().get_config()
        bim = attacks.BasicIterativeMethod(loss="margin")
        assert bim.get_config()["loss"] == "margin"

    def test_unknown(self):
        with pytest.raises(ValueError, match="'cross_entropy', 'margin', 'dl"):
            attacks.ProjectedGradientDescent(loss="hinge")


class TestSteps:
    def test_restarts_share_nothing(self):
        every = []
        for seed in range(5):
            seeds = tf.constant([[seed, index] for index in range(50)])
            for stream, i in itertools.product(range(2), range(1, 20)):
                moved = steps.restarted(seeds, i, stream)
                every += map(tuple, moved.numpy())
        assert len({*every}) == len(every)

    def test_the_first_start_is_that_of_the_seed(self):
        seeds = np.array([[3, 0], [3, 1]], "int32")
        np.testing.assert_array_equal(steps.restarted(seeds, 0), seeds)

    def test_surrogates_of_a_model_without_quantizer(self, images):
        with pytest.raises(ValueError, match="with a quantization layer"):
            Seen(KerasModelWrapper(small_cnn()), [Surrogate()])


def test_two_functions_of_one_name_are_two_views():
    class Through(attacks.View):
        def __init__(self, function):
            self.function = function

        def see(self, logits_fn, wrapper):
            return lambda x: logits_fn(self.function(x))

    model = linear_model([1.0, 2.0])
    x = np.full((1, 2), 0.5, "float32")
    attack = attacks.FastGradientMethod(0.1)
    there, back = (
        attacks.ViewedAttack(attack, Through(function)).generate(model, x, [0])
        for function in (lambda x: x, lambda x: 1 - x)
    )
    np.testing.assert_allclose(there - x, x - back, atol=1e-6)
    assert (there != x).all()


def test_an_attack_with_a_view_of_its_own_is_told_the_new_way():
    with pytest.raises(TypeError, match="`ViewedAttack"):

        class Old(attacks.FastGradientMethod):
            def view(self, wrapper):
                return wrapper.get_logits


@pytest.mark.parametrize(
    "dtype", [attacks.FastGradientMethod(), "int8", "bool", "brain"]
)
def test_what_is_no_float_type(dtype):
    with pytest.raises(ValueError, match="`dtype` must be.*`ViewedAttack"):
        attacks.LowPrecision(dtype)


def test_a_loss_takes_labels_and_logits():
    with pytest.raises(ValueError, match="a function of labels and logits"):
        attacks.FastGradientMethod(loss=lambda logits: logits[:, 0])


class Hopeful(attacks.View):
    """Sees the second class ahead a little before it is."""

    def __init__(self, rounding):
        self.rounding = rounding

    def see(self, logits_fn, wrapper):
        def seen(x):
            logits = logits_fn(x)
            largest = tf.reduce_max(tf.abs(logits), 1, keepdims=True)
            return logits + 0.02 * largest * [[0.0, 1.0]]

        return seen


@pytest.mark.parametrize(
    "attack",
    [
        attacks.ProjectedGradientDescent(
            0.5, eps_iter=0.001, nb_iter=200, rand_init=False, early_stop=True
        ),
        attacks.AutoProjectedGradientDescent(0.3, nb_iter=100),
    ],
)
def test_who_stops_early_goes_past_what_a_view_may_be_off(attack):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.set_weights([np.float32([[1, 0], [1, 0]]), np.float32([0, 1])])
    x = np.linspace([0.5, 0.5], [0.65, 0.65], 2000).astype("float32")
    found = {
        rounding: attacks.ViewedAttack(attack, Hopeful(rounding))
        .run(model, x, np.zeros(2000, int), verbose=0)
        .success
        for rounding in (0.0, 0.03)
    }
    assert not found[0.0].all()
    assert found[0.03].all()


def test_who_opens_the_model_knows_what_a_view_may_be_off():
    model = cleverhans_cnn(quantizer=ConstantQuantization(2), seed=0)
    wrapper = KerasModelWrapper(model)
    attack = attacks.CubeAttack(0.3)
    assert attack.seen(wrapper).rounding == losses.ROUNDING
    hopeful = attacks.ViewedAttack(attack, Hopeful(0.03))
    assert hopeful.seen(wrapper).rounding == 0.03
