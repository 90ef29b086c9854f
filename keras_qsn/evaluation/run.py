"""The attacks of a plan, one after the other, on what is still unbroken."""

import time
import warnings

import numpy as np

from keras_qsn.attacks import BlindAttackWarning
from keras_qsn.attacks import norms
from keras_qsn.evaluation.result import Outcome
from keras_qsn.evaluation.store import keep_outcome
from keras_qsn.evaluation.store import kept_outcome


def run(evaluation, wrapper, steps, threat, folder, progress):
    """The outcome of each step, run on what those before it left.

    What is finished comes out of the `Folder`.
    """
    robust, outcomes = evaluation.robust, []
    for number, step in enumerate(steps):
        outcome = kept_outcome(folder, number, step)
        if outcome is None:
            tried = np.flatnonzero(robust)[: step.max_images]
            outcome = _attack(
                evaluation, wrapper, tried, step, threat, progress
            )
            keep_outcome(folder, number, outcome)
        robust[outcome.broken] = False
        outcomes.append(outcome)
        progress.line(f"{step.name}: {100 * robust.mean():.1f} % left")
    return outcomes


def _attack(evaluation, wrapper, tried, step, threat, progress):
    """Run a step on the images of these numbers."""
    started = time.perf_counter()
    x, y = evaluation.x[tried], evaluation.y[tried]
    batch_size = evaluation.settings["batch_size"]
    if not len(tried):
        return Outcome(step, tried, tried, x, y, 0, 0.0)
    with warnings.catch_warnings():
        # Blind images are counted in the outcome, and checked.
        warnings.simplefilter("ignore", BlindAttackWarning)
        result = step.attack.run(
            wrapper,
            x,
            y,
            batch_size=batch_size,
            progress=lambda _, done, total: progress(step.name, done, total),
        )
    inside = norms.inside(x, result.x_adv, threat.eps, threat.norm)
    # Of the images returned: of a batch of another size, a lead of one
    # rounding error may be gone.
    became = wrapper.predict(result.x_adv, batch_size)
    hit = result.success & inside & (became != y)
    return Outcome(
        step,
        tried,
        tried[hit],
        result.x_adv[hit],
        became[hit],
        int(result.blind.sum()),
        time.perf_counter() - started,
    )
