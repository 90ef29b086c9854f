"""What makes an evaluation worthless is said before any attack."""

import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import run
from keras_qsn.evaluation.checks import conditions
from keras_qsn.evaluation.facts import ModelFacts
from keras_qsn.evaluation.result import Evaluation


@pytest.fixture
def images(digits):
    return digits.x_test[::25], digits.y_test[::25]


@pytest.fixture
def no_attack(monkeypatch):
    def attacked(*args, **kwargs):
        raise RuntimeError("attacked")

    monkeypatch.setattr(run, "run_attack", attacked)


def evaluate(model, x, y, **kwargs):
    return evaluate_robustness(
        model, x, y, **{"plan": "quick", "verbose": 0, **kwargs}
    )


def evaluation_of(y, prediction):
    y = np.asarray(y)
    x = np.zeros((len(y), 1), "float32")
    return Evaluation({}, x, y, np.asarray(prediction), [], [], {}, {})


def probe_of(evaluation, facts):
    return types.SimpleNamespace(evaluation=evaluation, facts=facts)


class TestRefusals:
    @pytest.mark.parametrize(
        ("certified", "message"),
        [
            (np.arange(40), "one boolean for each.*dtype=int64"),
            (np.ones(39, bool), r"one boolean for each.*shape=\(39,\)"),
        ],
    )
    def test_certificates(self, certified, message, trained, images, no_attack):
        with pytest.raises(ValueError, match=message):
            evaluate(trained["none"], *images, certified=certified)

    def test_labels_of_several_classes(self, trained, images, no_attack):
        several = np.ones((40, 10))
        with pytest.raises(ValueError, match="multi-label"):
            evaluate(trained["none"], images[0], several)

    def test_labels_out_of_range(self, trained, images, no_attack):
        with pytest.raises(ValueError, match="from 0 to 9"):
            evaluate(trained["none"], images[0], images[1] + 1)

    def test_batches_of_nothing(self, trained, images, no_attack):
        with pytest.raises(ValueError, match="`batch_size` must be a whole"):
            evaluate(trained["none"], *images, batch_size=0)

    def test_checks_that_there_are_not(self, trained, images, no_attack):
        with pytest.raises(ValueError, match='`checks` must be "all", "light"'):
            evaluate(trained["none"], *images, checks="some")

    def test_sources_of_other_classes(self, trained, images, no_attack):
        other = small_cnn(num_classes=3)
        with pytest.raises(ValueError, match="a source of 3 classes"):
            evaluate(trained["none"], *images, sources={"other": other})

    def test_images_on_another_scale_than_the_model(
        self, trained, images, no_attack
    ):
        x, y = images
        inside = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Rescaling(1 / 255),
                trained["none"],
            ]
        )
        answers = np.asarray(inside(x)).argmax(-1)
        wrong = (answers + 1) % 10
        with pytest.raises(ValueError, match=r"`value_range=\(0.0, 255.0\)`"):
            evaluate(inside, x, wrong)
        with pytest.raises(ValueError, match=r"made for pixels in \[0.0, 255"):
            evaluate(inside, x, wrong, value_range=(0, 1))


class TestWarnings:
    def test_models_that_guess(self, trained, images, no_attack):
        x, y = images
        with (
            pytest.warns(
                RuntimeWarning, match="clean accuracy.*of 40 images, guess"
            ),
            pytest.raises(RuntimeError, match="attacked"),
        ):
            # One right: there is something to attack.
            y = (y + np.arange(len(y)).astype(bool)) % 10
            evaluate(trained["none"], x, y)

    def test_models_that_answer_at_random(self, trained, images, no_attack):
        class Noise(keras.layers.Layer):
            def call(self, inputs):
                return inputs + tf.random.normal(tf.shape(inputs), stddev=0.01)

        noisy = keras.Sequential(
            [keras.Input((28, 28, 1)), Noise(), trained["none"]]
        )
        # They are attacked in expectation: nothing to warn of.
        with pytest.raises(RuntimeError, match="attacked"):
            evaluate(noisy, *images)

    def test_sound_models_get_none(self, trained, images, no_attack):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RuntimeError, match="attacked"):
                evaluate(trained["none"], *images)


class TestChecks:
    @pytest.mark.parametrize(
        ("right", "count", "status"),
        [
            (0, 4, "fail"),
            (1, 10, "fail"),
            (2, 10, "warn"),
            (22, 200, "fail"),
            (4, 4, "pass"),
            (30, 100, "pass"),
        ],
    )
    def test_better_than_guessing(self, right, count, status):
        found = conditions.beats_chance(right / count, count, 10)
        assert found[0] == status

    @pytest.mark.parametrize(
        ("y", "classes", "status"),
        [
            (np.zeros(100, int), 10, "warn"),
            (np.arange(200) % 9, 10, "warn"),
            (np.arange(200) % 10, 10, "pass"),
            ([3, 3], 10, "pass"),
            (np.arange(100), 1000, "pass"),
            (np.arange(100) % 5, 1000, "warn"),
            (np.zeros(10, int), 2, "warn"),
        ],
    )
    def test_classes_of_a_prefix_are_few(self, y, classes, status):
        found = conditions.class_balance(
            probe_of(evaluation_of(y, y), ModelFacts(classes, (1,)))
        )
        assert found[0] == status

    def test_missing_classes_are_named(self):
        y = np.arange(200) % 8
        _, value, _ = conditions.class_balance(
            probe_of(evaluation_of(y, y), ModelFacts(10, (1,)))
        )
        assert value == "8 of 10 classes among 200 images; missing: (8, 9)"

    def test_where_the_gradient_ends(self):
        status, value, _ = conditions.gradient_reaches(
            probe_of(
                None, ModelFacts(10, (1,), gradient_cut="Round in 'noise'")
            )
        )
        assert status == "warn" and "Round in 'noise'" in value
        assert (
            conditions.gradient_reaches(probe_of(None, ModelFacts(10, (1,))))[0]
            == "pass"
        )
