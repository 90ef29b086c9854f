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
from keras_qsn.evaluation.outcomes import Outcome


class Work(typing.NamedTuple):
    """What all units of an evaluation share."""

    judge: object
    steps: list
    threat: object


def run(evaluation, work, folder, progress, executor):
    """The outcome of each step, run on what those before it left.

    What is finished comes out of the `Folder`.
    """
    x, y, robust = evaluation.x, evaluation.y, evaluation.robust
    numbers = np.flatnonzero(robust)
    flow = Flow(*(work.steps, numbers, len(x)), work.judge.batch_size, folder)
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
        hit, *broken, hurt, x_hurt, right = future.result()
        part = Outcome(
            *(stage.step, tried, tried[hit], *broken),
            *(tried[hurt], x_hurt, right),
        )
        flow.take(stage, first, part)
        if not stage.complete:
            stage.keep(first)
        if stage.number == len(outcomes):
            progress(stage.step.name, *stage.progress)
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
            given = x[tried], y[tried], flow.least[tried]
            return name, attack_batch, shared, *name, *given

        work_off(pool, unit, take)
    return outcomes


def attack_batch(work, number, first, x, y, least):
    """Run a step on a batch of images.

    Args:
        work: `Work`.
        number: Place of the step in the plan.
        first: Place of the first image among those that the step tries.
        x: The images.
        y: Their classes.
        least: Of a random model, the share of right answers at the worst
            image found so far.

    Returns:
        Which images it broke, boolean; the adversarial ones, and the class
        of each; of how many images it saw no gradient; the seconds it took;
        which images it hurt, as `Outcome` has it, boolean; what it made of
        those; and the share of right answers there.
    """
    started = time.perf_counter()
    judge, threat = work.judge, work.threat
    with warnings.catch_warnings():
        # Blind images are counted in the outcome, and checked.
        warnings.simplefilter("ignore", BlindAttackWarning)
        result = run_attack(
            work.steps[number].attack,
            judge.wrapper,
            x,
            y,
            batch_size=judge.batch_size,
            verbose=0,
            first=first,
        )
    x_adv = result.x_adv
    inside = norms.inside(x, x_adv, threat.eps, threat.norm)
    # Of the images returned: of a batch of another size, a lead of one
    # rounding error may be gone.
    right = judge.right(x_adv, y, (number, first))
    hit = inside & (right < 0.5)
    hurt = np.zeros_like(hit)
    if judge.is_random:
        # One answer says nothing; how many are right does.
        hurt = inside & ~hit & (right < least)
    else:
        hit &= result.success
    became = judge.others(x_adv[hit], y[hit], (number, first))
    blind, seconds = int(result.blind.sum()), time.perf_counter() - started
    broken = hit, x_adv[hit], became, blind, seconds
    return *broken, hurt, x_adv[hurt], right[hurt]
