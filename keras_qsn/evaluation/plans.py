"""Which attacks an evaluation runs: the named plans, and the user's own."""

import dataclasses
import inspect

import numpy as np

from keras_qsn import attacks
from keras_qsn.evaluation.outcome import Step
from keras_qsn.layers import QuantLayer
from keras_qsn.tracing import layers_of

NAMES = ("quick", "standard", "full")

# Steepness of the soft surrogates: from one that sees the whole range of
# pixels to one that sees a tenth of it.
_STEEPNESS = {
    "quick": (5.0,),
    "standard": (1.0, 2.0, 5.0, 10.0, 20.0),
    "full": (1.0, 2.0, 5.0, 10.0, 20.0),
}


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """What an attacker may change.

    Args:
        eps: Radius of the ball, in pixel units.
        norm: `np.inf` or `2`.
        clip_min: Smallest pixel value.
        clip_max: Largest pixel value.
        seed: Of the attacks.
    """

    eps: float
    norm: float
    clip_min: float = 0.0
    clip_max: float = 1.0
    seed: int = 0

    def attack(self, kind, **kwargs):
        """An attack of this class within the threat model."""
        own = {
            "eps": self.eps,
            "norm": self.norm,
            "clip_min": self.clip_min,
            "clip_max": self.clip_max,
            "seed": self.seed,
        }
        accepted = inspect.signature(kind).parameters
        own = {k: v for k, v in own.items() if k in accepted}
        return kind(**{**own, **kwargs})

    def at(self, eps):
        """The same with another radius."""
        return dataclasses.replace(self, eps=eps)


def named(plan, threat, quantized, sources):
    """The steps of a named plan.

    Args:
        plan: One of `NAMES`.
        threat: The `ThreatModel`.
        quantized: Whether the model has quantization layers.
        sources: `{name: model}`, models to transfer examples from.

    Returns:
        A list of `Step`: cheap attacks first, since each one spares those
        after it the images it breaks.
    """
    make = {"quick": _quick, "standard": _standard, "full": _full}[plan]
    white_box, queries = make(threat)
    adaptive = _adaptive(plan, threat) if quantized else []
    transfer = _transfer(plan, threat, sources)
    return [*white_box, *transfer, *adaptive, *queries]


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
    steps = []
    for item in plan:
        if isinstance(item, attacks.Attack):
            item = Step(repr(item), _threat_of(item), item)
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
        found = (step.attack.clip_min, step.attack.clip_max)
        if found != (threat.clip_min, threat.clip_max):
            raise ValueError(
                "All attacks must have the range of the images, "
                f"[{threat.clip_min}, {threat.clip_max}]. "
                f"Received: {step.name} with {list(found)}"
            )
    return steps


def describe(step):
    """A step as plain values."""
    return {
        "name": step.name,
        "threat": step.threat,
        "max_images": step.max_images,
        "attack": type(step.attack).__name__,
        "config": step.attack.get_config(),
    }


def is_quantized(model):
    """Whether the model has a quantization layer."""
    return any(isinstance(layer, QuantLayer) for layer in layers_of(model))


def _quick(threat):
    pgd, apgd = (
        attacks.ProjectedGradientDescent,
        attacks.AutoProjectedGradientDescent,
    )
    return [
        _step("FGSM", "white-box", threat, attacks.FastGradientMethod),
        _step("PGD-20", "white-box", threat, pgd, nb_iter=20, early_stop=True),
        _step("APGD-DLR-20", "white-box", threat, apgd, loss="dlr", nb_iter=20),
    ], [
        _step(
            "Square-200",
            "queries",
            threat,
            attacks.SquareAttack,
            nb_queries=200,
        )
    ]


