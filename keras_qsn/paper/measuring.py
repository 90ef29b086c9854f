"""Measuring a cell that is no `Network`."""

import time
import warnings

import numpy as np

from keras_qsn import attacks
from keras_qsn import datasets
from keras_qsn.attacks.threats import THREATS
from keras_qsn.certification import certify
from keras_qsn.classifier.opened import as_seen
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation.judge import Judge
from keras_qsn.paper.attacking import ATTACKS
from keras_qsn.paper.attacking import STARTS
from keras_qsn.paper.networks import detector_of

BATCH_SIZE = 128

# How many images are kept for the figures.
_PICTURES = 3

# Answers counted at each image of a network that answers at random.
_DRAWS = 20

# Times that each of two networks is timed.
_TIMED = 5

# What a stranger has to train a substitute with (Papernot et al., 2017).
_SUBSTITUTE_IMAGES = 150


def craft(cell, model, data):
    """Plain values and the images of an `Examples` cell, by name."""
    x, y, y_target = _images(cell, data)
    attack = ATTACKS[cell.attack](cell)
    x_adv = _run(attack, model, x, y, y_target).x_adv
    return {"images": len(x)}, {"x_adv": x_adv}


def measure_attack(cell, model, examples, data):
    """Run an `Attacked` cell, on what `craft` made on its source, if any.

    Returns:
        Plain values, and arrays: which images are right before and after the
        attack, and a few of them for the figures.
    """
    x, y, y_target = _images(cell, data)
    if cell.attack in STARTS:
        x = STARTS[cell.attack](x, cell.network)
    attack = ATTACKS[cell.attack](cell)
    wrapper = KerasModelWrapper.of(model)
    detector = detector_of(cell.network, model, data)
    judge = Judge.of(wrapper, x, _DRAWS, cell.seed, BATCH_SIZE)
    clean = judge.classes(x, y)
    if cell.source == "substitute":
        substitute = _substitute(cell, model, data)
        examples = {"x_adv": _run(attack, substitute, x, y, y_target).x_adv}
    if examples is None:
        labels = None if cell.guessed else y
        result = _run(attack, model, x, labels, y_target)
        x_adv, blind = result.x_adv, result.blind
    else:
        # What fools the source is given to the network, fooled or not: the
        # accuracy on such examples is what papers print as black-box.
        x_adv = examples["x_adv"]
        blind = np.zeros(len(x), bool)
    prediction = judge.classes(x_adv, y, stream=1)
    fooled = prediction == y_target if cell.targeted else prediction != y
    right = clean == y
    if detector is not None:
        # What it rejects fools nobody; of the images as they are, it is lost.
        rejected = detector.detect(x)
        fooled = (fooled & ~detector.detect(x_adv)) | rejected
        right &= ~rejected
    values = {
        "accuracy": float(1 - fooled.mean()),
        "clean": float(right.mean()),
        "images": len(x),
        "blind": float(blind.mean()),
        "distortion": _distortion(x_adv - x, fooled & right),
    }
    few = slice(_PICTURES)
    arrays = {
        "correct": right,
        "survived": ~fooled,
        "x": x[few],
        "x_adv": x_adv[few],
        "seen": as_seen(model, x[few]),
        "seen_adv": as_seen(model, x_adv[few]),
        "clean": clean[few],
        "prediction": prediction[few],
    }
    return values, arrays


