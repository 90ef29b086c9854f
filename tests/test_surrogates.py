"""Layers that hide their gradient: found, and gone through."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import masks
from conftest import input_gradient
from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn import models
from keras_qsn._core.kept import Folder
from keras_qsn.attacks.views.base import Seen
from keras_qsn.classifier.masks import find_masks
from keras_qsn.classifier.parts import parts_of
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import surrogates
from keras_qsn.evaluation.threat_model import ThreatModel
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper

SHAPE = (6, 6, 1)
THREAT = ThreatModel(0.3, np.inf)
layers = keras.layers


class Upside(layers.Layer):
    """Brightness turned around, in steps."""

    def call(self, x):
        return 1 - tf.round(4 * x) / 4


class Own(masks.Rounding):
    """Brings a surrogate of its own."""

    def surrogate(self, inputs):
        return 3 * inputs


class Block(layers.Layer):
    """A layer of layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(5)
        self.rounding = masks.Rounding(name="inside")

    def call(self, x):
        return self.rounding(self.dense(x))


class Steep(layers.Layer):
    """A gradient that is there, and says nothing of what happens."""

    def call(self, x):
        return tf.round(4 * x) / 4 - 0.01 * (x - tf.stop_gradient(x))


class Faint(layers.Layer):
    """Next to nothing comes through."""

    def call(self, x):
        return 1 + 1e-7 * x


class Mixed(layers.Layer):
    """Large sums, of which only rounding changes."""

    def call(self, x):
        shape = (x.shape[-1], 50)
        return x @ (100 * tf.random.stateless_normal(shape, (0, 0)))


def network(*first, between=(), activation="relu"):
    return keras.Sequential(
        [keras.Input(SHAPE), *first, layers.Conv2D(4, 3)]
        + [layers.Activation(activation, name="act"), layers.Flatten()]
        + [*between, layers.Dense(4)]
    )


def functional():
    x = keras.Input(SHAPE)
    y = layers.Flatten()(keras.ops.round(4 * x))
    return keras.Model(x, layers.Dense(4)(y))


@tf.custom_gradient
def without_gradient(x):
    return tf.round(4 * x) / 4, lambda up: None


class Bare(layers.Layer):
    """Its gradient is nothing at all."""

    def call(self, x):
        return without_gradient(x)


class InPython(layers.Layer):
    """Its gradient is one scalar of zero."""

    def call(self, x):
        y = tf.py_function(lambda t: tf.round(4 * t) / 4, [x], tf.float32)
        return tf.ensure_shape(y, x.shape)


class Bytes(layers.Layer):
    """By whole numbers."""

    def call(self, x):
        return tf.cast(tf.cast(9 * x, tf.uint8), tf.float32) / 9


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.rounding = masks.Rounding(name="rounding")
        self.flatten, self.dense = layers.Flatten(), layers.Dense(4)

    def call(self, x):
        return self.dense(self.flatten(self.rounding(x)))


@pytest.fixture
def images():
    return np.random.default_rng(0).random((8, *SHAPE)).astype("float32")


def found(model, images):
    wrapper = KerasModelWrapper(model)
    return {
        m.part.name: m.gradient for m in find_masks(wrapper, images, THREAT)
    }


