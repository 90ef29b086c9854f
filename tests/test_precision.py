"""Inner layers in fewer bits: what is rounded, where, and for whom."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn import attacks
from keras_qsn._core import precision
from keras_qsn._core.precision import low_precision
from keras_qsn.attacks import LowPrecision
from keras_qsn.attacks.views.surrogate import Surrogate
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation.sight import Sight
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.models import cleverhans_cnn
from keras_qsn.report.summary import facts


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Layer):
    """A layer of the user's own."""

    def call(self, inputs):
        return 2 * inputs


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            QuantLayer(2, 5.0),
            keras.layers.Conv2D(4, 3, activation="relu"),
            Doubled(),
            keras.layers.BatchNormalization(),
            keras.Sequential(
                [keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
            ),
            keras.layers.Dense(3, name="logits"),
            keras.layers.Softmax(),
        ]
    )


X = tf.random.stateless_uniform((4, 8, 8, 1), (0, 0))


def dtypes(model, x=X):
    """What each layer returns, called one after the other."""
    found = {}
    for layer in model.layers:
        x = layer(x)
        found[type(layer).__name__] = x.dtype.name
    return found


def test_what_is_rounded():
    model = network()
    exact = model(X)
    with low_precision(model, "bfloat16"):
        assert dtypes(model) == {
            "QuantLayer": "float32",
            "Conv2D": "bfloat16",
            "Doubled": "float32",
            "BatchNormalization": "bfloat16",
            "Sequential": "bfloat16",
            "Dense": "float32",
            "Softmax": "float32",
        }
        rounded = model(X)
    error = np.abs(rounded - exact).max()
    assert 1e-6 < error < 0.05
    assert {*dtypes(model).values()} == {"float32"}
    np.testing.assert_array_equal(model(X), exact)


def test_gradients_and_weights_stay_float32():
    model = cleverhans_cnn(seed=0)
    x = tf.random.stateless_uniform((4, 28, 28, 1), (0, 0))

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(model(x) ** 2)
        return tape.gradient(loss, [x, *model.trainable_weights])

    exact = gradients()
    with low_precision(model, "bfloat16"):
        rounded = gradients()
    for one, other in zip(exact, rounded):
        assert other.dtype == one.dtype == tf.float32
        size = np.linalg.norm(one)
        assert np.linalg.norm(other - one) < 0.1 * size


def test_other_threads_compute_as_they_did():
    model, seen = network(), {}
    inside, done = threading.Event(), threading.Event()

    def hold():
        with low_precision(model, "bfloat16"):
            seen["holding"] = dtypes(model)["Conv2D"]
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(30)
    assert dtypes(model)["Conv2D"] == "float32"
    with low_precision(model, "float16"):
        assert dtypes(model)["Conv2D"] == "float16"
        done.set()
        thread.join()
        # The other one's end is not this one's.
        assert dtypes(model)["Conv2D"] == "float16"
    assert seen["holding"] == "bfloat16"
    assert dtypes(model)["Conv2D"] == "float32"


def test_an_error_inside_leaves_the_model_as_it_was():
    model = network()
    policies = [layer.dtype_policy for layer in model.layers]
    with pytest.raises(KeyError), low_precision(model, "bfloat16"):
        raise KeyError
    assert [layer.dtype_policy for layer in model.layers] == policies


def test_a_policy_of_ones_own_is_obeyed():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, dtype="float64"),
            keras.layers.Dense(4),
            keras.layers.Dense(3),
        ]
    )
    with low_precision(model, "bfloat16"):
        outputs = [layer.compute_dtype for layer in model.layers]
    assert outputs == ["float64", "bfloat16", "float32"]


def test_layers_of_layers_compute_as_they_are():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 6)),
            layers.Conv1D(4, 3),
            layers.GRU(4, return_sequences=True),
            layers.Bidirectional(layers.LSTM(3)),
            layers.Dense(5),
            layers.Dense(3),
        ]
    )
    x = tf.random.stateless_uniform((2, 8, 6), (0, 0))
    with low_precision(model, "bfloat16"):
        assert dtypes(model, x) == {
            "Conv1D": "bfloat16",
            "GRU": "float32",
            "Bidirectional": "float32",
            "Dense": "float32",
        }


def test_one_product_has_nothing_inside():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    with low_precision(model, "bfloat16"):
        assert model(np.ones((1, 6))).dtype == tf.float32


