"""How much can be certified, with what training?

    python3 -m pip install -e '.[demo]'
    python3 tests/benchmarks/certified.py --data mnist --eps 0.3 --epochs 30

Trains the paper's network, on all training images but the last 5,000;
certifies and attacks those (`--judge held-out`, where choices are made) or the
test set (`--judge test`, once they are). The last line printed is JSON, and
kept beside the model. The same command goes on where it was; another judgement
trains nothing anew. `--method`:

- `interval`: worst case of intervals, and a share of the clean loss;
- `mixed`: the same, with attacked images in place of the clean ones;
- `attacked`: attacked images only (Madry et al., 2018);
- `clean`: no defence in training.

`--thresholds` with no value trains on raw pixels.
"""

import argparse
import hashlib
import json
import pathlib
import time

import keras
import networks
import numpy as np
import tensorflow as tf
from moved_batches import MovedBatches

from keras_qsn import datasets
from keras_qsn._core.files import write_json
from keras_qsn.attacks import CubeAttack
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.callbacks import ExactBackup
from keras_qsn.certification import certify
from keras_qsn.constraints import ThresholdRange
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.initializers import initialize_for_intervals
from keras_qsn.layers import QuantLayer
from keras_qsn.optimizers import Muon
from keras_qsn.training import AdversarialTraining
from keras_qsn.training import IntervalTraining
from keras_qsn.training import QuSecNet

HELD_OUT = 5000

OPTIMIZERS = {"adam": keras.optimizers.Adam, "muon": Muon}

# Options that decide how the trained model is judged, and not what it is.
JUDGING = (
    "judge",
    "judged",
    "bounds_only",
    "control",
    "plan",
    "time_limit",
    "threads",
    "out",
)


def quantizer_of(options):
    if not options.thresholds:
        return None
    margin = options.eps + 0.01
    return QuantLayer(
        len(options.thresholds) + 1,
        options.steepness,
        hard=True,
        shared_axes=None if options.trained == "per pixel" else [1, 2],
        threshold_initializer=options.thresholds,
        threshold_constraint=ThresholdRange(margin, 1 - margin),
        trainable=options.trained != "no",
    )


def attack_of(options):
    """The strongest attack of its kind that a batch can be trained on."""
    steps = options.steps
    if options.thresholds:
        # Polishing costs more than all steps, and is for the last flips.
        return CubeAttack(
            options.eps, nb_iter=steps, nb_restarts=1, nb_polish=0
        )
    return ProjectedGradientDescent(
        options.eps, eps_iter=2.5 * options.eps / steps, nb_iter=steps
    )


def schedule_of(options, steps):
    """The learning rate, cut to a fifth after 70 and 90 % of the steps."""
    total = options.epochs * steps
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [int(0.7 * total), int(0.9 * total)],
        [options.lr, options.lr / 5, options.lr / 25],
    )


