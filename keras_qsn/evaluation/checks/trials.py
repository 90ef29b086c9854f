"""Checks that attack again: other radii, steps, starts, and by chance."""

import numpy as np

from keras_qsn import attacks
from keras_qsn._core.shares import percent
from keras_qsn.evaluation.checks import active
from keras_qsn.evaluation.checks import known_mask
from keras_qsn.evaluation.checks.random_points import random_point
from keras_qsn.evaluation.checks.registry import CERTAIN
from keras_qsn.evaluation.checks.registry import GRADIENT
from keras_qsn.evaluation.checks.registry import IMAGES
from keras_qsn.evaluation.checks.registry import QUANTIZER
from keras_qsn.evaluation.checks.registry import Need
from keras_qsn.evaluation.checks.registry import check
from keras_qsn.evaluation.checks.wording import HALF_POINT
from keras_qsn.evaluation.checks.wording import graded
from keras_qsn.evaluation.checks.wording import listed

_L_INFINITY = Need(
    lambda probe: probe.threat.norm == np.inf,
    "not applicable",
    "The self-test is for L-infinity.",
)
_BALL = Need(
    lambda probe: probe.threat.norm != 0,
    "not applicable",
    "In L0 the attack seeks the fewest pixels, from the image on: it climbs in "
    "no ball, and has no restarts.",
)
_PLANTED = Need(
    lambda probe: probe.threat.norm in (np.inf, 2),
    "not applicable",
    "Examples are planted for PGD, which has no steps in L1 or L0.",
)
_DRAWS = 20
_CUBE = Need(
    lambda probe: probe.opened is not None and probe.threat.norm == np.inf,
    "not applicable",
    "The cube attack needs L-infinity, and a quantizer that sees single "
    "pixels.",
)


@check(1, "eps-zero", "nothing changes at eps 0", light=True)
def eps_zero(probe):
    attack = probe.threat.at(0.0).attack(attacks.FastGradientMethod)
    left = probe.survives(attack).mean()
    return (
        "pass" if left >= 1 - probe.slack else "fail",
        f"{percent(left)} of correct images left at eps 0",
        "Without a perturbation nothing may change; else the attack or the "
        "model is not what it seems (wrong labels).",
    )


@check(
    2,
    "ladder",
    "more steps break more",
    needs=(IMAGES, _BALL),
    own_gradient=True,
)
def ladder(probe):
    fgsm = probe.survives(probe.threat.attack(attacks.FastGradientMethod))
    short = probe.survives(probe.descent(10))
    long = probe.survives(probe.descent(probe.budget.nb_iter))
    rungs = [fgsm.mean(), short.mean(), long.mean()]
    worst = max(b - a for a, b in zip(rungs, rungs[1:]))
    return (
        graded(worst - probe.slack, len(fgsm)),
        f"FGSM {percent(rungs[0])}, PGD-10 {percent(rungs[1])}, "
        f"PGD-{probe.budget.nb_iter} {percent(rungs[2])} left",
        "More steps must not break fewer images; where they do, gradients "
        "mislead, and accuracy under gradient attacks means little.",
    )


@check(3, "eps-sweep", "larger eps breaks more", needs=(IMAGES, GRADIENT))
def eps_sweep(probe):
    t = probe.threat
    # At half the range every image can be turned into the same grey one.
    grey = t.grey(probe.x.shape[1:])
    radii = {0.0, t.eps / 4, t.eps / 2, t.eps, min(2 * t.eps, grey)}
    if t.norm == 0:
        radii = {float(round(eps)) for eps in radii}
    radii = sorted(radii)
    radii = [*radii, *([grey] if grey > radii[-1] else [])]
    left = [
        probe.survives(probe.strongest(eps), eps=eps).mean() for eps in radii
    ]
    share = float(probe.evaluation.clean_accuracy)
    probe.curve["strongest"] = [
        (float(eps), share * float(a)) for eps, a in zip(radii, left)
    ]
    probe.curve["FGSM"] = [
        (
            float(eps),
            share
            * float(
                probe.survives(
                    t.at(eps).attack(attacks.FastGradientMethod)
                ).mean()
            ),
        )
        for eps in radii
    ]
    rise = max(b - a for a, b in zip(left, left[1:]))
    status = graded(rise - probe.slack, len(probe.x))
    if left[-1] - probe.slack > 1 / probe.facts.num_classes + 0.02:
        status = "fail"
    return (
        status,
        ", ".join(f"eps {e:.3g}: {percent(a)}" for e, a in zip(radii, left)),
        "Accuracy must fall with eps, to that of guessing where every image "
        "can be turned grey; an attack that cannot do that is broken.",
    )


