"""The attacks of a plan, one after the other, on what is still unbroken."""

import time
import warnings

import numpy as np

from keras_qsn.attacks import BlindAttackWarning
from keras_qsn.attacks import norms
from keras_qsn.evaluation.result import Outcome
from keras_qsn.evaluation.store import keep_outcome
from keras_qsn.evaluation.store import kept_outcome


def run(evaluation, judge, steps, threat, folder, progress):
    """The outcome of each step, run on what those before it left.

    What is finished comes out of the `Folder`.
    """
    robust, outcomes = evaluation.robust, []
    least = np.ones(len(robust))
    for number, step in enumerate(steps):
        outcome = kept_outcome(folder, number, step)
        if outcome is None:
            tried = np.flatnonzero(robust)[: step.max_images]
            outcome = _attack(
                evaluation, judge, tried, number, step, threat, progress, least
            )
            keep_outcome(folder, number, outcome)
        robust[outcome.broken] = False
        least[outcome.hurt] = outcome.right
        outcomes.append(outcome)
        progress.line(f"{step.name}: {100 * robust.mean():.1f} % left")
    return outcomes


def _attack(evaluation, judge, tried, number, step, threat, progress, least):
    """Run a step on the images of these numbers."""
    started = time.perf_counter()
    x, y = evaluation.x[tried], evaluation.y[tried]
    batch_size = evaluation.settings["batch_size"]
    if not len(tried):
        return Outcome(step, tried, tried, x, 0, 0.0)
    with warnings.catch_warnings():
        # Blind images are counted in the outcome, and checked.
        warnings.simplefilter("ignore", BlindAttackWarning)
        result = step.attack.run(
            judge.wrapper,
            x,
            y,
            batch_size=batch_size,
            progress=lambda _, done, total: progress(step.name, done, total),
        )
    inside = norms.inside(x, result.x_adv, threat.eps, threat.norm)
    # Of the images returned: of a batch of another size, a lead of one
    # rounding error may be gone.
    right = judge.right(result.x_adv, y, number)
    hit = inside & (right < 0.5)
    hurt = np.zeros_like(hit)
    if judge.is_random:
        # One answer says nothing; how many are right does.
        hurt = inside & ~hit & (right < least[tried])
    else:
        hit &= result.success
    return Outcome(
        step,
        tried,
        tried[hit],
        result.x_adv[hit],
        int(result.blind.sum()),
        time.perf_counter() - started,
        tried[hurt],
        result.x_adv[hurt],
        right[hurt],
    )