class TestFinding:
    def test_none_zero_and_misleading(self, images):
        rounding = masks.Rounding(name="rounding")
        assert found(network(rounding), images) == {"rounding": "none"}
        sign = masks.Sign(True, name="sign")
        assert found(network(between=[sign]), images) == {"sign": "zero"}
        steep = Steep(name="steep")
        assert found(network(steep), images) == {"steep": "misleading"}

    @pytest.mark.parametrize("kind", [Bare, InPython, Bytes])
    def test_whatever_the_gradient_is_lost_in(self, kind, images):
        model = network(kind(name="lost"))
        assert found(model, images)["lost"] in ("none", "zero")
        attack = attacks.AutoProjectedGradientDescent(0.3, nb_iter=3)
        with pytest.warns(RuntimeWarning, match="gradient of zero"):
            attack.run(model, images, verbose=0)
        view = attacks.LayerSurrogates({"lost": "identity"})
        result = attacks.ViewedAttack(attack, view).run(model, images)
        assert not result.blind.any()

    def test_activations_and_operations(self, images):
        model = network(activation=tf.sign)
        assert found(model, images) == {"act/activation": "zero"}
        dense = layers.Dense(5, tf.round, name="steps")
        model = network(between=[dense])
        assert found(model, images) == {"steps/activation": "none"}
        assert found(functional(), images) == {"round": "none"}

    def test_inside_of_layers_and_models(self, images):
        assert found(network(between=[Block()]), images) == {"inside": "none"}
        inner = network(masks.Rounding(name="rounding"))
        outer = keras.Sequential([keras.Input(SHAPE), inner])
        assert found(outer, images) == {"rounding": "none"}
        model = Subclassed()
        model(images)
        assert found(model, images) == {"rounding": "none"}

    def test_sound_networks_hide_nothing(self, images):
        for model in (
            network(),
            network(activation="tanh"),
            network(QuantLayer(4, 20.0, hard=True)),
            network(layers.Lambda(lambda x: 2 * x), masks.Winners(0.5)),
            network(masks.Noise(), masks.ResizePad(4)),
            # What happens behind the first of them is all rounding.
            network(between=[Faint(), Mixed()]),
            keras.Sequential(
                [keras.Input((6, 6)), layers.GRU(3), layers.Dense(2)]
            ),
        ):
            shape = model.input_shape[1:]
            assert found(model, images.reshape(-1, *shape)) == {}

    def test_of_few_bits(self, images):
        model = network(between=[Block(dtype="mixed_float16")])
        assert found(model, images) == {"inside": "none"}

    def test_draws_are_not_taken_for_a_mask(self, images):
        noisy = masks.Noise(30.0)
        assert found(network(noisy), images) == {}
        model = network(masks.StochasticQuantizer(name="dice"))
        assert found(model, images) == {"dice": "none"}

    def test_the_model_stays_as_it_is(self, images):
        model = network(masks.Rounding(), activation=tf.sign)
        before = [dict(vars(part.owner)) for part in parts_of(model)]
        found(model, images)
        assert before == [vars(part.owner) for part in parts_of(model)]


class TestView:
    def test_the_gradient_is_the_surrogates_and_the_logits_the_models(
        self, images
    ):
        rounding = Own(name="rounding")
        model = network(rounding)
        rest = keras.Sequential(model.layers[1:])
        upstream = tf.random.stateless_normal([8, 4], [1, 2])
        inside = input_gradient(rest, rounding(images), upstream)
        wrapper = KerasModelWrapper(model)
        for surrogate, slope in (
            ("identity", 1.0),
            ("own", 3.0),
            (lambda x: x**2, 2 * images),
            (layers.Rescaling(-2.0), -2.0),
        ):
            view = attacks.LayerSurrogates({"rounding": surrogate})
            seen = Seen(wrapper, [view])
            np.testing.assert_array_equal(seen(images), wrapper(images))
            gradient = input_gradient(seen, images, upstream)
            np.testing.assert_allclose(gradient, slope * inside, rtol=1e-4)

    def test_composes_with_a_quantizers(self, images):
        model = network(masks.Rounding(name="rounding"), QuantLayer(3, 20.0))
        inside = attacks.BPDA(attacks.ProjectedGradientDescent(0.1), 2.0)
        view = attacks.LayerSurrogates({"rounding": "identity"})
        attack = attacks.ViewedAttack(inside, view)
        assert attack.threat == "adaptive"
        assert not attack.run(model, images).blind.any()

    def test_bad_surrogates(self, images):
        wrapper = KerasModelWrapper(network(masks.Rounding(name="rounding")))

        def see(surrogates):
            Seen(wrapper, [attacks.LayerSurrogates(surrogates)])(images)

        with pytest.raises(ValueError, match="one of: rounding.*'round'"):
            see({"round": "identity"})
        with pytest.raises(ValueError, match=r"shape \(8, 6, 6, 1\).*\(8, 6"):
            see({"rounding": lambda x: x[:, :, :3]})
        with pytest.raises(ValueError, match="method `surrogate"):
            see({"rounding": "own"})
        with pytest.raises(TypeError, match="'identity' or 'own'.*3 for"):
            see({"rounding": 3})
        with pytest.raises(TypeError, match="must be a dictionary"):
            attacks.LayerSurrogates("rounding")


