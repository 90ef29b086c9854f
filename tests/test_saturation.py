"""Logits far apart, and few bits: neither stops an attack."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import masks
from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn.attacks import losses
from keras_qsn.classifier.rebuilt import CannotRebuild
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.models import KerasModelWrapper
from keras_qsn.report import summary

EPS = 0.1


@pytest.fixture
def images(digits):
    return digits.x_test[::10], digits.y_test[::10]


def scaled(model, factor):
    return masks.after(model, keras.layers.Rescaling(factor))


class InFloat16(keras.layers.Layer):
    """Takes no other type."""

    def __init__(self):
        super().__init__(dtype="float16")

    def call(self, x):
        return x


class TestCrossEntropy:
    def test_gradient_has_the_direction_of_the_cross_entropys(self):
        rng = np.random.default_rng(0)
        logits = tf.constant(rng.normal(0, 2, (40, 5)), tf.float32)
        labels = tf.constant(rng.integers(5, size=40), tf.int32)
        for targeted in (False, True):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(logits)
                gain = losses.cross_entropy(logits, labels, targeted)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, logits
                )
            one = tape.gradient(gain, logits).numpy()
            other = tape.gradient(loss, logits).numpy()
            other *= -1 if targeted else 1
            cosine = (one * other).sum(1)
            cosine /= np.linalg.norm(one, axis=1)
            cosine /= np.linalg.norm(other, axis=1)
            np.testing.assert_allclose(cosine, 1, atol=1e-5)

    @pytest.mark.parametrize("lead", [1.0, 1e2, 1e4])
    def test_gradient_is_there_however_sure_the_model(self, lead):
        logits = tf.constant([[lead, 0.0, -lead]])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            gain = losses.cross_entropy(logits, tf.constant([0]), False)
        gradient = tape.gradient(gain, logits).numpy()[0]
        # The larger part of its size is the label's.
        assert gradient[0] == gradient.min() < -1e-4
        assert abs(gradient.sum()) < 1e-6 and np.isfinite(gain).all()


@pytest.mark.parametrize(
    "kind",
    [
        attacks.FastGradientMethod,
        attacks.ProjectedGradientDescent,
        attacks.MomentumIterativeMethod,
        attacks.AutoProjectedGradientDescent,
    ],
)
def test_a_scale_of_the_logits_helps_nobody(kind, trained, images):
    x, y = images
    few = {} if kind is attacks.FastGradientMethod else {"nb_iter": 10}
    left = []
    for factor in (1.0, 100.0):
        result = kind(EPS, **few).run(scaled(trained["none"], factor), x, y)
        assert not result.blind.any()
        left.append(1 - result.success.mean())
    assert 0.05 < left[0] < 0.6
    assert left[1] <= left[0] + 0.03


class TestFewBits:
    def test_are_attacked_in_float32(self, trained, images):
        x, y = images
        model = masks.in_float16(trained["none"], 30.0)
        attack = attacks.ViewedAttack(
            attacks.ProjectedGradientDescent(EPS, nb_iter=10),
            attacks.FullPrecision(),
        )
        twin = attack.seen(KerasModelWrapper(model)).wrapper
        assert {v.dtype for v in twin.model.weights} == {"float32"}
        np.testing.assert_allclose(
            twin.logits(x), KerasModelWrapper(model).logits(x), rtol=0.1, atol=9
        )
        result = attack.run(model, x, y)
        plain = attack.attack.run(trained["none"], x, y)
        assert abs(result.success.mean() - plain.success.mean()) <= 0.05
        wrong = KerasModelWrapper(model).predict(result.x_adv) != y
        np.testing.assert_array_equal(wrong, result.success)

    def test_the_twin_follows_the_weights(self, images):
        model = masks.in_float16(small_cnn(), 1.0)
        wrapper, view = KerasModelWrapper(model), attacks.FullPrecision()
        before = view.model(wrapper).logits(images[0])
        model.set_weights([0 * w for w in model.get_weights()])
        twin = view.model(wrapper)
        assert before.any() and not twin.logits(images[0]).any()

    def test_float32_models_are_their_own(self):
        wrapper = KerasModelWrapper(small_cnn())
        assert attacks.FullPrecision().model(wrapper) is wrapper

    def test_evaluations_take_the_twin_and_say_so(self, trained, images):
        x, y = (part[::5] for part in images)
        model = masks.in_float16(trained["none"], 30.0)
        found = evaluate_robustness(
            model, x, y, plan="quick", checks="light", verbose=0
        )
        assert found.robust_accuracy == 0
        facts = dict(summary.facts(found))
        assert facts["Few bits"] == "attacked through its float32 twin"

    def test_what_cannot_be_made_again_is_attacked_as_it_is(
        self, trained, images
    ):
        x, y = (part[:4] for part in images)
        model = masks.before(trained["none"], InFloat16())
        with pytest.raises(CannotRebuild, match="dtype"):
            attacks.FullPrecision().model(KerasModelWrapper(model))
        fgsm = attacks.FastGradientMethod(EPS)
        found = evaluate_robustness(
            model, x, y, plan=[fgsm], checks=None, verbose=0
        )
        assert found.settings["precision"].startswith("attacked as it is")
