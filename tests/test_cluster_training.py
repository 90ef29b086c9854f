"""Training on several machines: two processes on the loopback."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np

TESTS = pathlib.Path(__file__).parent

WORKER = """
import json
import sys

import keras
import numpy as np
import tensorflow as tf

strategy = (
    tf.distribute.MultiWorkerMirroredStrategy()
    if sys.argv[1] == "cluster"
    else tf.distribute.get_strategy()
)
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.layers import TrainableQuantization
from keras_qsn.training import AdversarialTraining
from keras_qsn.training import QuSecNet

x, y = np.random.default_rng(0).random((32, 8), "float32"), np.arange(32) % 3
if sys.argv[1] == "cluster":
    # This machine's half of each batch.
    rank = strategy.cluster_resolver.task_id
    mine = np.arange(32) // 8 % 2 == rank
    x, y = x[mine], y[mine]
batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
)
batches = batches.with_options(options)
keras.utils.set_random_seed(0)
with strategy.scope():
    model = keras.Sequential(
        [keras.Input((8,)), TrainableQuantization(), keras.layers.Dense(3)]
    )
if sys.argv[1] == "cluster":
    try:
        with strategy.scope():
            QuSecNet(model)
    except ValueError as error:
        assert "must be made outside" in str(error)
    else:
        raise AssertionError("made inside the scope")
net = QuSecNet(model, AdversarialTraining(FastGradientMethod(0.1), 0.0))
with strategy.scope():
    net.compile(
        keras.optimizers.SGD(0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = net.fit(
        batches.repeat(),
        steps_per_epoch=2,
        validation_data=batches.repeat(),
        validation_steps=2,
        verbose=0,
    ).history
weights = [w.tolist() for w in model.get_weights()]
print("found", json.dumps([history, weights]))
"""


def trained(*roles):
    """What processes find: history and weights of each."""
    with contextlib.ExitStack() as taken:
        sockets = [taken.enter_context(socket.socket()) for _ in roles]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    running = []
    for index, role in enumerate(roles):
        task = {"type": "worker", "index": index}
        cluster = {"cluster": {"worker": workers}, "task": task}
        extra = {"TF_CONFIG": json.dumps(cluster)} if role == "cluster" else {}
        path = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, role],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": path, **extra},
            )
        )
    found = []
    try:
        for process in running:
            said, errors = process.communicate(timeout=500)
            assert process.returncode == 0, errors
            (line,) = (t for t in said.splitlines() if t.startswith("found"))
            found.append(json.loads(line.removeprefix("found")))
    finally:
        for process in running:
            process.kill()
    return found


def test_two_machines_train_as_one():
    """The same weights and metrics, to the rounding of other sums."""
    ((history, weights),) = trained("alone")
    for other, others in trained("cluster", "cluster"):
        assert other.keys() == history.keys()
        for name in history:
            np.testing.assert_allclose(
                other[name], history[name], atol=1e-5, err_msg=name
            )
        for a, b in zip(weights, others, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
