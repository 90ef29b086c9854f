"""The main job: train the paper's defences, attack them, show what is left.

Five networks: undefended, CQ, TQ, and Fig. 5's pair, the undefended network
and TQ trained adversarially. Each is measured on clean images, under
white-box FGSM and PGD, and black-box on examples crafted on the undefended
network; the figure that counts is the worst case per image.
"""

import dataclasses
import json
import os
import pathlib

import keras
import numpy as np

from keras_qsn import datasets
from keras_qsn import report
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.classifier.opened import as_seen
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import TrainableQuantization
from keras_qsn.models import cleverhans_cnn
from keras_qsn.training import QuSecNet
from keras_qsn.version import __version__

BATCH_SIZE = 128

# Name, layer in front (or None), adversarial training.
DEFENCES = {
    "undefended": (None, False),
    "CQ": (ConstantQuantization, False),
    "TQ": (TrainableQuantization, False),
    "adversarial": (None, True),
    "adversarial TQ": (TrainableQuantization, True),
}

COLUMNS = {
    "clean": "clean",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "black_box_fgsm": "black-box FGSM",
    "black_box_pgd": "black-box PGD",
    "worst_case": "worst case",
}

# Shares of `eps` at which the curves are measured.
_SWEEP = (1 / 6, 1 / 3, 2 / 3, 1.0, 4 / 3)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides the demo's numbers."""

    data: str = "digits"
    eps: float = 0.3
    epochs: int = 6
    num_levels: int = 2
    nb_iter: int = 40
    images: int = 1000
    sweep_images: int = 200
    train_images: int | None = None
    seed: int = 0


def settings_for(data="digits", quick=False, seed=0):
    """The paper's settings for a data set; `quick` is a smoke test."""
    eps = 0.1 if data == "cifar10" else 0.3
    if quick:
        return Settings(
            data,
            eps,
            epochs=2,
            nb_iter=10,
            images=200,
            sweep_images=64,
            train_images=2000,
            seed=seed,
        )
    return Settings(data, eps, seed=seed)


def run(settings, out, data_dir=None, progress=None, show=None):
    """Run the demo, or go on where an earlier run of it stopped.

    Args:
        settings: A `Settings`.
        out: Results folder. Receives `results.json`, `results.md`,
            `accuracy.png`, `images.png` and the trained models.
        data_dir: Optional folder with the data set's file.
        progress: Optional function of a task's name, how much of it is done
            and how much there is in all.
        show: Optional function of the results, called before the tables and
            plots are written: a full disk does not keep them from being seen.

    Returns:
        The content of `results.json`.

    Raises:
        OSError: If the folder cannot be written.
        ValueError: If the folder holds a run with other settings, or of
            another version.
    """
    progress = progress or (lambda task, done, total: None)
    out = pathlib.Path(out)
    results = _claim(out, settings)
    data = datasets.load(settings.data, data_dir)
    x_train, y_train = datasets.seeded_subset(
        data.x_train, data.y_train, settings.train_images, settings.seed
    )
    x, y = datasets.seeded_subset(
        data.x_test, data.y_test, settings.images, settings.seed
    )
    results["data"] = data.description
    results["images"] = {"train": len(x_train), "test": len(x)}

    networks = {}
    for name in DEFENCES:
        path = out / f"{name.replace(' ', '-')}.keras"
        if not path.exists():
            network = _train(name, x_train, y_train, settings, progress)
            part = path.with_name(f"part-{path.name}")
            network.save(part)
            os.replace(part, path)
        networks[name] = keras.models.load_model(path)

    black_box = None
    for name, network in networks.items():
        if name in results["defences"] and black_box is not None:
            continue
        measured, examples = _measure(
            name, network, x, y, black_box, settings, progress
        )
        if black_box is None:
            black_box = examples
        results["defences"][name] = measured
        report.write_json(out / "results.json", results)

    results["notes"] = _notes(results["defences"])
    results["complete"] = True
    if show is not None:
        show(results)
    report.write_text(out / "results.md", _markdown(results))
    report.write_figure(out / "accuracy.png", _accuracy_figure(results))
    report.write_figure(
        out / "images.png", _image_figure(networks, x[:3], y[:3], settings)
    )
    report.write_json(out / "results.json", results)
    return results