def _standard(threat):
    pgd, apgd = (
        attacks.ProjectedGradientDescent,
        attacks.AutoProjectedGradientDescent,
    )
    return [
        _step("FGSM", "white-box", threat, attacks.FastGradientMethod),
        _step(
            "PGD-100",
            "white-box",
            threat,
            pgd,
            nb_iter=100,
            nb_restarts=2,
            early_stop=True,
        ),
        _step("APGD-CE", "white-box", threat, apgd, nb_iter=100),
        _step("APGD-DLR", "white-box", threat, apgd, loss="dlr", nb_iter=100),
        _step(
            "FAB-T",
            "white-box",
            threat,
            attacks.FastAdaptiveBoundary,
            nb_iter=20,
            nb_targets=3,
            early_stop=True,
        ),
    ], [
        _step(
            "Square-1000",
            "queries",
            threat,
            attacks.SquareAttack,
            nb_queries=1000,
        ),
        _hop_skip_jump(threat, 10, 50),
    ]


def _full(threat):
    pgd = attacks.ProjectedGradientDescent
    return [
        _step("FGSM", "white-box", threat, attacks.FastGradientMethod),
        _step(
            "PGD-100",
            "white-box",
            threat,
            pgd,
            nb_iter=100,
            nb_restarts=10,
            early_stop=True,
        ),
        _step("AutoAttack", "white-box", threat, attacks.AutoAttack),
    ], [
        _step(
            "Square-5000",
            "queries",
            threat,
            attacks.SquareAttack,
            nb_queries=5000,
            nb_restarts=5,
        ),
        _hop_skip_jump(threat, 40, 100),
    ]


def _hop_skip_jump(threat, nb_iter, images):
    return Step(
        f"HopSkipJump-{nb_iter}",
        "queries",
        threat.attack(
            attacks.HopSkipJumpAttack,
            num_iterations=nb_iter,
            max_num_evals=1000,
        ),
        max_images=images,
    )


def _adaptive(plan, threat):
    nb_iter = {"quick": 20, "standard": 40, "full": 100}[plan]
    restarts = {"quick": 3, "standard": 10, "full": 50}[plan]
    descent = threat.attack(
        attacks.ProjectedGradientDescent, nb_iter=nb_iter, early_stop=True
    )
    steps = []
    if threat.norm == np.inf:
        steps.append(
            _step(
                "cube",
                "adaptive",
                threat,
                attacks.CubeAttack,
                nb_iter=nb_iter,
                nb_restarts=restarts,
            )
        )
    else:
        steps.append(
            _step("level flips", "adaptive", threat, attacks.LevelFlipAttack)
        )
    steps.append(Step("BPDA", "adaptive", attacks.BPDA(descent)))
    for steepness in _STEEPNESS[plan]:
        steps.append(
            Step(
                f"soft surrogate, z={steepness:g}",
                "adaptive",
                attacks.BPDA(descent, steepness),
            )
        )
    steps.append(
        _step(
            "annealed surrogate",
            "adaptive",
            threat,
            attacks.AnnealedBPDA,
            nb_iter=nb_iter,
            early_stop=True,
        )
    )
    return steps


def _transfer(plan, threat, sources):
    nb_iter = {"quick": 20, "standard": 40, "full": 100}[plan]
    kinds = {"PGD": attacks.ProjectedGradientDescent}
    if plan != "quick":
        kinds = {
            "FGSM": attacks.FastGradientMethod,
            **kinds,
            "MIM": attacks.MomentumIterativeMethod,
        }
    return [
        Step(
            f"{name} from {source}",
            "transfer",
            attacks.TransferAttack(
                threat.attack(
                    kind, **({} if name == "FGSM" else {"nb_iter": nb_iter})
                ),
                model,
            ),
        )
        for source, model in (sources or {}).items()
        for name, kind in kinds.items()
    ]


def _step(name, knows, threat, kind, **kwargs):
    return Step(name, knows, threat.attack(kind, **kwargs))


def _threat_of(attack):
    if isinstance(attack, attacks.TransferAttack):
        return "transfer"
    adaptive = (attacks.BPDA, attacks.AnnealedBPDA, attacks.CubeAttack)
    if isinstance(attack, (*adaptive, attacks.LevelFlipAttack)):
        return "adaptive"
    return "white-box" if attack.follows else "queries"
