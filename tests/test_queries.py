"""Models of which only the answers are known: counts, failures, attacks."""

import argparse

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn import attacks
from keras_qsn.cli import inputs
from keras_qsn.cli import main
from keras_qsn.defenses import ModelDetector
from keras_qsn.deployment import export_litert
from keras_qsn.deployment import quantization_aware
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.models import KerasModelWrapper
from keras_qsn.models import QueryError
from keras_qsn.models import QueryModel
from keras_qsn.training import QuSecNet

SHAPE = (6, 6, 1)


class Service:
    """A linear classifier that counts what it is sent, and may fail."""

    def __init__(self, failures=()):
        self.weights = np.random.default_rng(0).normal(size=(36, 3))
        self.failures = list(failures)
        self.sizes = []

    def __call__(self, x):
        assert x.dtype == np.float32
        self.sizes.append(len(x))
        scores = x.reshape(len(x), -1) @ self.weights
        failure = self.failures.pop(0) if self.failures else None
        return failure(scores) if failure else scores

    @property
    def sent(self):
        return sum(self.sizes)


def images(count):
    return np.random.default_rng(1).random((count, *SHAPE), "float32")


def down(scores):
    raise ConnectionError("the service is down")


def one_in_three_is_nan(scores):
    return np.where(np.arange(len(scores))[:, None] % 3, scores, np.nan)


def one_short(scores):
    return scores[1:]


def test_answers_and_count():
    service = Service()
    model = QueryModel(service, 3, SHAPE, batch_size=4)
    wrapper = KerasModelWrapper(model)
    assert wrapper.answers_only and wrapper.num_classes == 3
    assert wrapper.input_shape == SHAPE
    assert model.queries == service.sent == 0
    x = images(10)
    np.testing.assert_allclose(
        wrapper.logits(x), service(x), rtol=1e-5, atol=1e-5
    )
    assert service.sizes == [4, 4, 2, 10]
    assert model.queries == 10


def test_probabilities_and_classes():
    x, service = images(5), Service()
    logits = service(x)
    soft = QueryModel(lambda x: tf.nn.softmax(service(x)).numpy(), 3, SHAPE,
                      answers="probabilities")  # fmt: skip
    found = KerasModelWrapper(soft).logits(x)
    np.testing.assert_allclose(
        found - found[:, :1], logits - logits[:, :1], rtol=1e-3, atol=1e-3
    )
    hard = QueryModel(
        lambda x: service(x).argmax(1), 3, SHAPE, answers="classes"
    )
    wrapper = KerasModelWrapper(hard)
    np.testing.assert_array_equal(wrapper.predict(x), logits.argmax(1))
    assert {*np.unique(wrapper.logits(x))} == {-1, 1}


@pytest.mark.parametrize(
    ("failure", "again", "reported"),
    [
        (down, 6, {"exception": 1, "shape": 0, "not finite": 0}),
        (one_in_three_is_nan, 2, {"exception": 0, "shape": 0, "not finite": 2}),
        (one_short, 6, {"exception": 0, "shape": 1, "not finite": 0}),
    ],
)
def test_what_fails_is_asked_for_again(failure, again, reported):
    service = Service([failure])
    model = QueryModel(service, 3, SHAPE)
    x = images(6)
    found = KerasModelWrapper(model).logits(x)
    np.testing.assert_allclose(found, Service()(x), rtol=1e-5, atol=1e-5)
    assert service.sizes == [6, again]
    assert model.queries == 6 + again
    assert model.failures == reported


def test_a_service_that_stays_down_is_reported():
    model = QueryModel(Service([down] * 3), 3, SHAPE, attempts=3)
    says = "ConnectionError: the service is down, in 3 attempts, for 2 of 2"
    with pytest.raises(QueryError, match=says):
        model.asked._made(images(2))
    assert model.queries == 6


def test_the_budget_is_never_exceeded():
    x = images(8)
    y = Service()(x).argmax(1)
    for budget in (1, 63, 64, 200):
        service = Service()
        model = QueryModel(service, 3, SHAPE, budget=budget)
        attack = attacks.SquareAttack(eps=0.001, nb_queries=100)
        with pytest.raises(tf.errors.UnknownError, match="must not be exceed"):
            attack.run(model, x, y)
        assert service.sent == model.queries <= budget


@pytest.mark.parametrize(
    "attack",
    [
        attacks.SquareAttack(eps=0.4, nb_queries=60),
        attacks.SPSA(eps=0.4, nb_iter=5, spsa_samples=20),
        attacks.HopSkipJumpAttack(num_iterations=2, max_num_evals=50),
        attacks.PointwiseAttack(),
        attacks.LocalSearchAttack(),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_attacks_that_need_answers_see_the_network(attack):
    """The same as on the network itself, in Keras."""
    service = Service()
    network = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(3, use_bias=False),
        ]
    )
    network.set_weights([service.weights])
    x = images(4)
    y = KerasModelWrapper(network).predict(x)
    model = QueryModel(service, 3, SHAPE)
    found = attack.run(model, x, y)
    expected = attack.run(network, x, y)
    np.testing.assert_array_equal(found.success, expected.success)
    assert model.queries == service.sent > 20


