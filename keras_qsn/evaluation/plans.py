"""Which attacks an evaluation runs: the named plans, and the user's own.

A named plan is a function of what is known of the model and of the norm, so
that none of its attacks fails on a model, and none that cannot work is run.
"""

import typing

import numpy as np

from keras_qsn import attacks
from keras_qsn.evaluation.result import Step

NAMES = ("quick", "standard", "full")


class _Queries(typing.NamedTuple):
    """Effort of the attacks that see answers only.

    `square` queries and `restarts` of Square, `spsa` steps and samples where
    there is no image for it, `steps` of HopSkipJump on `images` images.
    """

    square: int
    restarts: int
    spsa: tuple
    steps: int
    images: int | None


_QUERIES = {
    "quick": _Queries(200, 1, (10, 20), 0, None),
    "standard": _Queries(1000, 1, (20, 50), 10, 50),
    "full": _Queries(5000, 5, (50, 100), 40, 100),
}
# Of two classes there is no third logit to divide by: DLR is the margin.
_DLR = {True: "APGD-DLR", False: "APGD-margin"}
_NB_ITER = {"quick": 20, "standard": 40, "full": 100}
_CUBE_RESTARTS = {"quick": 3, "standard": 10, "full": 50}
# Steepness of the soft surrogates: from one that sees the whole range of
# pixels to one that sees a tenth of it.
_STEEPNESS = {
    "quick": (5.0,),
    "standard": (1.0, 2.0, 5.0, 10.0, 20.0),
    "full": (1.0, 2.0, 5.0, 10.0, 20.0),
}


def named(plan, threat, facts, sources):
    """The steps of a named plan.

    Args:
        plan: One of `NAMES`.
        threat: The `ThreatModel`.
        facts: The `ModelFacts`.
        sources: `{name: model}`, models to transfer examples from.

    Returns:
        A list of `Step`: cheap attacks first, since each one spares those
        after it the images it breaks.
    """
    return [
        *_white_box(plan, threat, facts),
        *_transfer(plan, threat, sources),
        *(_adaptive(plan, threat, facts) if facts.quantized else []),
        *_queries(plan, threat, facts),
    ]


def check_name(plan):
    """Refuse the name of a plan that there is not.

    Raises:
        ValueError: If there is no such plan.
    """
    if plan not in NAMES:
        raise ValueError(
            f"`plan` must be one of {', '.join(NAMES)}, or a list of attacks. "
            f"Received: plan={plan!r}"
        )


def given(plan, threat):
    """The steps of the user's own list of steps or attacks."""
    if not isinstance(plan, (list, tuple)):
        raise TypeError(
            "`plan` must be a name or a list of attacks. "
            f"Received: {plan!r}. Give `[attack]` for a single one."
        )
    steps = []
    for item in plan:
        if isinstance(item, attacks.Attack):
            item = _step(repr(item), item)
        if not isinstance(item, Step):
            raise TypeError(
                "A plan must hold attacks or `Step`s. "
                f"Received: {item!r} of type {type(item).__name__}"
            )
        steps.append(item)
    names = [step.name for step in steps]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "A plan must hold at least one step, each of another name. "
            f"Received: {names}"
        )
    for step in steps:
        if not threat.has_range(step.attack):
            raise ValueError(
                "All attacks must have the range of the images, "
                f"[{threat.clip_min}, {threat.clip_max}]. Received: "
                f"{step.name} with [{step.attack.clip_min}, "
                f"{step.attack.clip_max}]. Give it as `clip_min` and "
                "`clip_max`, or as `value_range` of the evaluation."
            )
        _check_radius(step, threat)
    return steps


def _check_radius(step, threat):
    """Refuse a search for images that do not count."""
    attack = step.attack
    if attack.norm == threat.norm and (attack.eps or 0) > threat.eps:
        raise ValueError(
            "No attack may have a larger radius than the evaluation, "
            f"eps={threat.eps:g}: what it finds outside of that is not "
            f"counted. Received: {step.name} with eps={attack.eps:g}."
        )


def _white_box(plan, threat, facts):
    fgsm = _step("FGSM", threat.attack(attacks.FastGradientMethod))
    if facts.gradient_cut:
        # Blind, as all that follow a gradient are: one shows it.
        return [fgsm]
    steps = {"quick": _quick, "standard": _standard, "full": _full}[plan]
    return [fgsm, *steps(threat, facts)]


def _quick(threat, facts):
    return [
        _pgd("PGD-20", threat, 20),
        _apgd(_DLR[facts.num_classes > 2] + "-20", threat, "dlr", 20),
    ]


