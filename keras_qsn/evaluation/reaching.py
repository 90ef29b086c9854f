"""What one attack finds of the nearest examples, batch by batch."""

import time
import warnings

import numpy as np

from keras_qsn.attacks import BlindAttackWarning
from keras_qsn.attacks.running import run_attack
from keras_qsn.attacks.running import slope_at
from keras_qsn.attacks.views import passes
from keras_qsn.evaluation.distances import Found


def reach(number, step, wrapper, x, y, norm, batch_size, folder, progress):
    """The `Found` of a step, and the images that it makes.

    Args:
        number: Its place in the plan.
        step: The `Step`.
        wrapper: `KerasModelWrapper` of the model attacked.
        x: Images.
        y: Their classes.
        norm: Of the distances.
        batch_size: Images attacked at once.
        folder: The `Folder` that keeps finished batches.
        progress: Function of a name, the number of images done, and of all.
    """
    parts = []
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        name = f"nearest-{number}-from-{start}.npz"
        part = folder.get(name)
        if part is None:
            part = _of_batch(step.attack, wrapper, x[batch], y[batch], start)
            folder.put(name, part)
        parts.append(part)
        progress(step.name, min(batch.stop, len(x)), len(x))
    x_adv, fooled = (
        np.concatenate([part[name] for part in parts])
        for name in ("x_adv", "fooled")
    )
    delta = x_adv.astype("float64") - x
    distances = np.linalg.norm(delta.reshape(len(x), -1), norm, axis=1)
    distances[~fooled] = np.inf
    made = sum(part["passes"] for part in parts) / len(x)
    seconds = float(sum(part["seconds"] for part in parts))
    return Found(step, distances, *made.tolist(), seconds), x_adv


def _of_batch(attack, wrapper, x, y, first):
    """What an attack makes of images from number `first`, as arrays."""
    counting = attack.with_views((*attack.views, passes.Passes()))
    network = counting.seen(wrapper).wrapper
    # A run looks first whether there is a gradient to follow.
    before = passes.count(network)
    slope_at(counting, wrapper, x, y)
    look = passes.count(network) - before
    before, started = passes.count(network), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlindAttackWarning)
        result = run_attack(
            *(counting, wrapper, x, y),
            batch_size=len(x),
            verbose=0,
            first=first,
        )
    return {
        "x_adv": result.x_adv,
        "fooled": result.success & (wrapper.predict(result.x_adv, len(x)) != y),
        "passes": passes.count(network) - before - look,
        "seconds": np.array(time.perf_counter() - started),
    }