def test_attacks_that_need_a_gradient_say_what_to_do():
    model = QueryModel(Service(), 3, SHAPE)
    for attack in (
        attacks.FastGradientMethod(eps=0.1),
        attacks.EOT(attacks.ProjectedGradientDescent(eps=0.1)),
    ):
        with pytest.raises(ValueError, match="Attack a twin of it, and carry"):
            attack.run(model, images(2), [0, 1])
    with pytest.raises(ValueError, match="Attack a twin of it, and carry"):
        evaluate_robustness(
            model,
            images(2),
            [0, 1],
            plan=[attacks.FastGradientMethod(eps=0.3)],
            verbose=0,
        )


def test_no_other_process_and_no_training_takes_it(tmp_path):
    """Its queries are counted here, and it has no weights."""
    model, x = QueryModel(Service(), 3, SHAPE), images(4)
    y = Service()(x).argmax(1)
    with pytest.raises(ValueError, match="must stay in this process"):
        model.save(tmp_path / "it.keras")
    with pytest.raises(ValueError, match="leave `workers=1`"):
        evaluate_robustness(model, x, y, plan="quick", workers=2, verbose=0)
    with pytest.raises(ValueError, match="with weights to train"):
        QuSecNet(model, attacks.FastGradientMethod(eps=0.1))


def test_wrong_arguments():
    with pytest.raises(TypeError, match="must be a function of"):
        QueryModel("http://nowhere", 3, SHAPE)
    for arguments, says in (
        ({"answers": "logits"}, "`answers` must be one of scores"),
        ({"budget": 0}, "`budget` must be"),
        ({"attempts": 0}, "`attempts` must be"),
        ({"wait": -1}, "`wait` must be"),
    ):
        with pytest.raises(ValueError, match=says):
            QueryModel(Service(), 3, SHAPE, **arguments)


def test_an_evaluation_of_a_file(trained, digits, tmp_path, capsys):
    """As a command, of an int8 file."""
    twin = quantization_aware(trained["none"], digits.x_train[:100])
    path = tmp_path / "int8.tflite"
    export_litert(twin, path)
    status = main(
        [
            *("evaluate", str(path), "--data", "digits", "--images", "20"),
            *("--eps", "0.1", "--plan", "quick"),
            *("--out", str(tmp_path / "out")),
        ]
    )
    assert status == 0
    said = capsys.readouterr().out
    assert "Square" in said and "from substitute" in said
    assert "FGSM  " not in said
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("answers", ["scores", "probabilities"])
def test_a_command_sees_what_a_file_answers(answers, monkeypatch):
    service = Service()
    if answers == "probabilities":
        # As int8 files round them.
        service.failures = [
            lambda scores: np.round(tf.nn.softmax(scores) * 256) / 256
        ] * 2
    service.input_shape, service.output_shape = SHAPE, (3,)
    service.name = "file"
    monkeypatch.setattr(inputs, "load_litert", lambda path, size: service)
    options = argparse.Namespace(
        model="file.tflite", command="evaluate", batch_size=4
    )
    model = inputs.load_model(options).model
    assert model.asked.answers == answers
    assert model.queries == 0


def test_white_box_images_of_a_twin_are_judged_on_the_file(trained, digits):
    network = trained["none"]
    model = QueryModel(
        lambda x: network(x).numpy(), 10, (28, 28, 1), name="service"
    )
    evaluation = evaluate_robustness(
        model,
        digits.x_test[:20],
        digits.y_test[:20],
        eps=0.2,
        plan="quick",
        sources={"twin": network},
        verbose=0,
    )
    names = [outcome.step.name for outcome in evaluation.outcomes]
    assert names == ["PGD from twin", "Square-1000", "HopSkipJump-10"]
    assert evaluation.robust_accuracy < 0.3
    assert not evaluation.failed
    gradient = {"ladder", "unbounded", "gradient-health", "eps-sweep"}
    status = {c.key: c.status for c in evaluation.checks}
    assert {status[key] for key in gradient} == {"none"}


@pytest.mark.parametrize("norm", [2, 1, 0])
def test_named_plans_of_all_norms_ask_alone(norm):
    service = Service()
    x = images(3)
    y = (x.reshape(3, -1) @ service.weights).argmax(-1)
    found = evaluate_robustness(
        *(QueryModel(service, 3, SHAPE), x, y, 1.0),
        norm=norm,
        plan="quick",
        checks=None,
        verbose=0,
    )
    threats = {outcome.step.threat for outcome in found.outcomes}
    assert threats == {"queries"}


def test_what_would_need_a_gradient_is_refused_beforehand(tmp_path):
    model = QueryModel(Service(), 3, SHAPE)
    with pytest.raises(ValueError, match="gradient can be followed.*twin"):
        attacks.TransferAttack(attacks.ProjectedGradientDescent(0.1), model)
    image = keras.Input(SHAPE)
    detector = ModelDetector(
        keras.Model(image, keras.ops.mean(image, [1, 2, 3]))
    ).fit(images(40))
    with pytest.raises(ValueError, match="a named plan needs a gradient"):
        evaluate_robustness(
            *(model, images(3), [0, 1, 2], 0.1),
            detector=detector,
            folder=tmp_path / "kept",
        )
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("shape", [(1,), (4, 3)])
def test_a_file_must_return_class_scores(shape, monkeypatch):
    service = Service()
    service.input_shape, service.output_shape = SHAPE, shape
    monkeypatch.setattr(inputs, "load_litert", lambda path, size: service)
    options = argparse.Namespace(
        model="file.tflite", command="evaluate", batch_size=4
    )
    with pytest.raises(ValueError, match="one vector of class scores"):
        inputs.load_model(options)
