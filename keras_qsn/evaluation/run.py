"""The attacks of a plan, one after the other, on what is still unbroken.

A unit of the work is one batch of one step. Its images, and the seeds that
they have, follow from what the steps before broke among all images: units are
the same wherever they run, and in whatever order they end.
"""

import time
import typing
import warnings

import numpy as np

from keras_qsn._core.pool import work_off
from keras_qsn.attacks import BlindAttackWarning
from keras_qsn.attacks import norms
from keras_qsn.attacks.running import run_attack
from keras_qsn.evaluation.flow import Flow
from keras_qsn.evaluation.result import Outcome


class Work(typing.NamedTuple):
    """What all units of an evaluation share."""

    wrapper: object
    steps: list
    threat: object
    batch_size: int


def run(evaluation, work, folder, progress, executor):
    """The outcome of each step, run on what those before it left.

    What is finished comes out of the `Folder`.
    """
    x, y, robust = evaluation.x, evaluation.y, evaluation.robust
    numbers = np.flatnonzero(robust)
    flow = Flow(work.steps, numbers, work.batch_size, folder)
    outcomes = []

    def end_steps():
        for stage in flow.stages[len(outcomes) :]:
            if not stage.complete:
                return
            outcome = stage.outcome(x[:0])
            stage.keep_whole(outcome)
            robust[outcome.broken] = False
            outcomes.append(outcome)
            left = 100 * robust.mean()
            progress.line(f"{stage.step.name}: {left:.1f} % left")

    def take(name, future):
        stage, first, tried = running.pop(name)
        hit, *rest = future.result()
        part = Outcome(stage.step, tried, tried[hit], *rest)
        flow.take(stage, first, part)
        if stage.number == len(outcomes):
            progress(stage.step.name, *stage.progress)
        if not stage.complete:
            stage.keep(first)
        end_steps()

    running = {}
    with executor as pool:
        shared = pool.share(work)

        def unit():
            batch = flow.batch(ahead=pool.slots > 1)
            # What was kept may have ended steps.
            end_steps()
            if batch is None:
                return None
            stage, first, tried = batch
            name = stage.number, first
            running[name] = batch
            return name, attack_batch, shared, *name, x[tried], y[tried]

        work_off(pool, unit, take)
    return outcomes


def attack_batch(work, number, first, x, y):
    """Run a step on a batch of images.

    Args:
        work: `Work`.
        number: Place of the step in the plan.
        first: Place of the first image among those that the step tries.
        x: The images.
        y: Their classes.

    Returns:
        Which images it broke, boolean; the adversarial ones, and the class
        of each; of how many images it saw no gradient; the seconds it took.
    """
    started = time.perf_counter()
    wrapper, threat = work.wrapper, work.threat
    with warnings.catch_warnings():
        # Blind images are counted in the outcome, and checked.
        warnings.simplefilter("ignore", BlindAttackWarning)
        result = run_attack(
            work.steps[number].attack,
            wrapper,
            x,
            y,
            batch_size=work.batch_size,
            verbose=0,
            first=first,
        )
    inside = norms.inside(x, result.x_adv, threat.eps, threat.norm)
    # Of the images returned: of a batch of another size, a lead of one
    # rounding error may be gone.
    became = wrapper.predict(result.x_adv, work.batch_size)
    hit = result.success & inside & (became != y)
    seconds = time.perf_counter() - started
    blind = int(result.blind.sum())
    return hit, result.x_adv[hit], became[hit], blind, seconds