def train(options, x, y, folder):
    """The trained model, and the seconds it took; from its file if there."""
    trained, times = folder / "model.keras", folder / "seconds.json"
    if trained.exists():
        return keras.models.load_model(trained), json.loads(times.read_text())
    model = networks.network(
        options.network, x.shape[1:], quantizer_of(options), options.seed
    )
    objectives = []
    if options.method in ("mixed", "attacked"):
        objectives.append(AdversarialTraining(attack_of(options), 0.0))
    if options.method in ("interval", "mixed"):
        initialize_for_intervals(model, options.seed)
        objectives.append(
            IntervalTraining(
                options.train_eps or options.eps,
                clean_share=options.clean_share,
                box_share=options.box_share,
                warmup_epochs=options.warmup,
                ramp_epochs=options.ramp,
                regularizer=options.regularizer,
            )
        )
    net = QuSecNet(model, objectives, product_dtype=options.product_dtype)
    batches = MovedBatches(
        *(x, y, options.batch_size, options.seed),
        shift=options.shift,
        warped=options.warp,
        contrast=options.contrast,
    )
    net.compile(
        OPTIMIZERS[options.optimizer](
            schedule_of(options, len(batches)),
            clipnorm=10.0,
            use_ema=options.ema > 0,
            ema_momentum=options.ema,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    watch = Stopwatch()
    net.fit(
        batches,
        epochs=options.epochs,
        shuffle=False,
        callbacks=[watch, ExactBackup(folder / "backup", batches, [watch])],
        verbose=2,
    )
    seconds = [watch.seconds, watch.processor_seconds]
    write_json(times, seconds)
    # Whole or not there.
    unfinished = folder / "unfinished.keras"
    model.save(unfinished)
    unfinished.replace(trained)
    return model, seconds


class Stopwatch(keras.callbacks.Callback):
    """Seconds, by the clock and of the processor; a backup keeps both."""

    def __init__(self):
        super().__init__()
        self.seconds, self.processor_seconds = 0.0, 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self._start[0]
        self.processor_seconds += time.process_time() - self._start[1]


def judge(model, x, y, options, folder):
    """Clean, certified and attacked accuracy of the model.

    Attacked is what is neither proved nor broken, and some of what is proved:
    with that, the share of images that nothing breaks is that of them all.
    """
    start = time.perf_counter()
    bounds = certify(model, x, y, options.eps, methods="interval", verbose=0)
    found = {
        "images": len(x),
        "clean": bounds.clean_accuracy,
        "interval": bounds.certified_accuracy,
        "interval seconds": time.perf_counter() - start,
    }
    if options.thresholds:
        thresholds = model.layers[0].thresholds.numpy()
        found["thresholds"] = np.quantile(thresholds, [0, 0.5, 1]).tolist()
    if options.bounds_only:
        return found
    certificate = certify(
        model,
        x,
        y,
        options.eps,
        time_limit=options.time_limit,
        folder=folder / f"proofs-{options.judge}-{len(x)}",
    )
    proved = certificate.certified
    found |= {
        "certified": certificate.certified_accuracy,
        "possible": certificate.possible_accuracy,
        "undetermined": float(certificate.undetermined.mean()),
        "by": {
            method: float((proved & (certificate.method == method)).mean())
            for method in ("interval", "crown", "branching")
        },
        "proof seconds": float(certificate.seconds.sum()),
    }
    attacked = certificate.status == "unknown"
    attacked[np.flatnonzero(proved)[: options.control]] = True
    robust = proved.copy()
    found["attacked images"] = int(attacked.sum())
    if attacked.any():
        start = time.perf_counter()
        evaluation = evaluate_robustness(
            model,
            x[attacked],
            y[attacked],
            eps=options.eps,
            plan=options.plan,
            certified=proved[attacked],
            seed=options.seed,
            folder=folder / f"attacks-{options.judge}-{len(x)}",
        )
        robust[attacked] = evaluation.robust
        found |= {
            "failed checks": [check.name for check in evaluation.failed],
            "attack seconds": time.perf_counter() - start,
        }
    return found | {"worst case": float(robust.mean())}


def main():
    options = parser().parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    x, y = training_images(options)
    folder = folder_of(options)
    model, seconds = train(options, x, y, folder)
    x, y = judged_images(options)
    found = {
        # Not where, so that results are the same wherever they were made.
        "options": {k: v for k, v in vars(options).items() if k != "out"},
        "training seconds": seconds[0],
        "processor seconds": seconds[1],
        **judge(model, x, y, options, folder),
    }
    kind = "bounds" if options.bounds_only else "whole"
    write_json(folder / f"{options.judge}-{len(x)}-{kind}.json", found)
    print(json.dumps(found))


def split(options):
    """The data, and how many of its training images are trained on at most.

    Those after them are held out. The order of all is drawn.
    """
    data = datasets.load(options.data)
    x, y = datasets.seeded_subset(data.x_train, data.y_train, None, 0)
    return data, x, y, max(len(x) - HELD_OUT, len(x) // 2)


def training_images(options):
    _, x, y, kept = split(options)
    used = slice(min(kept, options.train_images or kept))
    return x[used], y[used]


def judged_images(options):
    """Images of the test set, drawn by seed 0, or held-out ones."""
    data, x, y, kept = split(options)
    if options.judge == "test":
        return datasets.seeded_subset(
            data.x_test, data.y_test, options.judged, 0
        )
    return tuple(part[kept:][: options.judged] for part in (x, y))


def folder_of(options):
    """The folder of a training, named by what decides it."""
    # Without defaults, so that a new option keeps what has been trained.
    default = parser().get_default
    decisive = {
        k: v
        for k, v in vars(options).items()
        if k not in JUDGING and v != default(k)
    }
    digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:8]
    folder = pathlib.Path(options.out) / (
        f"{options.data}-{options.method}-eps{options.eps:g}-{digest}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument(
        "--method",
        choices=("interval", "mixed", "attacked", "clean"),
        default="interval",
    )
    parser.add_argument("--eps", type=float, default=0.3)
    parser.add_argument("--train-eps", type=float)
    parser.add_argument("--thresholds", type=float, nargs="*", default=[0.5])
    parser.add_argument(
        "--trained", choices=("no", "shared", "per pixel"), default="no"
    )
    parser.add_argument("--steepness", type=float, default=50.0)
    parser.add_argument("--steps", type=int, default=4, help="of an attack")
    parser.add_argument("--train-images", type=int)
    parser.add_argument(
        "--shift", type=int, default=0, help="pixels images move in training"
    )
    parser.add_argument(
        "--warp", action="store_true", help="images in training"
    )
    parser.add_argument(
        "--contrast", type=float, default=1.0, help="of images in training"
    )
    parser.add_argument("--network", choices=networks.NAMES, default="paper")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--ramp", type=int, default=6)
    parser.add_argument("--clean-share", type=float, default=0.0)
    parser.add_argument("--box-share", type=float, default=1.0)
    parser.add_argument("--regularizer", type=float, default=0.5)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument(
        "--ema", type=float, default=0.0, help="of weights, kept in each step"
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument(
        "--product-dtype", choices=("float32", "bfloat16"), default="float32"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--judge", choices=("held-out", "test"), default="held-out"
    )
    parser.add_argument("--judged", type=int, default=None, help="images")
    parser.add_argument(
        "--bounds-only",
        action="store_true",
        help="judge by interval bounds: no complete check, no attacks",
    )
    parser.add_argument(
        "--control",
        type=int,
        default=200,
        help="certified images that are attacked all the same",
    )
    parser.add_argument("--plan", default="quick", help="of the attacks")
    parser.add_argument("--time-limit", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", default="results/certified")
    return parser


if __name__ == "__main__":
    main()