def test_the_faster_type_is_measured_once(monkeypatch):
    times = iter(range(99))
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(times))
    precision.fast_dtype.cache_clear()
    # Each product takes one tick.
    assert precision.fast_dtype() == "float32"
    monkeypatch.setattr(precision.time, "perf_counter", None)
    assert precision.fast_dtype() == "float32"
    precision.fast_dtype.cache_clear()


@pytest.fixture(scope="module")
def judged():
    """A small quantized model, images, and their classes by the model."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            ConstantQuantization(2, steepness=10.0),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    x = np.random.default_rng(0).random((8, 6, 6, 1), "float32")
    return model, x, np.asarray(model(x)).argmax(-1)


class TestAttackDtype:
    """Of evaluations: attacks that climb do it in few bits."""

    def evaluated(self, judged, **kwargs):
        given = {"eps": 0.05, "plan": "quick", "checks": None} | kwargs
        return evaluate_robustness(*judged, verbose=0, **given)

    def test_who_climbs_is_told(self, judged):
        twin = keras.models.clone_model(judged[0])
        found = self.evaluated(
            judged, attack_dtype="bfloat16", sources={"twin": twin}
        )
        assert found.settings["attack_dtype"] == "bfloat16"
        rounded = {
            outcome.step.name: any(
                isinstance(view, LowPrecision)
                for view in outcome.step.attack.views
            )
            for outcome in found.outcomes
        }
        assert {"cube", "PGD from twin"} < {*rounded}
        assert [name for name in rounded if not rounded[name]] == ["Square-200"]
        pairs = dict(facts(found))
        assert pairs["Losses climbed"] == "in bfloat16; judged in float32"
        # What counts as broken is so in float32.
        model, _, y = judged
        for outcome in found.outcomes:
            if len(outcome.broken):
                answers = np.asarray(model(outcome.x_adv)).argmax(-1)
                assert (answers != y[outcome.broken]).all()

    def test_boundaries_are_searched_as_they_are(self):
        sight = Sight(rounded=LowPrecision())
        for kind in (
            attacks.FastAdaptiveBoundary,
            attacks.AutoAttack,
            attacks.SquareAttack,
        ):
            assert sight.look(kind(0.1)).views == ()
        for kind in (attacks.CarliniWagnerL2, attacks.HopSkipJumpAttack):
            assert sight.look(kind()).views == ()
        attack = sight.look(attacks.BPDA(attacks.ProjectedGradientDescent(0.1)))
        assert [type(view) for view in attack.views] == [
            LowPrecision,
            Surrogate,
        ]

    def test_a_folder_keeps_its_type(self, judged, tmp_path, monkeypatch):
        def fast(dtype):
            name = "keras_qsn.evaluation.approach.fast_dtype"
            monkeypatch.setattr(name, lambda: dtype)

        fast("bfloat16")
        first = self.evaluated(judged, folder=tmp_path)
        assert first.settings["attack_dtype"] == "bfloat16"
        fast("float32")
        (tmp_path / "attack-1.npz").unlink()
        again = self.evaluated(judged, folder=tmp_path)
        assert again.settings["attack_dtype"] == "bfloat16"
        for one, other in zip(first.outcomes, again.outcomes, strict=True):
            np.testing.assert_array_equal(one.x_adv, other.x_adv)
        with pytest.raises(ValueError, match="another evaluation|other"):
            self.evaluated(judged, folder=tmp_path, attack_dtype="bfloat16")

    def test_where_there_is_nothing_to_round(self, judged):
        x = judged[1]
        flat = keras.Sequential(
            [keras.Input((6, 6, 1)), keras.layers.Flatten()]
        )
        flat.add(keras.layers.Dense(3))
        few = keras.models.clone_model(judged[0])
        for layer in few.layers[1:]:
            layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
        own = [attacks.FastGradientMethod(0.05)]
        for model, plan in ((flat, "quick"), (few, "quick"), (judged[0], own)):
            y = np.asarray(model(x)).argmax(-1)
            found = self.evaluated(
                (model, x, y), attack_dtype="bfloat16", plan=plan
            )
            assert found.settings["attack_dtype"] is None

    @pytest.mark.parametrize("dtype", ["int8", "bf16", 16, "float8_e4m3fn"])
    def test_what_is_no_float_type(self, judged, dtype):
        with pytest.raises(ValueError, match="`attack_dtype` must be a float"):
            self.evaluated(judged, attack_dtype=dtype)
