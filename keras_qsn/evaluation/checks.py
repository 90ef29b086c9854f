"""Whether the attacks can be believed: the checks of masked gradients.

A check that fails says that the accuracy measured is not the truth, not that
the model is bad.
"""

import dataclasses
import typing

from keras_qsn.evaluation import audits
from keras_qsn.evaluation import preflight
from keras_qsn.evaluation import slopes
from keras_qsn.evaluation import trials
from keras_qsn.evaluation.outcome import Check

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


class Kind(typing.NamedTuple):
    """A check to be made.

    Args:
        key: Its name for programs, which never changes.
        name: Its name for people.
        function: From a `Probe` to status, value and meaning.
        light: Whether it costs no more than a few passes over the images.
        needs_images: Whether there must be one that the model gets right.
    """

    key: str
    name: str
    function: typing.Callable
    light: bool = False
    needs_images: bool = True


def check_mode(checks):
    """Refuse a choice of checks that there is not.

    Raises:
        ValueError: If there is no such choice.
    """
    if checks not in MODES:
        raise ValueError(
            '`checks` must be "all", "light" (those that cost no more than a '
            "few passes over the images) or None. "
            f"Received: checks={checks!r}"
        )


def check(probe, tell=None):
    """Run the checks of the probe's mode.

    Args:
        probe: The `Probe`; it keeps what they break, curves and traces.
        tell: Optional function called with a name, the number of checks
            done, and their count.

    Returns:
        A list of `Check`.
    """
    chosen = [
        (number, kind)
        for number, kind in enumerate(_CHECKS, 1)
        if probe.mode == "all" or kind.light
    ]
    done = []
    for number, kind in chosen:
        probe.used.clear()
        if len(probe.numbers) or not kind.needs_images:
            found = kind.function(probe)
        else:
            found = "none", "no image", "The model gets no image right."
        used = ", ".join(probe.used)
        done.append(Check(number, kind.key, kind.name, *found, used))
        if tell is not None:
            tell("checks", len(done), len(chosen))
    return done


_CHECKS = [
    Kind("eps-zero", "nothing changes at eps 0", trials.eps_zero, light=True),
    Kind("ladder", "more steps break more", trials.ladder),
    Kind("eps-sweep", "larger eps breaks more", trials.eps_sweep),
    Kind("unbounded", "no limit breaks everything", trials.unbounded),
    Kind("loss-curve", "attack has converged", slopes.loss_curve),
    Kind("restarts", "restarts bring nothing more", trials.restarts),
    Kind(
        "gradient-health",
        "gradients are there",
        slopes.gradient_health,
        light=True,
    ),
    Kind(
        "finite-difference",
        "gradients point the right way",
        slopes.finite_difference,
    ),
    Kind("random-search", "chance finds nothing", trials.random_search),
    Kind("queries", "queries find nothing more", audits.queries, light=True),
    Kind(
        "surrogates",
        "surrogate gradients find nothing more",
        audits.surrogates,
        light=True,
    ),
    Kind(
        "transfer", "transfer finds nothing more", audits.transfer, light=True
    ),
    Kind("cube", "the cube attack misses nothing", trials.cube),
    Kind(
        "soft-and-hard",
        "soft and hard levels agree",
        audits.soft_and_hard,
        light=True,
    ),
    Kind(
        "logit-scale",
        "logits are of moderate size",
        audits.logit_scale,
        light=True,
    ),
    Kind(
        "determinism",
        "the model is deterministic",
        audits.determinism,
        light=True,
    ),
    Kind(
        "silent-success",
        "adversarial images are what they claim",
        audits.silent_success,
        light=True,
    ),
    Kind(
        "sandwich",
        "no certified image is broken",
        audits.sandwich,
        light=True,
        needs_images=False,
    ),
    Kind(
        "self-test",
        "the attack sees through a known mask",
        trials.self_test,
    ),
    Kind("active-test", "planted examples are found", trials.active_test),
    Kind("eight-bit", "examples survive 8 bits", audits.eight_bit, light=True),
    Kind(
        "above-chance",
        "the model does better than guessing",
        lambda probe: preflight.above_chance(probe.evaluation, probe.facts),
        light=True,
        needs_images=False,
    ),
    Kind(
        "class-balance",
        "the images are of all classes",
        lambda probe: preflight.class_balance(probe.evaluation, probe.facts),
        light=True,
        needs_images=False,
    ),
    Kind(
        "gradient-reaches",
        "the gradient reaches the image",
        lambda probe: preflight.gradient_reaches(probe.facts),
        light=True,
        needs_images=False,
    ),
]