class TestChoice:
    def chosen(self, model, images, **given):
        wrapper = KerasModelWrapper(model)
        return surrogates.surrogates_of(
            wrapper,
            images,
            THREAT,
            surrogates.check_surrogates(given, wrapper),
            None,
            Folder(None),
        )

    def test_own_then_the_identity(self, images):
        model = network(Own(name="own"), masks.Rounding(name="rounding"))
        assert self.chosen(model, images).masks == (
            {
                "layer": "own",
                "gradient": "none",
                "surrogate": "the layer's own",
            },
            {
                "layer": "rounding",
                "gradient": "none",
                "surrogate": "the identity",
            },
        )

    def test_what_is_given_comes_first(self, images):
        model = network(Own(name="own"))
        stand_in = layers.Rescaling(1.0, name="ramp")
        found = self.chosen(model, images, own=stand_in)
        assert found.view.surrogates == {"own": stand_in}
        assert found.masks[0]["surrogate"] == "ramp"

    def test_where_the_identity_misleads_one_is_fitted(self, images):
        found = self.chosen(network(Upside(name="upside")), images)
        assert "imitates" in found.masks[0]["surrogate"]
        imitation = found.view.surrogates["upside"]
        slope = input_gradient(imitation, images)
        assert (slope < 0).mean() > 0.9
        np.testing.assert_allclose(imitation(images), 1 - images, atol=0.25)

    def test_where_shapes_differ_one_is_fitted(self, images):
        for make in (
            lambda: network(masks.Thermometer(4, name="codes")),
            lambda: network(
                between=[
                    layers.Lambda(
                        lambda x: tf.round(4 * x[:, ::2]), name="codes"
                    )
                ]
            ),
        ):
            found = self.chosen(make(), images)
            assert "imitates" in found.masks[0]["surrogate"]
            again = self.chosen(make(), images)
            assert again.masks == found.masks

    def test_the_same_seed_fits_the_same(self, images):
        model = network(masks.Thermometer(4, name="codes"))
        one, two = (
            self.chosen(model, images).view.surrogates["codes"].get_weights()
            for _ in range(2)
        )
        for a, b in zip(one, two):
            np.testing.assert_array_equal(a, b)


class TestPreprocessing:
    def test_is_part_of_the_model(self, images):
        model = network()
        inside = models.with_preprocessing(np.round, model)
        np.testing.assert_allclose(
            inside(images), model(np.round(images)), rtol=1e-6
        )
        assert found(inside, images) == {"round_outside": "none"}

    def test_is_saved(self, images, tmp_path):
        rounded = keras.saving.register_keras_serializable("masks")(halves)
        inside = models.with_preprocessing(rounded, network())
        inside.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(inside(images), again(images))
        same = [
            KerasModelWrapper(m).fingerprint(SHAPE) for m in (inside, again)
        ]
        assert same[0] == same[1]
        other = models.with_preprocessing(np.round, inside.layers[1])
        assert KerasModelWrapper(other).fingerprint(SHAPE) != same[0]

    def test_bad_functions(self, images):
        with pytest.raises(TypeError, match="function of a NumPy array"):
            models.with_preprocessing("jpeg", network())
        with pytest.raises(ValueError, match=r"each of the 1 images.*\(6, 6"):
            models.with_preprocessing(lambda x: x[0], network())
        with pytest.raises(ValueError, match=r"\(6, 6, 1\).*\(6, 3, 1\)"):
            models.with_preprocessing(lambda x: x[:, :, :3], network())


def halves(x):
    return np.round(2 * x) / 2


class TestEvaluation:
    def test_bad_surrogates_are_refused_before_any_attack(
        self, digits, tmp_path
    ):
        model = small_cnn()
        x, y = (
            digits.x_test[:4],
            KerasModelWrapper(model).predict(digits.x_test[:4]),
        )
        name = model.layers[-1].name
        for wrong, error in (
            ({"nowhere": "identity"}, "must name layers"),
            ({name: "own"}, "method `surrogate"),
            ({name: lambda x: x}, "at the top of a module.*lambda"),
            ({name: halves}, r"shape \(1, 10\)"),
        ):
            with pytest.raises(ValueError, match=error):
                evaluate_robustness(
                    model,
                    x,
                    y,
                    surrogates=wrong,
                    folder=tmp_path,
                    checks=None,
                    verbose=0,
                )

    def test_a_surrogate_that_is_given_is_used_and_named(self, trained, digits):
        model = masks.before(trained["none"], Upside(name="upside"))
        x, y = digits.x_test[::100], digits.y_test[::100]
        y = KerasModelWrapper(model).predict(x)
        turned = layers.Rescaling(-1.0, 1.0, name="turned")
        found = evaluate_robustness(
            model,
            x,
            y,
            plan="quick",
            surrogates={"upside": turned},
            checks=None,
            verbose=0,
        )
        (mask,) = found.settings["masks"]
        assert (mask["layer"], mask["surrogate"]) == ("upside", "turned")
        assert found.settings["facts"]["masks"] == ("upside",)
        by = {o.step.name: len(o.broken) for o in found.outcomes}
        assert by["FGSM"] == 0 < by["PGD-20 through surrogates"]
        assert found.robust_accuracy == 0