def table(results):
    """Header and rows of the demo's table, as text."""
    header = ["defence", *COLUMNS.values()]
    rows = [
        [name, *(report.percent(measured[column]) for column in COLUMNS)]
        for name, measured in results["defences"].items()
    ]
    return header, rows


def caption(results):
    """What the table's figures were measured on."""
    s = Settings(**results["settings"])
    return (
        f"Accuracy on {results['images']['test']} test images of "
        f"{results['data']}; L-infinity, eps {s.eps}, PGD {s.nb_iter} steps "
        "with one random start, through the exact gradient, seed "
        f"{s.seed}. Black-box: examples crafted on the undefended network. "
        "Worst case: per image, over the columns. No adaptive attack was "
        "run: the true figures of quantized networks can only be lower."
    )


def _claim(out, settings):
    """The run in the folder, new or unfinished; refuse any other."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        report.write_text(out / ".writable", "")
        (out / ".writable").unlink()
    except OSError as error:
        raise OSError(
            f"The results folder cannot be written: {out} ({error}). Name "
            "another one with `--out`."
        ) from error
    path = out / "results.json"
    wanted = dataclasses.asdict(settings)
    if not path.exists():
        if any(out.iterdir()):
            raise ValueError(
                f"The results folder {out} is not empty and holds no demo "
                "run. Expected: a new or empty folder. Name another one with "
                "`--out`."
            )
        results = {
            "version": __version__,
            "settings": wanted,
            "defences": {},
            "complete": False,
        }
        report.write_json(path, results)
        return results
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        found = results["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged or not of a demo run ({error}). Name another "
            "folder with `--out`."
        ) from error
    if results.get("version") != __version__:
        raise ValueError(
            f"The results folder {out} holds a run of another version of "
            f"keras_qsn ({results.get('version', '0.1.0 or older')}; this is "
            f"{__version__}), whose numbers may be others. Name another "
            "folder with `--out`."
        )
    if found != wanted:
        different = {
            key: (found.get(key), value)
            for key, value in wanted.items()
            if found.get(key) != value
        }
        raise ValueError(
            f"The results folder {out} already holds another run. Settings "
            f"that differ, as (there, now): {different}. Name another folder "
            "with `--out`."
        )
    return results


def _train(name, x, y, settings, progress):
    layer, adversarial = DEFENCES[name]
    network = cleverhans_cnn(
        x.shape[1:],
        quantizer=layer(settings.num_levels) if layer else None,
        seed=settings.seed,
    )
    net = QuSecNet(
        network, FastGradientMethod(settings.eps) if adversarial else None
    )
    net.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batches = datasets.ShuffledBatches(x, y, BATCH_SIZE, settings.seed)
    steps = settings.epochs * len(batches)
    seen = iter(range(1, steps + 1))
    net.fit(
        batches,
        epochs=settings.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: progress(
                    f"train {name}", next(seen), steps
                )
            )
        ],
    )
    return network


def _measure(name, network, x, y, black_box, settings, progress):
    """Accuracies of one network, and the examples crafted on it."""
    steps = len(x) * 2 + len(_SWEEP) * min(settings.sweep_images, len(x)) * 2
    done = 0

    def attacked(attack, x, y):
        nonlocal done
        result = attack.run(
            network,
            x,
            y,
            batch_size=BATCH_SIZE,
            progress=lambda _, n, total: progress(
                f"attack {name}", done + n, steps
            ),
        )
        done += len(x)
        return result

    def correct(images):
        return wrapper.predict(images, BATCH_SIZE) == y

    wrapper = KerasModelWrapper.of(network)
    eps = settings.eps
    fgsm = attacked(FastGradientMethod(eps), x, y)
    pgd = attacked(_pgd(settings, eps), x, y)
    survived = {
        "clean": correct(x),
        "fgsm": ~fgsm.success,
        "pgd": ~pgd.success,
    }
    if black_box is not None:
        survived["black_box_fgsm"] = correct(black_box["fgsm"])
        survived["black_box_pgd"] = correct(black_box["pgd"])
    worst = np.logical_and.reduce(list(survived.values()))
    measured = {
        column: float(survived[column].mean()) if column in survived else None
        for column in COLUMNS
    }
    measured["worst_case"] = float(worst.mean())

    few = slice(settings.sweep_images)
    clean = float(survived["clean"][few].mean())
    curves = {"FGSM": [[0.0, clean]], "PGD": [[0.0, clean]]}
    for share in _SWEEP:
        radius = round(share * eps, 6)
        for title, attack in (
            ("FGSM", FastGradientMethod(radius)),
            ("PGD", _pgd(settings, radius)),
        ):
            success = attacked(attack, x[few], y[few]).success
            curves[title].append([radius, float(1 - success.mean())])
    measured["curves"] = curves
    return measured, {"fgsm": fgsm.x_adv, "pgd": pgd.x_adv}


def _pgd(settings, eps):
    return ProjectedGradientDescent(
        eps, nb_iter=settings.nb_iter, seed=settings.seed
    )


def _notes(defences):
    """Signs of masked gradients, in words."""
    notes = []
    for name, measured in defences.items():
        black_box = measured["black_box_pgd"], measured["black_box_fgsm"]
        if None not in black_box and min(black_box) < measured["pgd"]:
            notes.append(
                f"{name}: black-box examples do more harm "
                f"({report.percent(min(black_box))} left) than white-box PGD "
                f"({report.percent(measured['pgd'])}). Its gradient is "
                "masked; the white-box figures are not its robustness."
            )
        if measured["fgsm"] < measured["pgd"] - 0.005:
            notes.append(
                f"{name}: one step ({report.percent(measured['fgsm'])} left) "
                f"beats many ({report.percent(measured['pgd'])}). The "
                "gradient misleads PGD."
            )
    return notes


def _markdown(results):
    notes = "".join(f"- {note}\n" for note in results["notes"])
    return (
        "# keras-qsn demo\n\n"
        f"{report.markdown_table(*table(results))}\n\n"
        f"{caption(results)}\n\n"
        + (f"Signs of masked gradients:\n\n{notes}\n" if notes else "")
        + "![accuracy against eps](accuracy.png)\n\n"
        "![clean and adversarial images](images.png)\n"
    )


def _accuracy_figure(results):
    s = Settings(**results["settings"])
    count = min(s.sweep_images, results["images"]["test"])
    curves = {
        attack: {
            name: measured["curves"][attack]
            for name, measured in results["defences"].items()
        }
        for attack in ("FGSM", "PGD")
    }
    return report.plot_accuracy(
        curves, 0.1, f"White-box, {count} test images, {results['data']}"
    )


def _image_figure(networks, x, y, settings):
    rows = {}
    for name, network in networks.items():
        attacked = _pgd(settings, settings.eps).run(network, x, y)
        x_adv, prediction = attacked.x_adv, attacked.prediction
        clean = KerasModelWrapper.of(network).predict(x, BATCH_SIZE)
        seen, seen_adv = as_seen(network, x), as_seen(network, x_adv)
        rows[name] = []
        for i in range(len(x)):
            rows[name] += [
                (f"clean: {clean[i]}", x[i]),
                ("as seen", seen[i]),
                (f"PGD: {prediction[i]}", x_adv[i]),
                ("as seen", seen_adv[i]),
            ]
    return report.plot_images(
        rows,
        "Clean and PGD images with the predicted class; as seen: what the "
        "network gets behind its quantizer",
    )
