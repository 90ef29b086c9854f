"""The projection of Defense-GAN: its descent, its gradients, its evaluation."""

import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import input_gradient
from keras_qsn.attacks import DetectorEvasion
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.defenses import DefenseGANProjection
from keras_qsn.defenses import MedianSmoothing
from keras_qsn.defenses import ReconstructionDetector
from keras_qsn.defenses import check_reconstruction
from keras_qsn.defenses import defense_gan_networks
from keras_qsn.defenses import squeezed
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.models import KerasModelWrapper

SHAPE = (8, 8, 1)


def linear_generator(latent=3, pixels=6):
    """`G(z) = z A + b` as images of one row, and `A`, `b`."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(latent, pixels)), rng.random(pixels)
    dense = keras.layers.Dense(pixels)
    model = keras.Sequential(
        [keras.Input((latent,)), dense, keras.layers.Reshape((1, pixels, 1))]
    )
    dense.set_weights(weights)
    return model, *weights


def small_generator(dtype="float32", latent=4):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((latent,), dtype=dtype),
            layers.Dense(12, "tanh", dtype=dtype),
            layers.Dense(64, "sigmoid", dtype=dtype),
            layers.Reshape(SHAPE, dtype=dtype),
        ]
    )
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def projection(generator=None, **kwargs):
    kwargs = {
        "num_restarts": 3,
        "num_steps": 20,
        "learning_rate": 1.0,
        "fixed_starts": True,
        **kwargs,
    }
    return DefenseGANProjection(generator or small_generator(), **kwargs)


def images(count=5, dtype="float32"):
    return np.random.default_rng(0).random((count, *SHAPE)).astype(dtype)


def classifier():
    model = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def errors(made, x):
    return np.square(np.asarray(made) - x).mean((1, 2, 3))


class TestDescent:
    def test_least_squares_of_a_linear_generator(self):
        generator, a, b = linear_generator()
        x = np.random.default_rng(1).random((4, 1, 6, 1)).astype("float32")
        z = np.linalg.lstsq(a.T, (x.reshape(4, 6) - b).T, rcond=None)[0]
        expected = (z.T @ a + b).reshape(x.shape)
        made = projection(generator, num_steps=150)(x)
        np.testing.assert_allclose(made, expected, atol=1e-4)

    def test_steps_by_hand(self):
        generator, a, b = linear_generator()
        x = np.random.default_rng(1).random((1, 1, 6, 1)).astype("float32")
        starts = np.random.default_rng(7).standard_normal((1, 3))
        z, v = starts / np.sqrt(3), 0.0
        for step in range(6):
            # 80 % of six steps are five.
            rate = 0.5 if step < 5 else 0.05
            slope = 2 / 6 * (z @ a + b - x.reshape(1, 6)) @ a.T
            v = 0.6 * v - rate * slope
            z = z + v
        made = projection(
            generator,
            num_restarts=1,
            num_steps=6,
            learning_rate=0.5,
            momentum=0.6,
            seed=7,
        )(x)
        np.testing.assert_allclose(
            np.ravel(made), np.ravel(z @ a + b), rtol=1e-4
        )

    def test_more_restarts_are_never_worse(self):
        x = images()
        found = [
            errors(projection(num_restarts=r)(x), x) for r in (1, 2, 5, 20)
        ]
        for fewer, more in zip(found, found[1:]):
            assert (more <= fewer + 1e-6).all()
        assert (found[-1] < found[0] - 1e-3).any()

    @pytest.mark.parametrize("at_once", [1, 7])
    def test_parts_give_the_same(self, at_once):
        x = images()
        whole = projection(descents_at_once=10**6)(x)
        parts = projection(descents_at_once=at_once)(x)
        np.testing.assert_allclose(parts, whole, atol=1e-5)

    def test_no_more_descents_in_memory_than_said(self):
        """The largest tensor of images in the graph is of one part."""
        seen = []

        @keras.saving.register_keras_serializable("tests")
        class Spy(keras.layers.Layer):
            def call(self, inputs):
                tf.py_function(
                    lambda n: seen.append(int(n)), [len_of(inputs)], []
                )
                return inputs

        def len_of(inputs):
            return tf.shape(inputs)[0]

        generator = keras.Sequential(
            [keras.Input((4,)), Spy(), *small_generator().layers]
        )
        layer = projection(generator, num_steps=2, descents_at_once=4)
        layer(images(3))
        assert max(seen) <= 4

    def test_an_image_does_not_depend_on_its_batch(self):
        x, layer = images(), projection()
        alone = np.concatenate([layer(x[i : i + 1]) for i in range(len(x))])
        np.testing.assert_allclose(layer(x), alone, atol=1e-5)
        np.testing.assert_allclose(
            layer.project(x, 2, verbose=0), alone, atol=1e-5
        )
        assert layer(x[:0]).shape == (0, *SHAPE)

    def test_a_descent_that_diverges_is_not_the_best(self):
        """From one start it does, from the other it does not."""
        a = keras.Input((1,))
        steep = keras.ops.exp(40 * keras.ops.relu(a)) * keras.ops.ones((1, 64))
        generator = keras.Model(a, keras.layers.Reshape(SHAPE)(steep))
        made = projection(generator, num_restarts=8, learning_rate=5.0)(
            images()
        )
        assert np.isfinite(made).all()

    def test_progress(self):
        said = []
        projection(num_steps=1).project(
            images(), 2, progress=lambda *args: said.append(args)
        )
        assert said == [("projection", n, 5) for n in (2, 4, 5)]

    def test_fresh_starts_are_those_of_the_seed(self):
        x = images()
        first = projection(fixed_starts=False, num_steps=3)
        again = projection(fixed_starts=False, num_steps=3)
        other = projection(fixed_starts=False, num_steps=3, seed=1)
        one, two = first(x), first(x)
        assert not np.allclose(one, two)
        assert not np.allclose(one, other(x))
        np.testing.assert_array_equal(again(x), one)
        np.testing.assert_array_equal(again(x), two)


class TestGradient:
    def test_straight_through_and_none(self):
        x = images()
        upstream = np.arange(x.size, dtype="float32").reshape(x.shape)
        identity = input_gradient(projection(), x, upstream)
        np.testing.assert_array_equal(identity, upstream)
        np.testing.assert_array_equal(projection().surrogate(x), x)
        layer = projection(gradient="none")
        with tf.GradientTape() as tape:
            inputs = tf.constant(x)
            tape.watch(inputs)
            y = layer(inputs)
        assert tape.gradient(y, inputs) is None

    def test_all_see_the_same_forward(self):
        x = images()
        expected = projection()(x)
        for gradient in ("unrolled", "none"):
            made = projection(gradient=gradient)(x)
            np.testing.assert_allclose(made, expected, atol=1e-6)

    @pytest.mark.parametrize("compiled", [False, True])
    def test_unrolled_is_finite_differences(self, compiled):
        layer = projection(
            small_generator("float64"),
            gradient="unrolled",
            num_steps=7,
            dtype="float64",
        )
        x = images(2, "float64")
        rng = np.random.default_rng(3)
        upstream, way = rng.normal(size=(2, *x.shape))

        def function(x):
            return layer(x)

        function = tf.function(function) if compiled else function
        slope = (input_gradient(function, x, upstream) * way).sum()
        h = 1e-6
        high, low = (
            np.asarray(layer(x + h * way)),
            np.asarray(layer(x - h * way)),
        )
        change = ((high - low) * upstream).sum() / (2 * h)
        assert abs(change) > 1e-3
        np.testing.assert_allclose(slope, change, rtol=1e-5)

    def test_unrolled_of_a_linear_generator_projects(self):
        generator, a, _ = linear_generator()
        x = np.zeros((1, 1, 6, 1), "float32")
        layer = projection(generator, num_steps=150, gradient="unrolled")
        upstream = np.arange(6, dtype="float32").reshape(x.shape)
        expected = upstream.ravel() @ np.linalg.pinv(a) @ a
        np.testing.assert_allclose(
            input_gradient(layer, x, upstream).ravel(), expected, atol=1e-4
        )


class TestContract:
    @pytest.mark.parametrize("fixed", [True, False])
    def test_saves_and_loads_with_a_classifier(self, fixed, tmp_path):
        layer = projection(gradient="unrolled", seed=5, fixed_starts=fixed)
        model, x = squeezed(classifier(), layer), images()
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(again(x), model(x), atol=1e-6)
        json.dumps(layer.get_config())

    def test_only_the_classifier_is_trained(self):
        model = squeezed(classifier(), projection())
        assert len(model.trainable_variables) == 2
        model.compile("sgd", "mse")
        before = projection().generator.get_weights()
        model.fit(images(), np.zeros((5, 3)), verbose=0)
        for a, b in zip(model.layers[1].generator.get_weights(), before):
            np.testing.assert_array_equal(a, b)

    def test_exports(self, tmp_path):
        model, x = squeezed(classifier(), projection()), images()
        model.export(tmp_path / "served", verbose=False)
        served = tf.saved_model.load(tmp_path / "served")
        np.testing.assert_allclose(served.serve(x), model(x), atol=1e-4)

    def test_mixed_precision(self):
        x = images()
        mixed = projection(dtype="mixed_float16")(x)
        assert mixed.dtype == tf.float16
        np.testing.assert_allclose(mixed, projection()(x), atol=2e-3)

    @pytest.mark.parametrize(
        ("kwargs", "says"),
        [
            ({"num_restarts": 0}, "`num_restarts` must be a whole number"),
            ({"num_steps": 0}, "`num_steps` must be a whole number"),
            ({"learning_rate": 0}, "`learning_rate` must be a finite"),
            ({"momentum": 1}, r"`momentum` must lie in \[0, 1\)"),
            ({"gradient": "exact"}, "`gradient` must be one of"),
            ({"descents_at_once": 0}, "`descents_at_once` must be a whole"),
        ],
    )
    def test_refuses_other_numbers(self, kwargs, says):
        with pytest.raises(ValueError, match=says):
            projection(**kwargs)
        for name in kwargs.keys() - {"gradient"}:
            with pytest.raises(TypeError, match=f"`{name}` must be a number"):
                projection(**{name: "many"})

    def test_refuses_other_generators_and_images(self):
        with pytest.raises(TypeError, match="`generator` must be a Keras"):
            DefenseGANProjection(lambda z: z)
        with pytest.raises(ValueError, match="must take vectors"):
            DefenseGANProjection(classifier())
        with pytest.raises(ValueError, match="that its generator makes"):
            projection()(np.zeros((2, 9, 8, 1), "float32"))
        with pytest.raises(TypeError, match="floating-point images"):
            projection()(np.zeros((2, *SHAPE), int))
        other, _ = defense_gan_networks((9, 8, 1), 4, 1)
        with pytest.raises(ValueError, match="that its generator makes"):
            squeezed(classifier(), projection(other))


class TestEvaluation:
    def evaluated(self, layer, **kwargs):
        model, x = squeezed(classifier(), layer), images(8)
        y = KerasModelWrapper(model).predict(x)
        kwargs = {"plan": "quick", "checks": None, "verbose": 0, **kwargs}
        return evaluate_robustness(model, x, y, eps=0.3, **kwargs)

    def test_finds_the_layers_own_surrogate(self):
        layer = projection(gradient="none", num_steps=5)
        evaluation = self.evaluated(layer)
        (mask,) = evaluation.settings["masks"]
        assert mask["layer"] == layer.name
        assert mask["gradient"] == "none"
        assert mask["surrogate"] == "the layer's own"
        names = [outcome.step.name for outcome in evaluation.outcomes]
        assert any("through surrogates" in name for name in names)

    def test_sees_the_random_starts(self):
        plan = [ProjectedGradientDescent(eps=0.3, nb_iter=2)]
        layer = projection(num_restarts=1, num_steps=2, fixed_starts=False)
        assert self.evaluated(layer, plan=plan, draws=5).answers is not None
        layer = projection(num_restarts=1, num_steps=2)
        assert self.evaluated(layer, plan=plan).answers is None

    def test_with_its_detector(self):
        layer = projection(num_steps=5)
        detector = ReconstructionDetector(layer, 0.2).fit(images(20))
        plan = [DetectorEvasion(eps=0.3, detector=detector, nb_iter=5)]
        evaluation = self.evaluated(layer, detector=detector, plan=plan)
        assert evaluation.detection.detector == "ReconstructionDetector"
        (outcome,) = evaluation.outcomes
        assert (
            detector.score(evaluation.x_adv[outcome.broken])
            <= detector.threshold
        ).all()


class TestReconstruction:
    def test_scores_are_mean_squares(self):
        x, layer = images(), projection()
        detector = ReconstructionDetector(layer)
        np.testing.assert_allclose(
            detector.score(x), errors(layer(x), x), rtol=1e-4
        )

    def test_the_slope_is_that_of_a_distance_to_a_set(self):
        generator, a, b = linear_generator()
        x = np.random.default_rng(1).random((1, 1, 6, 1)).astype("float32")
        layer = projection(generator, num_steps=150)
        slope = input_gradient(ReconstructionDetector(layer).call, x)
        residual = (x.ravel() - b) @ (np.eye(6) - np.linalg.pinv(a) @ a)
        np.testing.assert_allclose(slope.ravel(), residual / 3, atol=1e-4)

    def test_travels_to_another_process(self):
        detector = ReconstructionDetector(projection()).fit(images())
        again = pickle.loads(pickle.dumps(detector))
        x = images()
        np.testing.assert_allclose(again.score(x), detector.score(x), rtol=1e-4)
        assert again.threshold == detector.threshold
        assert again.fingerprint(SHAPE) == detector.fingerprint(SHAPE)

    def test_refuses_what_is_no_fixed_projection(self):
        with pytest.raises(TypeError, match="must be a `DefenseGANProject"):
            ReconstructionDetector(MedianSmoothing())
        with pytest.raises(ValueError, match="`fixed_starts=True`"):
            ReconstructionDetector(projection(fixed_starts=False))
        with pytest.raises(ValueError, match="`false_positive_rate` must"):
            ReconstructionDetector(projection(), 1.0)
        with pytest.raises(TypeError, match="`false_positive_rate` must"):
            ReconstructionDetector(projection(), "few")

    def test_a_generator_of_one_image_has_collapsed(self):
        generator = small_generator()
        first, *others = generator.get_weights()
        generator.set_weights([0 * first, *others])
        x = images(10)
        with pytest.raises(ValueError, match=r"Received: (.*), and 10 of 10"):
            check_reconstruction(projection(generator), x)

    def test_the_figure_is_the_share_that_the_mean_leaves(self):
        x = images(10)
        made = 0.25 * x + 0.75 * x.mean(0)
        error = check_reconstruction(lambda _: made, x, 0.6, batch_size=10)
        np.testing.assert_allclose(error, 0.75**2, rtol=1e-5)
        with pytest.raises(ValueError, match="limit=0.5.*Received: 0.56"):
            check_reconstruction(lambda _: made, x, batch_size=10)
        with pytest.raises(ValueError, match="Received: nan"):
            check_reconstruction(lambda x: x * np.nan, x)
        with pytest.raises(ValueError, match="all the same"):
            check_reconstruction(lambda x: x, x[:1])

    def test_refuses_what_it_cannot_compare(self):
        x = images(4)
        with pytest.raises(TypeError, match="floating-point.*dtype=uint8"):
            check_reconstruction(lambda x: x, (255 * x).astype("uint8"))
        with pytest.raises(ValueError, match=r"at least two.*\(0, "):
            check_reconstruction(lambda x: x, x[:0])
        for other in (lambda x: x[:, :1], lambda x: tf.repeat(x, 2, -1)):
            with pytest.raises(ValueError, match="of the shape that it is gi"):
                check_reconstruction(other, x)