@check(4, "unbounded", "no limit breaks everything", needs=(IMAGES, GRADIENT))
def unbounded(probe):
    eps = probe.threat.diameter(probe.x.shape[1:])
    left = probe.survives(probe.strongest(eps), eps=eps).mean()
    return (
        "pass" if left <= probe.slack else "fail",
        f"{percent(left)} left",
        "An attack that may change everything must break everything; else it "
        "is the attack that is weak.",
    )


@check(
    6,
    "restarts",
    "restarts bring nothing more",
    needs=(IMAGES, _BALL),
    own_gradient=True,
)
def restarts(probe):
    most = probe.budget.restarts
    counts = [1, most // 2, most]
    still, left = np.ones(len(probe.x), bool), []
    for count in counts:
        # More restarts begin with the same ones: what these broke is broken.
        attack = probe.descent(10, nb_restarts=count)
        rows = np.flatnonzero(still)
        if len(rows):
            still[rows] = probe.survives(attack, rows)
        left.append(still.mean())
    return (
        "pass" if left[1] - left[2] <= HALF_POINT + probe.slack else "warn",
        ", ".join(f"{n}: {percent(a)} left" for n, a in zip(counts, left)),
        "Twice the restarts must bring nothing; else take more restarts.",
    )


@check(9, "random-search", "chance finds nothing")
def random_search(probe):
    rng = np.random.default_rng(probe.threat.seed)
    numbers = probe.numbers[probe.robust]
    x = probe.evaluation.x[numbers]
    broken = np.zeros(len(numbers), bool)
    samples = probe.budget.samples
    if probe.judge.is_random:
        # Each is judged by many draws.
        samples = max(samples // _DRAWS, 1)
    count = 2 * samples if len(numbers) else 0
    # Several points of each image in one batch.
    together = max(probe.batch_size // max(len(numbers), 1), 1)
    for first in range(0, count, together):
        turns = range(first, min(first + together, count))
        tried = np.stack(
            [random_point(rng, probe.threat, x, i % 2 == 1) for i in turns]
        )
        wrong = probe.fooled(
            tried.reshape(-1, *tried.shape[2:]),
            np.tile(probe.evaluation.y[numbers], len(turns)),
        )
        wrong = wrong.reshape(len(turns), -1)
        for points_tried, fooled in zip(tried, wrong):
            probe.keep("queries", numbers, points_tried, fooled & ~broken)
            broken |= fooled
    probe.note("random points")
    return (
        "fail" if broken.any() else "pass",
        f"{broken.sum()} of {len(numbers)} images called robust broken by "
        f"{2 * samples} random points each",
        "Chance must not find what attacks missed; else they are blind.",
    )


@check(
    13,
    "cube",
    "the cube attack misses nothing",
    needs=(IMAGES, QUANTIZER, _CUBE),
)
def cube(probe):
    numbers = [
        n
        for outcome in probe.evaluation.outcomes
        if not isinstance(outcome.step.attack, attacks.CubeAttack)
        for n in outcome.broken
    ]
    rows = np.flatnonzero(np.isin(probe.numbers, numbers))
    missed = np.zeros(0, int)
    if len(rows):
        attack = probe.threat.attack(attacks.CubeAttack, nb_restarts=10)
        missed = probe.numbers[rows][probe.survives(attack, rows)]
    return (
        "warn" if len(missed) else "pass",
        f"{len(missed)} of {len(rows)} images that others broke are missed by "
        f"the cube attack{listed(missed)}",
        "It searches all that the quantizer lets through, so it should miss "
        "none; what it misses, it may miss elsewhere.",
    )


@check(
    19,
    "self-test",
    "the attack sees through a known mask",
    needs=(IMAGES, GRADIENT, _L_INFINITY, CERTAIN),
)
def self_test(probe):
    plain, masked = known_mask.broken(probe)
    gap = float(plain.mean() - masked.mean())
    return (
        "pass" if gap <= 0.05 else "fail",
        f"{percent(1 - plain.mean())} left without a quantizer, "
        f"{percent(1 - masked.mean())} behind one of 33 hard levels",
        "A fine quantizer protects nothing, and the adaptive attack must see "
        "through it.",
    )


@check(
    20,
    "active-test",
    "planted examples are found",
    needs=(IMAGES, GRADIENT, _PLANTED, CERTAIN),
)
def active_test(probe):
    rate, count = active.pass_rate(probe)
    if not count:
        return (
            "none",
            "not applicable",
            "No planted example could be made: the layer before the logits "
            "does not tell points of the ball apart.",
        )
    return (
        "pass" if rate >= 0.9 else "warn",
        f"{percent(rate)} of {count} planted examples found",
        "Examples that exist by construction must be found; else the attack "
        "is too weak for this model.",
    )
