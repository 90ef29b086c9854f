"""Defensive distillation, against its closed form."""

import keras
import numpy as np
import pytest

from conftest import linear_model
from conftest import small_cnn
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.layers import ConstantQuantization
from keras_qsn.training import AdversarialTraining
from keras_qsn.training import DefensiveDistillation
from keras_qsn.training import QuSecNet

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
T = 4.0


def classifier(seed, regularizer=None):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(3, kernel_regularizer=regularizer),
        ]
    )


def log_softmax(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def logits(model, x):
    kernel, bias = (w.astype("float64") for w in model.get_weights())
    return x.astype("float64") @ kernel + bias


def cross_entropy(target, z):
    return -(target * log_softmax(z)).sum(1)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.random((20, 6), "float32"), rng.integers(3, size=20)


def compiled(model, objective, rate=0.0):
    net = QuSecNet(model, objective)
    net.compile(keras.optimizers.SGD(rate), LOSS)
    return net


def first_loss(net, data, **kwargs):
    history = net.fit(*data, batch_size=20, verbose=0, **kwargs)
    return history.history["loss"][0]


def test_a_teacher_learns_the_labels_at_the_temperature(data):
    x, y = data
    model = classifier(1)
    net = compiled(model, DefensiveDistillation(T))
    expected = cross_entropy(np.eye(3)[y], logits(model, x) / T).mean()
    assert first_loss(net, data) == pytest.approx(expected, rel=1e-5)


def test_a_student_learns_the_teachers_answers(data):
    x, y = data
    teacher, student = classifier(1), classifier(2)
    soft = np.exp(log_softmax(logits(teacher, x) / T))
    each = cross_entropy(soft, logits(student, x) / T)
    weight = np.linspace(0, 2, 20).astype("float32")
    for given, expected in ((None, each), (weight, weight * each)):
        net = compiled(student, DefensiveDistillation(T, teacher))
        found = first_loss(net, data, sample_weight=given)
        assert found == pytest.approx(expected.mean(), rel=1e-5)
    assert not np.isclose(each.mean(), cross_entropy(np.eye(3)[y], soft).mean())


def test_a_step_is_that_of_the_closed_form(data):
    x, _ = data
    teacher, student = classifier(1), classifier(2)
    answers = [
        np.exp(log_softmax(logits(model, x) / T))
        for model in (teacher, student)
    ]
    wrong = (answers[1] - answers[0]) / T / len(x)
    kernel, bias = student.get_weights()
    first_loss(compiled(student, DefensiveDistillation(T, teacher), 3.0), data)
    expected = kernel - 3 * x.T @ wrong, bias - 3 * wrong.sum(0)
    for found, wanted in zip(student.get_weights(), expected):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_regularizers_count(data):
    teacher = classifier(1)
    plain, regular = (
        first_loss(
            compiled(classifier(2, r), DefensiveDistillation(T, teacher)), data
        )
        for r in (None, keras.regularizers.L2(0.5))
    )
    kernel = classifier(2).get_weights()[0]
    assert regular - plain == pytest.approx(0.5 * (kernel**2).sum(), rel=1e-4)


def test_evaluated_and_deployed_at_temperature_one(data):
    x, y = data
    model = classifier(2)
    net = compiled(model, DefensiveDistillation(T, classifier(1)))
    z = logits(model, x)
    expected = cross_entropy(np.eye(3)[y], z).mean()
    assert net.evaluate(*data, verbose=0) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(net.predict(x, verbose=0), z, rtol=1e-5)


def test_the_teacher_is_asked_of_images_that_are_not_attacked(data):
    x, y = data
    teacher, student = classifier(1), classifier(2)
    attack = FastGradientMethod(0.3)
    x_adv = attack.generate(student, x, y)
    assert np.abs(x_adv - x).max() > 0.2
    soft = np.exp(log_softmax(logits(teacher, x) / T))
    expected = cross_entropy(soft, logits(student, x_adv) / T).mean()
    madry = AdversarialTraining(attack, clean_share=0.0)
    net = compiled(student, [DefensiveDistillation(T, teacher), madry])
    assert first_loss(net, data) == pytest.approx(expected, rel=1e-5)


def test_two_classes_by_one_logit():
    x, y = np.eye(4, dtype="float32"), np.array([0, 1, 1, 0])
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    teacher = linear_model([1.0, -2.0, 0.5, 0.0])
    net = QuSecNet(student, DefensiveDistillation(T, teacher))
    net.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    z = np.stack([np.zeros(4), logits(student, x)[:, 0]], 1)
    soft = np.exp(log_softmax(logits(teacher, x) / T))
    expected = cross_entropy(soft, z / T).mean()
    found = net.fit(x, y, verbose=0).history["loss"][0]
    assert found == pytest.approx(expected, rel=1e-5)


def test_behind_a_quantizer_saved_and_loaded(digits, tmp_path):
    x, y = digits.x_train[:64], digits.y_train[:64]
    teacher = compiled(small_cnn(), DefensiveDistillation(20.0), 0.1)
    teacher.fit(x, y, verbose=0)
    quantizer = ConstantQuantization(2)
    student = compiled(
        small_cnn(quantizer), DefensiveDistillation(20.0, teacher), 0.1
    )
    before = student.model.get_weights()[-2]
    student.fit(x, y, verbose=0)
    assert not np.array_equal(before, student.model.get_weights()[-2])
    student.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), student.model(x))


@pytest.mark.parametrize("temperature", [0, -1.0, np.inf, np.nan])
def test_refuses_other_temperatures(temperature):
    with pytest.raises(ValueError, match="`temperature` must be a finite"):
        DefensiveDistillation(temperature)


def test_refuses_other_teachers():
    student = classifier(0)
    four = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    wide = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)])
    for teacher, message in (
        (
            four,
            "`num_classes` of the model in training, 3. Received: teacher with",
        ),
        (wide, r"`input_shape` of the model in training, \(6,\). Received"),
        (student, "must be another model"),
    ):
        with pytest.raises(ValueError, match=message):
            QuSecNet(student, DefensiveDistillation(T, teacher))
    with pytest.raises(TypeError, match="must be a Keras model"):
        DefensiveDistillation(T, "teacher")


def test_refuses_what_it_cannot_train():
    soft = keras.Sequential([classifier(0), keras.layers.Softmax()])
    with pytest.raises(ValueError, match="expects a model that returns logits"):
        QuSecNet(soft, DefensiveDistillation(T))
    attack = FastGradientMethod(0.1)
    with pytest.raises(ValueError, match="must be the first objective"):
        QuSecNet(classifier(0), [attack, DefensiveDistillation(T)])
