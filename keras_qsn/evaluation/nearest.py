"""Which attacks look for the nearest example: the named plans."""

import dataclasses

import numpy as np

from keras_qsn import attacks
from keras_qsn.evaluation.outcomes import Step

# Steps of the searches, and of FAB-T's against how many classes.
_NB_ITER = {"quick": 50, "standard": 100, "full": 1000}
_FAB = {"quick": None, "standard": (30, 3), "full": (100, 9)}
_JUMPS = {"quick": 5, "standard": 10, "full": 40}
_RESTARTS = {"quick": 1, "standard": 2, "full": 10}
# Radii of the cube attack, as shares of the largest range of a pixel: it seeks
# in a ball, not for the nearest, so that its distance is about the radius.
_CUBES = {
    "quick": (0.1, 0.3),
    "standard": (0.05, 0.1, 0.2, 0.3, 0.5),
    "full": (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7),
}
_STEEPNESS = {"quick": (), "standard": (5.0,), "full": (1.0, 5.0, 20.0)}


def named(plan, threat, facts, sight):
    """The steps of a named plan; `threat` has a ball that holds everything."""
    steps = [] if facts.gradient_cut else _white_box(plan, threat, facts)
    if sight.unmasks:
        steps += _in_steps(
            {
                f"{name} through surrogates": sight.unmasked(attack)
                for name, attack in _searches(plan, threat).items()
            }
        )
    if facts.quantized:
        steps += _adaptive(plan, threat, facts, sight)
    blind = facts.gradient_cut and not sight.unmasks
    if blind or plan != "quick":
        steps += _queries(plan, threat, blind)
    return [
        dataclasses.replace(step, attack=sight.look(step.attack))
        for step in steps
    ]


def _searches(plan, threat):
    """Names and attacks: the least passes for the nearest example."""
    nb_iter, norm = _NB_ITER[plan], threat.norm
    kinds = {"FMN": attacks.FastMinimumNorm}
    if norm == 2:
        kinds["DDN"] = attacks.DecoupledDirectionNorm
    if norm == 0:
        kinds["sigma-zero"] = attacks.SigmaZero
    return {
        f"{name}-{nb_iter}": threat.attack(kind, nb_iter=nb_iter)
        for name, kind in kinds.items()
    }


def _white_box(plan, threat, facts):
    steps = _in_steps(_searches(plan, threat))
    if threat.norm and _FAB[plan]:
        nb_iter, nb_targets = _FAB[plan]
        fab = threat.step(
            "FAB-T",
            attacks.FastAdaptiveBoundary,
            nb_iter=nb_iter,
            nb_targets=nb_targets,
        )
        steps.append(fab)
    if plan == "full" and threat.norm == 2:
        kind, rate = attacks.CarliniWagnerL2, {"learning_rate": 0.01}
        steps.append(threat.step("CW", kind, **rate))
    if plan == "full" and threat.norm == 0:
        steps.append(threat.step("JSMA", attacks.SaliencyMapMethod))
    return steps


def _adaptive(plan, threat, facts, sight):
    steps = []
    if facts.opened and threat.norm != np.inf:
        # What is near in L2 and moves few pixels is near in L1.
        near = {"norm": 2} if threat.norm == 1 else {}
        steps.append(
            threat.step("level flips", attacks.LevelFlipAttack, **near)
        )
    elif facts.opened:
        widest = float(np.max(np.subtract(threat.clip_max, threat.clip_min)))
        for share in _CUBES[plan]:
            eps = share * widest
            name, effort = f"cube within {eps:g}", {"nb_iter": 20}
            kind = attacks.CubeAttack
            steps.append(threat.at(eps).step(name, kind, **effort))
    if facts.gradient_cut and not sight.unmasks:
        return steps
    surrogates = {}
    for name, attack in _searches(plan, threat).items():
        attack = sight.unmasked(attack)
        surrogates[f"{name} by BPDA"] = attacks.BPDA(attack)
        for z in _STEEPNESS[plan]:
            surrogates[f"{name}, surrogate z={z:g}"] = attacks.BPDA(attack, z)
    return steps + _in_steps(surrogates)


def _queries(plan, threat, blind):
    norm = 2 if threat.norm == 1 else threat.norm
    steps = []
    if norm in (2, 0):
        kind, restarts = attacks.PointwiseAttack, _RESTARTS[plan]
        effort = {"norm": norm, "nb_restarts": restarts}
        steps.append(threat.step("pointwise", kind, **effort))
    if norm and (blind or plan == "full"):
        kind, jumps = attacks.HopSkipJumpAttack, _JUMPS[plan]
        effort = {"norm": norm, "num_iterations": jumps}
        steps.append(threat.step(f"HopSkipJump-{jumps}", kind, **effort))
    return steps


def _in_steps(found):
    return [Step(name, attack.threat, attack) for name, attack in found.items()]
