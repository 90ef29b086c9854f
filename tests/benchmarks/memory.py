"""Memory of attacks on real networks, and the cost of a step of PGD.

    python3 tests/benchmarks/memory.py --networks MobileNetV2 ResNet50

Each attack runs in a process of its own on images of 224x224 in batches of two
sizes; what the larger takes more, for each image, is compared with what
`classifier.memory` counts. The step of PGD is timed beside a bare gradient of
the same network, in turns.
"""

import argparse
import json
import subprocess
import sys

import numpy as np

NETWORKS = {
    "MobileNetV2": (0.0, 1.0),
    "ResNet50": (0.0, 1.0),
    "EfficientNetV2B0": (0.0, 255.0),
    "ConvNeXtTiny": (0.0, 255.0),
}
ATTACKS = {
    "logits": None,
    "FGSM": ("FastGradientMethod", {}),
    "PGD": ("ProjectedGradientDescent", {"nb_iter": 3}),
    "APGD": ("AutoProjectedGradientDescent", {"nb_iter": 3}),
    "FAB": ("FastAdaptiveBoundary", {"nb_iter": 2, "nb_targets": 3}),
    "CW": ("CarliniWagnerL2", {"max_iterations": 2, "binary_search_steps": 1}),
    "DeepFool": ("DeepFool", {"max_iter": 2}),
    "JSMA": ("SaliencyMapMethod", {"gamma": 2e-5}),
    "Square": ("SquareAttack", {"nb_queries": 5}),
    "SPSA": ("SPSA", {"nb_iter": 1, "spsa_samples": 8}),
    "HopSkipJump": (
        "HopSkipJumpAttack",
        {"num_iterations": 1, "max_num_evals": 20},
    ),
}
SCRIPT = """
import json, resource, sys
import keras, numpy as np
import tensorflow as tf
from keras_qsn import attacks
from keras_qsn.classifier.memory import bytes_of_image
from keras_qsn.models import KerasModelWrapper

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
name, kind, given, (low, high), images, side = json.loads(sys.argv[1])
model = getattr(keras.applications, name)(
    weights=None, classes=100, input_shape=(side, side, 3)
)
model.layers[-1].activation = keras.activations.linear
wrapper = KerasModelWrapper(model)
x = np.random.default_rng(0).uniform(low, high, (images, side, side, 3))
x = x.astype("float32")
y = wrapper.logits(x[:1], 1).argmax(-1).repeat(images)
if kind:
    attack = getattr(attacks, kind)
    for key, value in (("clip_min", low), ("clip_max", high)):
        given[key] = value
    attack(**given).run(wrapper, x, y, batch_size=images, verbose=0)
else:
    wrapper.logits(x, images)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([peak, bytes_of_image(wrapper, x.shape[1:])]))
"""
STEP = """
import json, sys, time
import keras, numpy as np
import tensorflow as tf
from keras_qsn import attacks
from keras_qsn.models import KerasModelWrapper

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
name, _, _, (low, high), images, side = json.loads(sys.argv[1])
model = getattr(keras.applications, name)(
    weights=None, classes=100, input_shape=(side, side, 3)
)
model.layers[-1].activation = keras.activations.linear
wrapper = KerasModelWrapper(model)
x = np.random.default_rng(0).uniform(low, high, (images, side, side, 3))
x = tf.constant(x.astype("float32"))
y = np.zeros(images, "int64")
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

@tf.function
def bare(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(y, model(x, training=False))
    return tape.gradient(value, x)

def pgd(steps):
    attack = attacks.ProjectedGradientDescent(
        (high - low) * 8 / 255,
        nb_iter=steps,
        clip_min=low,
        clip_max=high,
    )
    attack.run(wrapper, x.numpy(), y, batch_size=images, verbose=0)

def seconds(function, *arguments):
    started = time.process_time()
    function(*arguments)
    return time.process_time() - started

bare(x), pgd(1)
ratios = []
for _ in range(5):
    one = sum(seconds(bare, x) for _ in range(4)) / 4
    # What a run takes beside its steps is in both.
    ratios.append((seconds(pgd, 5) - seconds(pgd, 1)) / 4 / one)
print(json.dumps(ratios))
"""


def measure(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(arguments)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS]
    )
    parser.add_argument(
        "--attacks", nargs="*", choices=ATTACKS, default=[*ATTACKS]
    )
    parser.add_argument("--images", nargs=2, type=int, default=(2, 8))
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--step", action="store_true", help="time PGD's too")
    options = parser.parse_args()
    few, many = options.images
    for network in options.networks:
        pixels = NETWORKS[network]
        for name in options.attacks:
            kind, given = ATTACKS[name] or (None, {})
            (small, counted), (large, _) = (
                measure(
                    SCRIPT, network, kind, given, pixels, images, options.side
                )
                for images in options.images
            )
            each = (large - small) / (many - few) / 2**20
            print(
                f"{network} {name}: {large / 2**30:.2f} GB with {many} images, "
                f"{each:.0f} MB an image, counted {counted / 2**20:.0f}",
                flush=True,
            )
        if options.step:
            ratios = measure(
                STEP, network, None, {}, pixels, many, options.side
            )
            print(
                f"{network}, step of PGD: {np.median(ratios):.2f} times a bare "
                f"gradient ({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
