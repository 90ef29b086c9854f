"""Which attacks an evaluation runs: the named plans, and the user's own.

A named plan is a function of what is known of the model and of the norm, so
that none of its attacks fails on a model, and none that cannot work is run.
"""

import dataclasses
import functools
import typing

import numpy as np

from keras_qsn import attacks
from keras_qsn._core.config import Configured
from keras_qsn.evaluation import sparse
from keras_qsn.evaluation import through
from keras_qsn.evaluation.outcomes import Step
from keras_qsn.evaluation.sight import AS_IT_IS

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
# Steps and restarts.
_PGD = {"quick": (20, 1), "standard": (100, 2), "full": (100, 10)}


def named(plan, threat, facts, sources, sight=AS_IT_IS):
    """The steps of a named plan.

    White-box attacks come first, then transfer, adaptive ones and queries;
    among those, the ones that break most in a second, since each spares those
    after it the images it breaks. Alone and once built, with the seed 0 in
    L-infinity, they broke per second of one processor, of the first 50 test
    digits on three small networks (undefended at eps 0.05, quantized to 2
    hard levels at 0.25 and to 4 soft ones at 0.1): FGSM 400 to 700 images,
    APGD 31 to 86, PGD-100 20 to 49, FAB-T 16 to 37; surrogates 54 to 173,
    cube 12 to 20; Square-1000 9 to 25, HopSkipJump-10 2 to 6.

    Args:
        plan: Its name.
        threat: The `ThreatModel`.
        facts: The `ModelFacts`.
        sources: `{name: model}`, models to transfer from.
        sight: The `Sight`. Defaults to one of the model as it is.
    """
    if threat.norm in (1, 0):
        steps = sparse.named(plan, threat, facts, sources, sight)
    else:
        steps = _of_gradients_and_scores(plan, threat, facts, sources, sight)
    return [
        dataclasses.replace(step, attack=sight.look(step.attack))
        for step in steps
    ]


def _of_gradients_and_scores(plan, threat, facts, sources, sight):
    """The steps in L-infinity and L2."""
    return [
        *_white_box(plan, threat, facts),
        *through.detectors(threat, facts, sight, *_PGD[plan]),
        *_transfer(plan, threat, sources),
        *through.layers(threat, facts, sight, *_PGD[plan]),
        *through.quantizers(plan, threat, facts, sight),
        *_queries(plan, threat, facts, sight),
    ]


def check_name(plan):
    """Refuse the name of a plan that there is not."""
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
    for item in plan:
        if not isinstance(item, (attacks.Attack, Step)):
            raise TypeError(
                "A plan must hold attacks or `Step`s. "
                f"Received: {item!r} of type {type(item).__name__}"
            )
    names = names_of([item for item in plan if not isinstance(item, Step)])
    steps = [
        item if isinstance(item, Step) else Step(next(names), item.threat, item)
        for item in plan
    ]
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


def names_of(given):
    """Of attacks: their classes; with what tells those of one class apart."""
    for attack in given:
        name, own = type(attack).__name__, attack.get_config()
        alike = [a for a in given if type(a) is type(attack)]
        differ = [
            f"{key}={_value(attack, key, own[key])}"
            for key in own
            if any(a.get_config().get(key) != own[key] for a in alike)
        ]
        yield f"{name}({', '.join(differ)})" if differ else name


def _value(attack, key, plain):
    value = getattr(attack, key, None)
    return repr(value) if isinstance(value, Configured) else plain


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
    if facts.answers_only:
        return []
    step = threat.step
    fgsm = step("FGSM", attacks.FastGradientMethod)
    if facts.gradient_cut:
        # Blind, as all that follow a gradient are: one shows it.
        return [fgsm]
    # Just across the boundary, half of a random model's answers are right.
    early = {"early_stop": not facts.random}
    apgd = functools.partial(
        step, kind=attacks.AutoProjectedGradientDescent, **early
    )
    fab = functools.partial(
        step, "FAB-T", attacks.FastAdaptiveBoundary, early_stop=True
    )
    # Of two classes there is no third logit to divide by: DLR is the margin.
    dlr = "APGD-DLR" if facts.num_classes > 2 else "APGD-margin"
    nb_iter, restarts = _PGD[plan]
    pgd = step(
        f"PGD-{nb_iter}",
        attacks.ProjectedGradientDescent,
        nb_iter=nb_iter,
        nb_restarts=restarts,
        **early,
    )
    if plan == "quick":
        return [fgsm, pgd, apgd(f"{dlr}-20", loss="dlr", nb_iter=20)]
    first = [fgsm, apgd("APGD-CE", loss="ce", nb_iter=100)]
    if plan == "standard" or facts.random:
        first.append(apgd(dlr, loss="dlr", nb_iter=100))
        boundary = [] if facts.random else [fab(nb_iter=20, nb_targets=3)]
        return [*first, pgd, *boundary]
    if facts.is_image:
        return [fgsm, pgd, step("AutoAttack", attacks.AutoAttack)]
    # Its parts but for the squares; other queries are there in any case.
    targeted = apgd("APGD-T", loss="targeted-dlr", nb_iter=100)
    return [*first, pgd, targeted, fab(nb_iter=100, nb_targets=9)]


def _transfer(plan, threat, sources):
    kinds = {"PGD": attacks.ProjectedGradientDescent}
    if plan != "quick":
        kinds = {
            "FGSM": attacks.FastGradientMethod,
            **kinds,
            "MIM": attacks.MomentumIterativeMethod,
        }
    steps = []
    for source, model in sources.items():
        for name, kind in kinds.items():
            count = {} if name == "FGSM" else {"nb_iter": through.NB_ITER[plan]}
            transfer = attacks.TransferAttack(
                threat.attack(kind, **count), model
            )
            name = f"{name} from {source}"
            steps.append(Step(name, transfer.threat, transfer))
    return steps


def _queries(plan, threat, facts, sight):
    step = threat.step
    if facts.gradient_cut and not sight.unmasks:
        # All that is left to attack with: one plan's effort more.
        plan = NAMES[min(NAMES.index(plan) + 1, len(NAMES) - 1)]
    effort = _QUERIES[plan]
    steps, jumps = [], effort.steps
    if facts.is_image:
        steps.append(
            step(
                f"Square-{effort.square}",
                attacks.SquareAttack,
                nb_queries=effort.square,
                nb_restarts=effort.restarts,
            )
        )
    elif threat.norm == np.inf:
        nb_iter, samples = effort.spsa
        # Far enough to cross a threshold, where one hides the slope.
        flat = facts.quantized or facts.gradient_cut
        steps.append(
            step(
                f"SPSA-{nb_iter}",
                attacks.SPSA,
                nb_iter=nb_iter,
                spsa_samples=samples,
                learning_rate=2.5 * threat.eps / nb_iter,
                delta=threat.eps if flat else threat.eps / 4,
            )
        )
    else:
        jumps = max(jumps, 2)
    if jumps:
        steps.append(
            step(
                f"HopSkipJump-{jumps}",
                attacks.HopSkipJumpAttack,
                effort.images,
                num_iterations=jumps,
                max_num_evals=1000,
            )
        )
    return steps
