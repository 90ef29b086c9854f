import keras
import numpy as np
import pytest

from keras_qsn.losses import ProbabilityMeanSquaredError

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]], "float32")


def by_hand(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return ((p - np.eye(3)[labels]) ** 2).mean()


@pytest.mark.parametrize(
    "y_true", [[0, 1], [[0], [1]], np.eye(3)[[0, 1]]], ids=["int", "col", "hot"]
)
@pytest.mark.parametrize("from_logits", [True, False])
def test_equation_2(y_true, from_logits):
    loss = ProbabilityMeanSquaredError(from_logits=from_logits)
    y_pred = LOGITS if from_logits else keras.ops.softmax(LOGITS)
    assert float(loss(np.array(y_true), y_pred)) == pytest.approx(
        by_hand(LOGITS, [0, 1]), rel=1e-6
    )


def test_the_true_class_minimises_it():
    """Eq. 2 as printed would prefer the uniform output."""
    loss = ProbabilityMeanSquaredError(from_logits=False)
    right = float(loss([0], [[1.0, 0.0, 0.0]]))
    uniform = float(loss([0], [[1 / 3, 1 / 3, 1 / 3]]))
    assert right == 0.0 < uniform


def test_config_round_trip():
    loss = ProbabilityMeanSquaredError(from_logits=False, name="cost")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


def test_trains_in_fit():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile("sgd", ProbabilityMeanSquaredError())
    history = model.fit(LOGITS, np.array([0, 1]), epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_wrong_number_of_classes():
    with pytest.raises(
        ValueError, match=r"one-hot labels of shape \(batch, 3\)"
    ):
        ProbabilityMeanSquaredError()(np.eye(4)[:2], LOGITS)


@pytest.mark.parametrize("y_true", [[1, 0], [[1.0], [0.0]]])
def test_one_column_is_the_second_of_two_classes(y_true):
    """Eq. 2 of two classes is the squared error of the second's."""
    logits = np.array([[0.3], [2.0]], "float32")
    probabilities = 1 / (1 + np.exp(-logits))
    wanted = np.mean((probabilities - [[1], [0]]) ** 2)
    for y_pred, from_logits in ((logits, True), (probabilities, False)):
        cost = ProbabilityMeanSquaredError(from_logits)
        assert float(cost(y_true, y_pred)) == pytest.approx(wanted, rel=1e-5)
