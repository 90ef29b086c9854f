"""A killed `fit` goes on to the weights it would have had."""

import pathlib
import shutil

import keras
import numpy as np
import pytest

from keras_qsn._core import backups
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.callbacks import AttackAccuracy
from keras_qsn.callbacks import EpsScheduler
from keras_qsn.callbacks import ExactBackup
from keras_qsn.datasets import ShuffledBatches
from keras_qsn.layers import QuantLayer
from keras_qsn.optimizers import Muon
from keras_qsn.training import IntervalTraining
from keras_qsn.training import QuSecNet

EPS = 0.2
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# A random start each, so that it matters how many there have been.
PGD = ProjectedGradientDescent(EPS, nb_iter=2, rand_init=True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.random((48, 6, 6, 1), "float32")
    y = (x[:, :3].sum((1, 2, 3)) > x[:, 3:].sum((1, 2, 3))).astype("int64")
    return x, y


def network(dropped=0.0):
    layers = keras.layers
    start = keras.initializers.GlorotUniform
    model = keras.Sequential([keras.Input((6, 6, 1))])
    model.add(QuantLayer(2, 20.0, hard=True, shared_axes=[1, 2]))
    model.add(layers.Conv2D(4, 3, activation="relu"))
    model.layers[-1].kernel.assign(start(1)((3, 3, 1, 4)))
    model.add(layers.Flatten())
    if dropped:
        model.add(layers.Dropout(dropped, seed=3))
    model.add(layers.Dense(2, kernel_initializer=start(2)))
    return model


class KillAt(keras.callbacks.Callback):
    """What a kill leaves: nothing after it runs."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


def fit(data, folder, kill=None, epochs=4):
    """A training with all that has a past; its weights and history."""
    x, y = data
    net = QuSecNet(network(dropped=0.3), PGD)
    rate = keras.optimizers.schedules.ExponentialDecay(0.02, 3, 0.9)
    net.compile(Muon(rate, use_ema=True, ema_momentum=0.8), LOSS)
    batches = ShuffledBatches(x[:32], y[:32], 16, seed=5)
    measured = AttackAccuracy(PGD, x[32:], y[32:], "attacked", every=3)
    stop = keras.callbacks.EarlyStopping(
        "attacked", mode="max", patience=9, restore_best_weights=True
    )
    callbacks = [
        EpsScheduler(lambda epoch: EPS * min(1, epoch / 2)),
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        measured,
        stop,
        *([kill] if kill else []),
        ExactBackup(folder, batches, [measured, stop]),
    ]
    history = net.fit(
        batches, epochs=epochs, shuffle=False, callbacks=callbacks, verbose=0
    )
    return net.model.get_weights(), history.history


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    return fit(data, tmp_path_factory.mktemp("whole") / "backup")


def assert_goes_on(whole, data, folder):
    weights, history = fit(data, folder)
    for ours, theirs in zip(weights, whole[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name, values in history.items():
        assert values == whole[1][name][-len(values) :]
    assert not folder.exists()
    return len(history["loss"])


def test_the_same_weights(whole, data, tmp_path):
    folder = tmp_path / "backup"
    with pytest.raises(KeyboardInterrupt):
        fit(data, folder, KillAt(2, 1))
    assert assert_goes_on(whole, data, folder) == 2


def test_a_kill_while_it_is_written(whole, data, tmp_path, monkeypatch):
    """Leaves the backup before it."""
    folder, save = tmp_path / "backup", np.savez
    calls = []

    def killed(path, **state):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(path, **state)

    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(data, folder)
    assert assert_goes_on(whole, data, folder) == 3


def test_a_kill_while_an_older_one_is_removed(
    whole, data, tmp_path, monkeypatch
):
    """As the first backup after a kill takes the place of its own epoch's."""
    folder = tmp_path / "backup"
    with pytest.raises(KeyboardInterrupt):
        fit(data, folder, KillAt(2, 1))

    def killed(path, **_):
        next(pathlib.Path(path).glob("*.h5")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(data, folder)
    assert assert_goes_on(whole, data, folder) == 2


def test_best_weights_that_are_one_number():
    stop, model = keras.callbacks.EarlyStopping(), QuSecNet(network(), PGD)
    stop.best_weights = model.get_weights()
    found = {k: np.asarray(v) for k, v in backups.held(stop).items()}
    backups.hold(stop, found)
    assert any(np.ndim(w) == 0 for w in stop.best_weights)
    model.set_weights(stop.best_weights)


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    model = network()
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="holds thesis.txt"):
        model.fit(*data, callbacks=[ExactBackup(tmp_path)], verbose=0)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_other_callbacks_are_refused(data, tmp_path):
    folder = tmp_path / "backup"

    def go(kill, *callbacks):
        model = network()
        model.compile("sgd", LOSS)
        backup = ExactBackup(folder, callbacks=callbacks)
        callbacks = [*callbacks, KillAt(kill, 0), backup]
        model.fit(*data, epochs=3, callbacks=callbacks, verbose=0)

    with pytest.raises(KeyboardInterrupt):
        go(1, keras.callbacks.EarlyStopping("loss", patience=9))
    with pytest.raises(ValueError, match="EarlyStopping. Received: "):
        go(9)


def test_data_without_a_state_are_refused(data):
    with pytest.raises(TypeError, match="ShuffledBatches`. Received: array"):
        ExactBackup("backup", data[0])


def running_mean(steps, momentum):
    mean = steps[0]
    for weights in steps[1:]:
        mean = [
            momentum * m + (1 - momentum) * w for m, w in zip(mean, weights)
        ]
    return mean


def test_the_running_mean_of_weights(data):
    """Keras' own, under attacked images, intervals and Muon."""
    net = QuSecNet(
        network(), [PGD, IntervalTraining(EPS, 0.5, warmup_epochs=0)]
    )
    net.compile(Muon(0.02, use_ema=True, ema_momentum=0.7), LOSS)
    steps = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(
            [np.array(w, "float64") for w in net.model.trainable_weights]
        )
    )
    net.fit(*data, epochs=2, batch_size=16, callbacks=[record], verbose=0)
    found = net.model.trainable_weights
    for ours, mean in zip(found, running_mean(steps, 0.7), strict=True):
        np.testing.assert_allclose(ours, mean, rtol=0, atol=1e-6)
    moved = [np.abs(w - s).max() for w, s in zip(found, steps[-1])]
    assert max(moved) > 1e-3


def test_a_robust_early_stop(whole, data):
    """Leaves the averaged weights of the best epoch under attack."""
    weights, history = whole
    model = network()
    model.set_weights(weights[: len(model.get_weights())])
    x, y = (part[32:] for part in data)
    left = 1 - PGD.run(model, x, y, verbose=0).success.mean()
    assert left == max(history["attacked"])
