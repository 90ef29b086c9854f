"""Does any outside attack break an image that a plan calls robust?

    python3 -m pip install -e '.[demo,peers]'
    python3 tests/benchmarks/adaptive.py --data mnist --plan full --images 500

Trains CQ (2 levels, steepness 500) and TQ networks without attacks, evaluates
them at L-infinity eps 0.3, and attacks what is called robust with ART's PGD
(100 steps) and Square (5,000 queries), and with ART's PGD examples of an
undefended network. Every count should be 0. Interrupted, it goes on where it
was, in `results/adaptive`.
"""

import argparse
import pathlib
import time

import keras
import numpy as np
from art.attacks import evasion
from art.estimators.classification import TensorFlowV2Classifier

from keras_qsn import datasets
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import plans
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import TrainableQuantization
from keras_qsn.models import cleverhans_cnn

EPS = 0.3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
QUANTIZERS = {
    "undefended": lambda: None,
    "CQ": lambda: ConstantQuantization(2, steepness=500.0),
    "TQ": lambda: TrainableQuantization(2),
}


def trained(name, data, folder):
    path = folder / f"{name}.keras"
    if not path.exists():
        shape = data.x_train.shape[1:]
        model = cleverhans_cnn(shape, quantizer=QUANTIZERS[name](), seed=0)
        model.compile(keras.optimizers.Adam(1e-3), LOSS)
        batches = datasets.ShuffledBatches(data.x_train, data.y_train, 128, 0)
        model.fit(batches, epochs=6, shuffle=False, verbose=0)
        model.save(path)
    return keras.models.load_model(path)


def by_art(model):
    return TensorFlowV2Classifier(
        model, 10, model.input_shape[1:], loss_object=LOSS, clip_values=(0, 1)
    )


def outside_attacks(model, undefended):
    pgd = dict(
        norm=np.inf,
        eps=EPS,
        eps_step=0.01,
        max_iter=100,
        num_random_init=1,
        batch_size=128,
        verbose=False,
    )
    return {
        "ART PGD-100": evasion.ProjectedGradientDescent(by_art(model), **pgd),
        "ART Square-5000": evasion.SquareAttack(
            by_art(model),
            norm=np.inf,
            eps=EPS,
            max_iter=5000,
            p_init=0.8,
            batch_size=128,
            verbose=False,
        ),
        "transfer of ART PGD-100": evasion.ProjectedGradientDescent(
            by_art(undefended), **pgd
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--plan", choices=plans.NAMES, default="full")
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    data = datasets.load(options.data)
    folder = pathlib.Path("results/adaptive") / options.data
    folder.mkdir(parents=True, exist_ok=True)
    x, y = data.x_test[: options.images], data.y_test[: options.images]
    undefended = trained("undefended", data, folder)
    for name in ("CQ", "TQ"):
        model = trained(name, data, folder)
        start = time.perf_counter()
        found = evaluate_robustness(
            model,
            x,
            y,
            eps=EPS,
            plan=options.plan,
            train_data=(data.x_train, data.y_train),
            folder=folder / f"{name}-{options.plan}-{options.images}",
        )
        seconds = time.perf_counter() - start
        print(
            f"{name}: clean {found.clean_accuracy:.3f}, robust "
            f"{found.robust_accuracy:.3f} of {len(x)}, {seconds:.0f} s"
        )
        rows = np.flatnonzero(found.robust)
        if not len(rows):
            continue
        for title, attack in outside_attacks(model, undefended).items():
            x_adv = attack.generate(x[rows], np.eye(10)[y[rows]])
            wrong = model.predict(x_adv, verbose=0).argmax(-1) != y[rows]
            inside = np.abs(x_adv - x[rows]).max((1, 2, 3)) <= EPS + 1e-6
            print(
                f"{name}: {title} breaks {(wrong & inside).sum()} of "
                f"{len(rows)} called robust: {rows[wrong & inside].tolist()}",
                flush=True,
            )


if __name__ == "__main__":
    main()