def measure_worst_case(cell, model, source, data):
    """Run a `WorstCase` cell, with the model of its source."""
    x, y = datasets.seeded_subset(
        data.x_test, data.y_test, cell.images, cell.seed
    )
    evaluation = evaluate_robustness(
        model,
        x,
        y,
        eps=cell.eps,
        plan=cell.plan,
        detector=detector_of(cell.network, model, data),
        sources={"undefended": source},
        seed=cell.seed,
        verbose=0,
        # The same on every processor.
        attack_dtype="float32",
    )
    broken = dict.fromkeys(THREATS, 0)
    for outcome in evaluation.outcomes:
        broken[outcome.step.threat] += len(outcome.broken)
    names = [outcome.step.name for outcome in evaluation.outcomes]
    values = {
        "accuracy": evaluation.robust_accuracy,
        "clean": evaluation.clean_accuracy,
        "images": len(x),
        "broken": broken,
        "left": dict(zip(names, evaluation.accuracy_after())),
        "failed_checks": [check.name for check in evaluation.failed],
        "masks": [
            f"{mask['layer']}: {mask['gradient']}"
            for mask in evaluation.settings["masks"]
        ],
    }
    return values, {}


def measure_inference(cell, model, baseline, data):
    """Run an `Inference` cell: plain values, and no arrays.

    Both networks answer in turn. Of each the shortest processor time counts,
    which tells least of what else the machine does.
    """
    x, _ = datasets.seeded_subset(
        data.x_test, data.y_test, cell.images, cell.seed
    )
    detector = detector_of(cell.network, model, data)
    wrappers = [KerasModelWrapper.of(each) for each in (model, baseline)]
    seconds = [[], []]
    for turn in range(1 + _TIMED):
        for wrapper, taken in zip(wrappers, seconds):
            start = time.process_time()
            wrapper.predict(x, BATCH_SIZE)
            if detector is not None and wrapper is wrappers[0]:
                detector.detect(x)
            # In the first turn functions are compiled.
            if turn:
                taken.append(time.process_time() - start)
    own, other = map(min, seconds)
    return {"ratio": own / other, "milliseconds": 1e3 * own / len(x)}, {}


def measure_proof(cell, model, data):
    """Run a `Proved` cell: plain values, and which images are certified."""
    x, y = datasets.seeded_subset(
        data.x_test, data.y_test, cell.images, cell.seed
    )
    certificate = certify(
        model, x, y, eps=cell.eps, time_limit=cell.seconds, verbose=0
    )
    values = {
        "accuracy": certificate.certified_accuracy,
        "possible": certificate.possible_accuracy,
        "clean": certificate.clean_accuracy,
        "images": len(x),
    }
    return values, {
        "certified": certificate.certified,
        "possible": certificate.certified | (certificate.status == "unknown"),
    }


def _run(attack, model, x, y, y_target):
    with warnings.catch_warnings():
        # Blind images are counted.
        warnings.simplefilter("ignore", attacks.BlindAttackWarning)
        return attack.run(
            model, x, y, y_target, batch_size=BATCH_SIZE, verbose=0
        )


def _images(cell, data):
    """Images, classes, and targets if there are any."""
    x, y = datasets.seeded_subset(data.x_test, data.y_test, None, cell.seed)
    if not cell.targeted:
        return x[: cell.images], y[: cell.images], None
    # The first of each class, in turn, each towards the nine other classes.
    firsts = [np.flatnonzero(y == c) for c in range(10)]
    rows = [firsts[i % 10][i // 10] for i in range(cell.images)]
    rows = np.repeat(rows, 9)
    steps = np.tile(np.arange(1, 10), cell.images)
    return x[rows], y[rows], (y[rows] + steps) % 10


def _substitute(cell, model, data):
    x, _ = datasets.seeded_subset(
        data.x_train, data.y_train, _SUBSTITUTE_IMAGES, cell.seed
    )
    substitute = attacks.substitute_mlp(x.shape[1:], 10, seed=cell.seed)
    attacks.train_substitute(model, x, substitute, seed=cell.seed, verbose=0)
    return substitute


def _distortion(delta, rows):
    """Median distances of the examples that turned a right answer."""
    if not rows.any():
        return None
    flat = np.abs(delta[rows].reshape(int(rows.sum()), -1)).astype("float64")
    return {
        "L0": float(np.median((flat > 0).sum(1))),
        "L2": float(np.median(np.sqrt((flat**2).sum(1)))),
        "Linf": float(np.median(flat.max(1))),
    }
