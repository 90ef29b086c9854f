import json
import resource
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import input_gradient
from keras_qsn.constraints import ThresholdRange
from keras_qsn.initializers import EquallySpaced
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.layers import TrainableQuantization

LAYERS = [
    QuantLayer(3, 20.0, shared_axes=[1, 2], gradient="paper"),
    QuantLayer(2, 30.0, hard=True, gradient="straight_through"),
    QuantLayer(4, 9.0, variant="authors", value_range=(-1, 1)),
    ConstantQuantization(threshold_initializer=[0.4]),
    TrainableQuantization(5, threshold_constraint=ThresholdRange(0.2, 0.8)),
]
IDS = ["paper", "hard", "authors", "CQ", "TQ"]


def classifier(layer, shape=(6, 5, 2)):
    model = keras.Sequential(
        [
            keras.Input(shape),
            layer,
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def fresh(layer):
    return type(layer).from_config(layer.get_config())


def batch(shape=(8, 6, 5, 2)):
    rng = np.random.default_rng(0)
    x = rng.random(shape).astype("float32")
    return x, rng.integers(3, size=shape[0])


@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
class TestContract:
    def test_config_survives_json(self, layer):
        config = json.loads(json.dumps(layer.get_config()))
        again = type(layer).from_config(config)
        assert again.get_config() == layer.get_config()

    def test_fit_evaluate_predict_and_tf_data(self, layer):
        model = classifier(fresh(layer))
        x, y = batch()
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        model.fit(x, y, verbose=0)
        assert np.isfinite(model.evaluate(x, y, verbose=0))
        np.testing.assert_allclose(
            model.predict(x, verbose=0), model(x), atol=1e-5
        )

    def test_xla_gives_the_same(self, layer):
        model = classifier(fresh(layer))
        x, y = batch()
        plain = model.predict(x, verbose=0)
        model.compile("sgd", model.loss, jit_compile=True)
        np.testing.assert_allclose(
            model.predict(x, verbose=0), plain, atol=1e-5
        )
        model.fit(x, y, verbose=0)

    def test_save_and_load(self, layer, tmp_path):
        model = classifier(fresh(layer))
        x, y = batch()
        model.fit(x, y, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(model(x), again(x))

    def test_export_to_saved_model(self, layer, tmp_path):
        model = classifier(fresh(layer))
        x, _ = batch()
        model.export(tmp_path / "served", verbose=False)
        served = tf.saved_model.load(tmp_path / "served")
        np.testing.assert_allclose(served.serve(x), model(x), atol=1e-6)

    def test_clone(self, layer):
        model = classifier(fresh(layer))
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        x, _ = batch()
        np.testing.assert_array_equal(model(x), clone(x))

    def test_mixed_precision_decides_in_float32(self, layer):
        config = {**layer.get_config(), "dtype": "mixed_float16"}
        mixed = type(layer).from_config(config)
        full = fresh(layer)
        x, _ = batch()
        assert mixed(x).dtype == tf.float16
        assert mixed.thresholds.dtype == "float32"
        np.testing.assert_allclose(mixed(x), full(x), atol=2e-3)


def test_loads_in_a_fresh_process(tmp_path):
    model = classifier(TrainableQuantization(3))
    x, y = batch()
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "logits.npy", model.predict(x, verbose=0))
    script = """
        import keras, numpy as np
        import keras_qsn
        model = keras.models.load_model("model.keras")
        logits = model.predict(np.load("x.npy"), verbose=0)
        np.testing.assert_array_equal(logits, np.load("logits.npy"))
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )


def test_thresholds_move_in_fit_and_stay_in_range():
    layer = TrainableQuantization(3)
    model = classifier(layer)
    before = layer.thresholds.numpy()
    x, y = batch()
    model.optimizer.learning_rate = 1.0
    model.fit(x, y, epochs=3, verbose=0)
    after = layer.thresholds.numpy()
    assert (after != before).any()
    assert after.min() == 0.0 or after.max() == 1.0, "the constraint must act"
    assert (after >= 0).all() and (after <= 1).all()


def test_constant_thresholds_do_not_move_until_made_trainable():
    layer = ConstantQuantization(3, steepness=10.0)
    model = classifier(layer)
    x, y = batch()
    before = layer.thresholds.numpy()
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(layer.thresholds, before)
    layer.trainable = True
    model.compile("adam", model.loss)
    model.fit(x, y, verbose=0)
    moved = layer.thresholds.numpy()
    assert (moved != before).any()
    layer.trainable = False
    model.compile("adam", model.loss)
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(layer.thresholds, moved)


@pytest.mark.parametrize(
    ("shape", "shared_axes", "expected"),
    [
        ((None, 7), None, (7, 1)),
        ((None, 6, 5, 2), None, (6, 5, 2, 1)),
        ((None, 6, 5, 2), [1, 2], (1, 1, 2, 1)),
        ((None, None, None, 3), [1, 2, 3], (1, 1, 1, 1)),
        ((None, 2, 3, 4, 5, 1), 5, (2, 3, 4, 5, 1, 1)),
    ],
)
def test_threshold_shapes(shape, shared_axes, expected):
    layer = TrainableQuantization(shared_axes=shared_axes)
    layer.build(shape)
    assert tuple(layer.thresholds.shape) == expected


def test_unknown_image_size_with_shared_thresholds():
    layer = ConstantQuantization(3, shared_axes=[1, 2])
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layer(inputs))
    for size in (4, 9):
        x = np.random.default_rng(size).random((2, size, size, 3))
        x = x.astype("float32")
        same = ConstantQuantization(3)(x)
        np.testing.assert_allclose(model.predict(x, verbose=0), same, atol=1e-6)


def test_functional_model_keeps_non_default_arguments():
    inputs = keras.Input((4, 4, 1))
    layer = QuantLayer(5, 33.0, hard=True, value_range=(0, 255))
    model = keras.Model(inputs, layer(inputs))
    x = np.linspace(0, 255, 32, dtype="float32").reshape(2, 4, 4, 1)
    levels = np.unique(model.predict(x, verbose=0))
    np.testing.assert_allclose(levels, np.linspace(0, 255, 5), rtol=1e-6)


def test_identity_limit_leaves_the_network_unchanged():
    """Fine enough, the layer does nothing: 2,000 hard levels."""
    x, _ = batch((4, 6, 5, 2))
    fine = QuantLayer(2001, 5.0, hard=True, shared_axes=[1, 2, 3])
    # Bins of width 1/2001 with outputs k/2000.
    np.testing.assert_allclose(fine(x), x, atol=1 / 2000)
    dense = keras.layers.Dense(3)
    flat = keras.layers.Flatten()
    np.testing.assert_allclose(
        dense(flat(fine(x))), dense(flat(x)), atol=60 / 2000
    )


def test_authors_variant_is_their_published_code():
    """k/n for k = 1..n, divided by n - 1, clipped to [0, 1]."""
    n, z = 3, 5.0
    x = np.linspace(0, 1, 41, dtype="float32")[None]
    layer = QuantLayer(n, z, variant="authors")
    k = np.arange(1, n + 1) / n
    wanted = (1 / (1 + np.exp(-z * (x[..., None] - k)))).sum(-1) / (n - 1)
    np.testing.assert_allclose(layer(x), np.clip(wanted, 0, 1), atol=1e-6)


def test_authors_clip_hides_pixels_from_the_gradient():
    layer = QuantLayer(2, 50.0, variant="authors")
    x = np.array([[0.2, 0.6, 0.995, 1.0]], "float32")
    gradient = input_gradient(layer, x)[0]
    assert gradient[0] > 0 and gradient[1] > 0
    assert gradient[2] == gradient[3] == 0


@pytest.mark.parametrize("value_range", [(0, 1), (0, 255), (-1, 1)])
def test_straight_through_is_the_identity_in_pixel_units(value_range):
    layer = QuantLayer(
        2, 50.0, hard=True, gradient="straight_through", value_range=value_range
    )
    x = np.linspace(*value_range, 12, dtype="float32")[None]
    np.testing.assert_array_equal(input_gradient(layer, x), np.ones_like(x))


def test_memory_does_not_hold_one_value_per_level():
    """One copy of this batch's sigmoids would take 8 GB."""

    def peak_bytes():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak

    layer = QuantLayer(2001, 50.0, shared_axes=[1, 2, 3])
    x = np.full((8, 200, 200, 3), 0.5, "float32")
    before = peak_bytes()
    gradient = input_gradient(layer, x)
    assert (gradient > 0).all()
    assert peak_bytes() - before < 1e9


@pytest.mark.parametrize("gradient", ["exact", "paper", "straight_through"])
def test_eager_calls_write_no_pixels_into_errors_that_are_dropped(gradient):
    def write(value):
        raise AssertionError(f"{value} was written")

    layer = QuantLayer(3, 20.0, gradient=gradient)
    x = tf.constant(np.random.default_rng(0).random((2, 3), "float32"))
    with np.printoptions(formatter={"float_kind": write}):
        with pytest.raises(AssertionError, match="was written"):
            repr(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        assert tape.gradient(y, x).shape == x.shape


class TestBadInput:
    @pytest.mark.parametrize("num_levels", [1, 0, 2.5, True, "2"])
    def test_levels(self, num_levels):
        with pytest.raises(ValueError, match="`num_levels` must be an integer"):
            QuantLayer(num_levels, 5.0)

    @pytest.mark.parametrize("steepness", [0, -1.0, np.inf, np.nan])
    def test_steepness(self, steepness):
        with pytest.raises(ValueError, match="`steepness` must be a finite"):
            QuantLayer(2, steepness)

    def test_gradient(self):
        with pytest.raises(ValueError, match="must be one of 'exact', 'paper'"):
            QuantLayer(2, 5.0, gradient="ste")

    def test_variant(self):
        with pytest.raises(ValueError, match="must be one of 'standard'"):
            QuantLayer(2, 5.0, variant="paper")

    @pytest.mark.parametrize("value_range", [(1, 0), 255, (0, np.inf), "ab"])
    def test_value_range(self, value_range):
        with pytest.raises(ValueError, match="`value_range` must be two"):
            QuantLayer(2, 5.0, value_range=value_range)

    def test_thresholds_outside_the_range(self):
        layer = QuantLayer(2, 5.0, threshold_initializer=[1.2])
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*1.2"):
            layer.build((None, 4))
        layer = QuantLayer(
            2, 5.0, threshold_initializer=keras.initializers.Constant(-0.1)
        )
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*-0.1"):
            layer.build((None, 4))

    def test_number_of_thresholds(self):
        with pytest.raises(ValueError, match="3 levels need 2 threshold"):
            QuantLayer(3, 5.0, threshold_initializer=[0.5])

    def test_constraint_interval(self):
        with pytest.raises(ValueError, match="0 <= minimum <= maximum <= 1"):
            ThresholdRange(0.7, 0.3)

    def test_unknown_pixels_need_shared_axes(self):
        with pytest.raises(ValueError, match=r"`shared_axes=\[1, 2\]`"):
            TrainableQuantization().build((None, None, None, 3))

    def test_shared_axes_outside_the_input(self):
        with pytest.raises(ValueError, match="between 1 and 1"):
            TrainableQuantization(shared_axes=[2]).build((None, 4))

    def test_no_pixels(self):
        with pytest.raises(ValueError, match="at least 2 axes"):
            TrainableQuantization().build((None,))

    def test_integers(self):
        with pytest.raises(TypeError, match="floating-point.*uint8.*astype"):
            QuantLayer(2, 5.0)(np.zeros((2, 3), "uint8"))

    @pytest.mark.parametrize("bad", [255.0, np.nan, np.inf, -np.inf])
    def test_pixels(self, bad):
        layer = QuantLayer(2, 5.0)
        x = np.array([[0.0, bad]], "float32")
        with pytest.raises(ValueError, match="expects pixels in value_range"):
            layer(x)
        with pytest.raises(
            tf.errors.InvalidArgumentError,
            match="expects pixels in value_range",
        ):
            tf.function(layer)(x)

    def test_fit_on_unscaled_images(self):
        x, y = batch()
        with pytest.raises(
            tf.errors.InvalidArgumentError,
            match="expects pixels in value_range",
        ):
            classifier(TrainableQuantization()).fit(255 * x, y, verbose=0)

    def test_noise_a_little_outside_is_accepted(self):
        x = np.array([[-0.4, 1.9]], "float32")
        assert np.isfinite(QuantLayer(2, 5.0)(x)).all()


def test_initializer_and_constraint_round_trip():
    for thing in (EquallySpaced(5, "authors"), ThresholdRange(0.1, 0.6)):
        again = type(thing).from_config(thing.get_config())
        assert again.get_config() == thing.get_config()
