"""Whether the attacks can be believed: the checks of masked gradients.

A check that fails says that the accuracy measured is not the truth, not that
the model is bad.
"""

import dataclasses

import numpy as np

from keras_qsn.evaluation import audits
from keras_qsn.evaluation import slopes
from keras_qsn.evaluation import trials
from keras_qsn.evaluation.outcome import Check
from keras_qsn.evaluation.outcome import Outcome
from keras_qsn.evaluation.outcome import Step
from keras_qsn.evaluation.probe import Probe


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


def check(evaluation, wrapper, threat, budget, certified=None, tell=None):
    """Run all checks.

    Args:
        evaluation: The `Evaluation` of the attacks.
        wrapper: The model's `KerasModelWrapper`.
        threat: The `ThreatModel`.
        budget: A `Budget`.
        certified: Optional booleans: the images proved robust.
        tell: Optional function called with a name, the number of checks
            done, and their count.

    Returns:
        A list of `Check`; an `Outcome` of the images that checks broke and
        attacks did not; accuracy curves; the loss along an attack.
    """
    probe = Probe(wrapper, evaluation, threat, budget)
    done = []
    for number, (name, function) in enumerate(_CHECKS, 1):
        if function is audits.sandwich:
            found = audits.sandwich(probe, certified)
        elif len(probe.numbers):
            found = function(probe)
        else:
            found = "none", "no image", "The model gets no image right."
        done.append(Check(number, name, *found))
        if tell is not None:
            tell("checks", number, len(_CHECKS))
    broken = np.array(
        sorted(n for n in probe.found if evaluation.robust[n]), "int64"
    )
    step = Step("checks", "adaptive", None)
    outcome = Outcome(
        step,
        np.intersect1d(probe.numbers, np.flatnonzero(evaluation.robust)),
        broken,
        np.array([probe.found[n] for n in broken]).reshape(
            -1, *evaluation.x.shape[1:]
        ),
        0,
        0.0,
    )
    return done, outcome, probe.curve, probe.trace


_CHECKS = [
    ("nothing changes at eps 0", trials.eps_zero),
    ("more steps break more", trials.ladder),
    ("larger eps breaks more", trials.eps_sweep),
    ("no limit breaks everything", trials.unbounded),
    ("attack has converged", slopes.loss_curve),
    ("restarts bring nothing more", trials.restarts),
    ("gradients are there", slopes.gradient_health),
    ("gradients point the right way", slopes.finite_difference),
    ("chance finds nothing", trials.random_search),
    ("queries find nothing more", audits.queries),
    ("surrogate gradients find nothing more", audits.surrogates),
    ("transfer finds nothing more", audits.transfer),
    ("the cube attack misses nothing", trials.cube),
    ("soft and hard levels agree", audits.soft_and_hard),
    ("logits are of moderate size", audits.logit_scale),
    ("the model is deterministic", audits.determinism),
    ("adversarial images are what they claim", audits.silent_success),
    ("no certified image is broken", audits.sandwich),
    ("the attack sees through a known mask", trials.self_test),
    ("planted examples are found", trials.active_test),
    ("examples survive 8 bits", audits.eight_bit),
]
