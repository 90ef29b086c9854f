"""Models that answer at random: judged and attacked in expectation."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import masks
from conftest import linear_model
from keras_qsn import attacks
from keras_qsn import report
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import wilson_interval
from keras_qsn.evaluation.checks import registry
from keras_qsn.evaluation.judge import Judge
from keras_qsn.models import KerasModelWrapper
from keras_qsn.models import with_preprocessing
from keras_qsn.report import summary

STDDEV = 0.4
LINE = [1.0, 1.0]


def noisy(stddev=STDDEV):
    """Of two pixels: class 1 where their sum is above 1, but for noise."""
    return keras.Sequential(
        [keras.Input((2,)), masks.Noise(stddev), linear_model(LINE, -1.0)]
    )


def chance_of_1(x, stddev=STDDEV):
    """In closed form: the noise of the sum is normal."""
    z = (np.sum(x, 1) - 1) / (np.sqrt(2) * stddev)
    return 0.5 * (1 + np.array([math.erf(v / math.sqrt(2)) for v in z]))


class Shared(keras.layers.Layer):
    """Draws that no layer's generator makes."""

    def call(self, x):
        return x + tf.random.normal(tf.shape(x), stddev=STDDEV)


def scattered(x):
    return x + np.random.default_rng().normal(0, STDDEV, x.shape)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((60, 2)).astype("float32")


def judge_of(model, x, draws=100):
    return Judge.of(KerasModelWrapper(model), x, draws, 0, 128)


class TestJudge:
    def test_tells_who_answers_at_random(self, images):
        line = linear_model(LINE, -1.0)
        assert not judge_of(line, images).is_random
        hidden = with_preprocessing(scattered, line)
        shared = keras.Sequential([keras.Input((2,)), Shared(), line])
        for model in (noisy(), hidden, shared):
            judge = judge_of(model, images)
            assert judge.is_random
            assert judge.chance.spread > 0.1 and judge.chance.flips > 0.05

    def test_counts_right_answers(self, images):
        judge = judge_of(noisy(), images)
        wanted = chance_of_1(images)
        y = np.ones(len(images), int)
        found = judge.share(images, y, 3, 2000)
        np.testing.assert_allclose(found, wanted, atol=0.05)
        fooled = judge.right(images, y, 3) < 0.5
        clear = np.abs(wanted - 0.5) > 0.1
        np.testing.assert_array_equal(fooled[clear], wanted[clear] < 0.5)
        classes = judge.classes(images, y, 3)
        np.testing.assert_array_equal(
            classes[clear], (wanted >= 0.5)[clear].astype(int)
        )

    def test_draws_are_fresh_repeat_and_leave_the_model_alone(self, images):
        model = noisy()
        judge = judge_of(model, images)
        y, state = np.ones(60, int), model.layers[0].seeds.state.numpy()
        one, again, other = (judge.share(images, y, s) for s in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()
        np.testing.assert_array_equal(model.layers[0].seeds.state, state)

    def test_a_coin_is_not_broken_by_trying_often(self):
        """Right in 55 of 100 answers: no number of looks makes it wrong."""
        edge = np.full((1, 2), 0.5, "float32") + 0.0356
        assert 0.545 < chance_of_1(edge)[0] < 0.555
        judge = judge_of(noisy(), edge)
        fooled = [judge.right(edge, [1], stream) < 0.5 for stream in range(40)]
        assert np.mean(fooled) < 0.1


class TestEvaluation:
    def evaluate(self, x, seed=0, plan=None, **kwargs):
        eps = 0.1
        y = (chance_of_1(x) >= 0.5).astype(int)
        pgd = attacks.EOT(
            attacks.ProjectedGradientDescent(eps, nb_iter=5, seed=seed), 10
        )
        kwargs = {"eps": eps, "checks": None, "verbose": 0, **kwargs}
        return evaluate_robustness(
            noisy(), x, y, plan=plan or [pgd], seed=seed, **kwargs
        )

    def test_is_what_the_closed_form_says(self, images):
        found = self.evaluate(images, draws=400)
        y = found.y
        worst = images + 0.1 * np.where(y == 1, -1, 1)[:, None]
        worst = np.clip(worst, 0, 1).astype("float32")
        right = chance_of_1(images), chance_of_1(worst)
        clean, attacked = (np.where(y == 1, p, 1 - p) for p in right)
        assert found.clean_accuracy >= 0.95
        assert abs(found.robust_accuracy - (attacked >= 0.5).mean()) < 0.05
        assert abs(found.answers.mean_accuracy - clean.mean()) < 0.01
        assert abs(found.answers.mean_robust_accuracy - attacked.mean()) < 0.02
        assert found.answers.draws == 400

    def test_intervals_hold_what_fresh_draws_say(self, images):
        fresh = KerasModelWrapper(noisy())
        for seed in range(20):
            found = self.evaluate(images, seed)
            many = fresh.predict(np.tile(found.x_adv, (1000, 1)), 6000)
            right = (many.reshape(1000, -1) == found.y).mean(0)
            for share, wanted in (
                (found.robust_accuracy, (right >= 0.5).mean()),
                (found.answers.mean_robust_accuracy, right.mean()),
            ):
                low, high = wilson_interval(share, 60)
                assert low <= wanted <= high

    def test_no_check_fails_by_construction(self, images):
        found = self.evaluate(images, plan="quick", checks="all")
        assert [check.key for check in found.failed] == []
        by_key = {check.key: check for check in found.checks}
        assert by_key["determinism"].status == "none"
        assert "100 draws" in by_key["determinism"].value
        assert by_key["active-test"].status == "none"
        assert by_key["silent-success"].status == "pass"
        assert len(by_key) == len(registry.ENTRIES)

    def test_the_report_says_so(self, images, tmp_path):
        found = self.evaluate(images, folder=tmp_path)
        facts = dict(summary.facts(found))
        assert "100 draws at each image" in facts["Answers at random"]
        mean = summary.percent(found.answers.mean_robust_accuracy)
        assert mean in facts["Mean accuracy over the draws"]
        assert "worst case" in facts["Accuracy by majority of the draws"]
        told = json.loads(json.dumps(report.to_json(found)))["answers"]
        assert told["draws"] == 100
        assert told["mean_accuracy"]["share"] == found.answers.mean_accuracy
        # Kept, and read back.
        again = self.evaluate(images, folder=tmp_path)
        assert again.answers.mean_accuracy == found.answers.mean_accuracy
        np.testing.assert_array_equal(again.x_adv, found.x_adv)

    def test_attacks_of_named_plans_average(self, images):
        found = self.evaluate(images, plan="quick")
        assert found.settings["chance"]["draws_of_attacks"] == 8
        for outcome in found.outcomes:
            assert outcome.step.attack.view.draws == 8

    def test_draws_below_one(self, images):
        with pytest.raises(ValueError, match="`draws` must be a whole number"):
            self.evaluate(images, draws=0)