def _standard(threat, facts):
    return [
        _pgd("PGD-100", threat, 100, 2),
        _apgd("APGD-CE", threat, "ce"),
        _apgd(_DLR[facts.num_classes > 2], threat, "dlr"),
        _fab(threat, 20, 3),
    ]


def _full(threat, facts):
    pgd = _pgd("PGD-100", threat, 100, 10)
    if facts.is_image:
        return [pgd, _step("AutoAttack", threat.attack(attacks.AutoAttack))]
    # Its parts but for the squares; other queries are there in any case.
    return [
        pgd,
        _apgd("APGD-CE", threat, "ce"),
        _apgd("APGD-T", threat, "targeted-dlr"),
        _fab(threat, 100, 9),
    ]


def _adaptive(plan, threat, facts):
    nb_iter = _NB_ITER[plan]
    steps = []
    if facts.opened and threat.norm == np.inf:
        cube = threat.attack(
            attacks.CubeAttack,
            nb_iter=nb_iter,
            nb_restarts=_CUBE_RESTARTS[plan],
        )
        steps.append(_step("cube", cube))
    elif facts.opened:
        flips = threat.attack(attacks.LevelFlipAttack)
        steps.append(_step("level flips", flips))
    if facts.gradient_cut:
        # A surrogate mends the quantizer's gradient, and no other.
        return steps
    descent = threat.attack(
        attacks.ProjectedGradientDescent, nb_iter=nb_iter, early_stop=True
    )
    annealed = threat.attack(
        attacks.AnnealedBPDA, nb_iter=nb_iter, early_stop=True
    )
    return [
        *steps,
        _step("BPDA", attacks.BPDA(descent)),
        *(
            _step(f"soft surrogate, z={z:g}", attacks.BPDA(descent, z))
            for z in _STEEPNESS[plan]
        ),
        _step("annealed surrogate", annealed),
    ]


def _transfer(plan, threat, sources):
    kinds = {"PGD": attacks.ProjectedGradientDescent}
    if plan != "quick":
        kinds = {
            "FGSM": attacks.FastGradientMethod,
            **kinds,
            "MIM": attacks.MomentumIterativeMethod,
        }
    steps = []
    for source, model in (sources or {}).items():
        for name, kind in kinds.items():
            count = {} if name == "FGSM" else {"nb_iter": _NB_ITER[plan]}
            attack = threat.attack(kind, **count)
            transfer = attacks.TransferAttack(attack, model)
            steps.append(_step(f"{name} from {source}", transfer))
    return steps


def _queries(plan, threat, facts):
    if facts.gradient_cut:
        # All that is left to attack with: one plan's effort more.
        plan = NAMES[min(NAMES.index(plan) + 1, len(NAMES) - 1)]
    effort = _QUERIES[plan]
    steps, jumps, images = [], effort.steps, effort.images
    if facts.is_image:
        square = threat.attack(
            attacks.SquareAttack,
            nb_queries=effort.square,
            nb_restarts=effort.restarts,
        )
        steps.append(_step(f"Square-{effort.square}", square))
    elif threat.norm == np.inf:
        steps.append(_spsa(threat, facts, *effort.spsa))
    else:
        jumps = max(jumps, 2)
    if jumps:
        jump = threat.attack(
            attacks.HopSkipJumpAttack, num_iterations=jumps, max_num_evals=1000
        )
        steps.append(_step(f"HopSkipJump-{jumps}", jump, images))
    return steps


def _spsa(threat, facts, nb_iter, samples):
    # Far enough to cross a threshold, where one hides the slope.
    flat = facts.quantized or facts.gradient_cut
    spsa = threat.attack(
        attacks.SPSA,
        nb_iter=nb_iter,
        spsa_samples=samples,
        learning_rate=2.5 * threat.eps / nb_iter,
        delta=threat.eps if flat else threat.eps / 4,
    )
    return _step(f"SPSA-{nb_iter}", spsa)


def _pgd(name, threat, nb_iter, nb_restarts=1):
    return _step(
        name,
        threat.attack(
            attacks.ProjectedGradientDescent,
            nb_iter=nb_iter,
            nb_restarts=nb_restarts,
            early_stop=True,
        ),
    )


def _apgd(name, threat, loss, nb_iter=100):
    kind = attacks.AutoProjectedGradientDescent
    return _step(name, threat.attack(kind, loss=loss, nb_iter=nb_iter))


def _fab(threat, nb_iter, nb_targets):
    fab = threat.attack(
        attacks.FastAdaptiveBoundary,
        nb_iter=nb_iter,
        nb_targets=nb_targets,
        early_stop=True,
    )
    return _step("FAB-T", fab)


def _step(name, attack, max_images=None):
    return Step(name, attack.threat, attack, max_images)
