"""What a training step costs: FGSM, intervals, products in bfloat16.

    python3 tests/benchmarks/training.py

Timed alternately in one process; the figure is the median of the ratios.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
from layers import LOSS
from layers import paired_ratio

from keras_qsn.attacks import FastGradientMethod
from keras_qsn.models import cleverhans_cnn
from keras_qsn.training import AdversarialTraining
from keras_qsn.training import IntervalTraining
from keras_qsn.training import QuSecNet


def training_step(objective=None, **kwargs):
    net = QuSecNet(cleverhans_cnn(seed=0), objective, **kwargs)
    if isinstance(objective, IntervalTraining):
        net.objectives[0].grown.assign(1.0)
    net.compile(keras.optimizers.Adam(1e-3), LOSS)
    net.optimizer.build(net.trainable_variables)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.random((128, 28, 28, 1)), tf.float32)
    y = tf.constant(rng.integers(10, size=128))
    step = tf.function(net.train_step, autograph=False)
    return lambda: float(step((x, y))["loss"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    plain = training_step()
    for clean_share in (0.0, 0.5):
        step = training_step(
            AdversarialTraining(FastGradientMethod(0.3), clean_share)
        )
        ratio = paired_ratio(step, plain, options.rounds)
        print(
            f"FGSM training step, clean share {clean_share} / plain step, "
            f"batch 128: {ratio:.2f}",
            flush=True,
        )
    attacked, intervals = (
        [
            training_step(objective, product_dtype=product_dtype)
            for product_dtype in ("float32", "bfloat16")
        ]
        for objective in (
            AdversarialTraining(FastGradientMethod(0.3)),
            IntervalTraining(0.3),
        )
    )
    for what, steps in (
        ("Interval training step / plain step", (intervals[0], plain)),
        ("Interval training step, float32 / bfloat16", intervals),
        ("FGSM training step, float32 / bfloat16", attacked),
    ):
        ratio = paired_ratio(*steps, options.rounds)
        print(f"{what}, batch 128: {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
