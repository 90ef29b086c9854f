"""What the layer costs: against no layer, and against plain autodiff.

    python3 tests/benchmarks/layers.py

Pairs are timed alternately in one process; the figure is the median of the
ratios. Peak memory is measured in a process of its own for each case.
"""

import argparse
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.layers import TrainableQuantization
from keras_qsn.models import cleverhans_cnn

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def paired_ratio(a, b, rounds):
    """Median of time(a) / time(b) over alternating calls."""
    for _ in range(3):
        a(), b()
    ratios = []
    for _ in range(rounds):
        times = []
        for function in (a, b):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios))


def training_step(quantizer):
    """One compiled training step of the CNN, batch 128."""
    model = cleverhans_cnn(quantizer=quantizer, seed=0)
    model.compile(keras.optimizers.Adam(1e-3), LOSS)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.random((128, 28, 28, 1)), tf.float32)
    y = tf.constant(rng.integers(10, size=128))
    step = tf.function(model.train_step, autograph=False)
    model.optimizer.build(model.trainable_variables)
    return lambda: float(step((x, y))["loss"])


def step_with_input_gradient():
    """The same without a layer, but with the gradient of the images.

    What trainable thresholds cannot do without: their gradient passes through
    that of the first convolution's input.
    """
    model = cleverhans_cnn(seed=0)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.random((128, 28, 28, 1)), tf.float32)
    y = tf.constant(rng.integers(10, size=128))

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = LOSS(y, model(x, training=True))
        weights = [v.value for v in model.trainable_variables]
        d_x, *gradients = tape.gradient(loss, [x, *weights])
        optimizer.apply(gradients, model.trainable_variables)
        return loss, d_x

    return lambda: float(step()[0])


def plain_sum(x, thresholds):
    """Eq. 1 as one would write it, for autodiff."""
    u = 50.0 * (x[..., None] - thresholds)
    return tf.reduce_mean(tf.sigmoid(u), -1)


def forward_and_backward(num_levels, plain):
    x = tf.random.stateless_uniform((32, 224, 224, 3), (0, 0))
    upstream = tf.random.stateless_normal(x.shape, (0, 1))
    layer = QuantLayer(num_levels, 50.0, shared_axes=[1, 2, 3])
    layer.build(x.shape)
    thresholds = layer.thresholds.value

    @tf.function(autograph=False)
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = plain_sum(x, thresholds) if plain else layer(x)
        return y, *tape.gradient(y, [x, thresholds], upstream)

    return lambda: float(run()[0][0, 0, 0, 0])


def peak_memory(num_levels):
    """MiB on top of the inputs, in a process of its own."""
    command = [sys.executable, __file__, "--peak", str(num_levels)]
    return float(subprocess.check_output(command).split()[-1])


def _status(key):
    """A memory figure of this process in KiB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {key}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--peak", type=int, help="used by the script itself")
    options = parser.parse_args()
    if options.peak:
        run = forward_and_backward(options.peak, plain=False)
        # Linux: forget the peak so far, then read the one of the computation.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        for _ in range(3):
            run()
        print((_status("VmHWM") - before) / 1024)
        return
    plain = training_step(None)
    for kind in (ConstantQuantization, TrainableQuantization):
        for num_levels in (2, 16):
            step = training_step(kind(num_levels))
            ratio = paired_ratio(step, plain, options.rounds)
            print(
                f"training step, {kind.__name__}, {num_levels} levels / no "
                f"layer: {ratio:.3f}",
                flush=True,
            )
    ratio = paired_ratio(step_with_input_gradient(), plain, options.rounds)
    print(
        "training step, no layer but the gradient of the images / no layer: "
        f"{ratio:.3f}",
        flush=True,
    )
    ratio = paired_ratio(
        forward_and_backward(16, plain=True),
        forward_and_backward(16, plain=False),
        options.rounds // 2,
    )
    print(
        "forward and backward on 32x224x224x3, 16 levels, plain autodiff / "
        f"layer: {ratio:.2f}",
        flush=True,
    )
    few, many = peak_memory(2), peak_memory(256)
    print(
        f"peak memory on 32x224x224x3: {few:.0f} MiB at 2 levels, "
        f"{many:.0f} MiB at 256: {many / few:.2f}"
    )


if __name__ == "__main__":
    main()
