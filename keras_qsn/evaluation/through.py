"""The steps of a plan that go through, or around, what hides its gradient."""

import functools

import numpy as np

from keras_qsn import attacks
from keras_qsn.attacks.adaptive.evasion import DIRECTIONS
from keras_qsn.evaluation.outcomes import Step

# Of descents that are not the plan's main one.
NB_ITER = {"quick": 20, "standard": 40, "full": 100}
# Of a random model's logits: how far another class is to be ahead.
_SURE = 0.1
_CUBE_RESTARTS = {"quick": 3, "standard": 10, "full": 50}
# Steepness of the soft surrogates: from one that sees the whole range of
# pixels to one that sees a tenth of it.
_STEEPNESS = {
    "quick": (5.0,),
    "standard": (1.0, 2.0, 5.0, 10.0, 20.0),
    "full": (1.0, 2.0, 5.0, 10.0, 20.0),
}


def layers(threat, facts, sight, nb_iter, restarts):
    """Descent through the surrogates; no step where there are none.

    Args:
        threat: The `ThreatModel`.
        facts: The `ModelFacts`.
        sight: The `Sight`.
        nb_iter: Steps.
        restarts: Of PGD.
    """
    if not sight.unmasks:
        return []
    effort = {"nb_iter": nb_iter, "early_stop": not facts.random}
    apgd = functools.partial(
        threat.attack, attacks.AutoProjectedGradientDescent, **effort
    )
    dlr = "APGD-DLR" if facts.num_classes > 2 else "APGD-margin"
    through = {
        f"PGD-{nb_iter}": threat.attack(
            attacks.ProjectedGradientDescent,
            nb_restarts=restarts,
            **effort,
        ),
        dlr: apgd(loss="dlr"),
        "APGD-CE": apgd(loss="ce"),
    }
    return [
        Step(f"{name} through surrogates", "adaptive", sight.unmasked(attack))
        for name, attack in through.items()
    ]


def detectors(threat, facts, sight, nb_iter, restarts):
    """Descent that knows of the detector; no step where there is none.

    Args:
        threat: The `ThreatModel`.
        facts: The `ModelFacts`.
        sight: The `Sight`.
        nb_iter: Steps.
        restarts: Of PGD.
    """
    if sight.detector is None:
        return []
    attack = functools.partial(
        threat.attack,
        attacks.DetectorEvasion,
        detector=sight.detector,
        nb_iter=nb_iter,
        nb_restarts=restarts,
        early_stop=True,
        # It stays near the boundary, where scores are low; but a random
        # model is right there half of the time.
        confidence=_SURE if facts.random else 0.0,
        loss="margin",
    )
    return [
        Step(
            f"PGD-{nb_iter} past the detector, {direction}",
            "adaptive",
            sight.unmasked(attack(direction=direction)),
        )
        for direction in DIRECTIONS
    ]


def quantizers(plan, threat, facts, sight):
    """Attacks that know of the quantizers; none where there is none.

    Args:
        plan: Name of the plan.
        threat: The `ThreatModel`.
        facts: The `ModelFacts`.
        sight: The `Sight`.
    """
    if not facts.quantized:
        return []
    effort = {"nb_iter": NB_ITER[plan]}
    # What knows more of the quantizer takes longer.
    behind = []
    if facts.opened and threat.norm == np.inf:
        cube = threat.attack(
            attacks.CubeAttack, nb_restarts=_CUBE_RESTARTS[plan], **effort
        )
        behind = [Step("cube", cube.threat, cube)]
    elif facts.opened:
        flips = threat.attack(attacks.LevelFlipAttack)
        behind = [Step("level flips", flips.threat, flips)]
    if facts.gradient_cut and not sight.unmasks:
        # A surrogate mends the quantizer's gradient, and no other.
        return behind
    effort["early_stop"] = not facts.random
    descent = sight.unmasked(
        threat.attack(attacks.ProjectedGradientDescent, **effort)
    )
    surrogates = {"BPDA": attacks.BPDA(descent)}
    for z in _STEEPNESS[plan]:
        surrogates[f"soft surrogate, z={z:g}"] = attacks.BPDA(descent, z)
    surrogates["annealed surrogate"] = sight.unmasked(
        threat.attack(attacks.AnnealedBPDA, **effort)
    )
    through = [
        Step(name, attack.threat, attack) for name, attack in surrogates.items()
    ]
    return [*through, *behind]
