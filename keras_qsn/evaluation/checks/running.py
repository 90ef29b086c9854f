"""Run the checks: try what would break images if the attacks were too weak.

A defence that hides its gradient looks robust to attacks that follow it. Each
check is a small experiment that comes out wrong in that case: Carlini et al.
(2019) list most of them. They try few images, and vary one thing at a time:
the radius, the steps, the starts, the attacker, or no gradients.

A check that fails says that the accuracy measured is not the truth, not that
the model is bad.
"""

import dataclasses

# Each of these registers its checks.
from keras_qsn.evaluation.checks import audits as audits
from keras_qsn.evaluation.checks import conditions as conditions
from keras_qsn.evaluation.checks import registry
from keras_qsn.evaluation.checks import slopes as slopes
from keras_qsn.evaluation.checks import trials as trials

MODES = ("all", "light", None)


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much work the checks may do.

    Args:
        images: Largest number of images tried.
        nb_iter: Steps of the longer PGD.
        restarts: Of PGD.
        samples: Random points for each image, of each of two kinds.
    """

    images: int
    nb_iter: int
    restarts: int
    samples: int


BUDGETS = {
    "quick": Budget(images=24, nb_iter=40, restarts=4, samples=100),
    "standard": Budget(images=64, nb_iter=100, restarts=8, samples=1000),
    "full": Budget(images=100, nb_iter=100, restarts=20, samples=10000),
}


def check_mode(checks):
    """Refuse a choice of checks that there is not."""
    if checks not in MODES:
        raise ValueError(
            '`checks` must be "all", "light" (those that cost no more than a '
            "few passes over the images) or None. "
            f"Received: checks={checks!r}"
        )


def run_checks(probe, progress):
    """Run the checks of the probe's mode, by number; returns each `Check`.

    The probe keeps what they break, curves and traces.
    """
    chosen = [
        entry
        for entry in sorted(registry.ENTRIES.values(), key=lambda e: e.number)
        if probe.mode == "all" or entry.light
    ]
    done = []
    for entry in chosen:
        done.append(entry.run(probe))
        progress("checks", len(done), len(chosen))
    return done
