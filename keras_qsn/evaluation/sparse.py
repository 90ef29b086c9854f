"""The named plans in L1 and L0, where few pixels move far."""

from keras_qsn import attacks
from keras_qsn.evaluation.outcomes import Step

# Steps of the searches for the nearest example.
_NB_ITER = {"quick": 50, "standard": 100, "full": 1000}
# Of Sparse-RS.
_QUERIES = {"quick": 200, "standard": 1000, "full": 5000}
# Of attacks that see classes only; of HopSkipJump steps and images.
_RESTARTS = {"quick": 1, "standard": 2, "full": 10}
_JUMPS = {"quick": None, "standard": (10, 50), "full": (40, 100)}
_STEEPNESS = {
    "quick": (5.0,),
    "standard": (1, 5, 20),
    "full": (1, 2, 5, 10, 20),
}


def named(plan, threat, facts, sources, sight):
    """The steps of a named plan, as `plans.named`, in L1 or L0."""
    steps = _white_box(plan, threat, facts)
    for source, model in sources.items():
        for name, attack in (
            ("FGSM", threat.attack(attacks.FastGradientMethod)),
            _follower(threat, facts),
        ):
            transfer = attacks.TransferAttack(attack, model)
            name = f"{name} from {source}"
            steps.append(Step(name, transfer.threat, transfer))
    if sight.unmasks:
        name, attack = _follower(threat, facts)
        attack = sight.unmasked(attack)
        name = f"{name} through surrogates"
        steps.append(Step(name, attack.threat, attack))
    if facts.quantized:
        steps += _adaptive(plan, threat, facts, sight)
    return [*steps, *_queries(plan, threat, facts, sight)]


def _white_box(plan, threat, facts):
    if facts.answers_only:
        return []
    step, nb_iter = threat.step, _NB_ITER[plan]
    fgsm = step("FGSM", attacks.FastGradientMethod)
    if facts.gradient_cut:
        return [fgsm]
    nearest = step(f"FMN-{nb_iter}", attacks.FastMinimumNorm, nb_iter=nb_iter)
    if threat.norm == 0:
        name, kind = f"sigma-zero-{nb_iter}", attacks.SigmaZero
        first = step(name, kind, nb_iter=nb_iter)
        greedy = [step("JSMA", attacks.SaliencyMapMethod)]
        return [fgsm, first, nearest, *(greedy if plan != "quick" else [])]

    def apgd(name, loss, nb_iter=100, **others):
        kind = attacks.AutoProjectedGradientDescent
        others["early_stop"] = not facts.random
        return step(name, kind, loss=loss, nb_iter=nb_iter, **others)

    def fab(nb_iter, nb_targets):
        kind, effort = attacks.FastAdaptiveBoundary, {"early_stop": True}
        effort |= {"nb_iter": nb_iter, "nb_targets": nb_targets}
        return step("FAB-T", kind, **effort)

    # Of two classes there is no third logit to divide by: DLR is the margin.
    dlr = "APGD-DLR" if facts.num_classes > 2 else "APGD-margin"
    if plan == "quick":
        return [fgsm, apgd(f"{dlr}-20", "dlr", 20)]
    if plan == "standard":
        first = apgd("APGD-CE", "ce"), apgd(dlr, "dlr")
        return [fgsm, *first, fab(20, 3), nearest]
    first = apgd("APGD-CE", "ce", nb_restarts=5)
    targeted = apgd("APGD-T", "targeted-dlr")
    return [fgsm, first, targeted, fab(100, 9), nearest]


def _follower(threat, facts):
    """What follows a gradient, be it another model's or a surrogate's."""
    if threat.norm == 0:
        return "sigma-zero", threat.attack(attacks.SigmaZero)
    kind = attacks.AutoProjectedGradientDescent
    return "APGD", threat.attack(kind, early_stop=not facts.random)


def _adaptive(plan, threat, facts, sight):
    steps = []
    if facts.opened:
        # What is near in L2 and moves few pixels is near in L1.
        near = {"norm": 2} if threat.norm == 1 else {}
        steps.append(
            threat.step("level flips", attacks.LevelFlipAttack, **near)
        )
    if facts.gradient_cut and not sight.unmasks:
        # A surrogate mends the quantizer's gradient, and no other.
        return steps
    attack = sight.unmasked(_follower(threat, facts)[1])
    surrogates = {"BPDA": attacks.BPDA(attack)}
    for z in _STEEPNESS[plan]:
        surrogates[f"soft surrogate, z={z:g}"] = attacks.BPDA(attack, z)
    return steps + [
        Step(name, attack.threat, attack) for name, attack in surrogates.items()
    ]


def _queries(plan, threat, facts, sight):
    if facts.gradient_cut and not sight.unmasks:
        # All that is left to attack with: one plan's effort more.
        names = [*_QUERIES]
        plan = names[min(names.index(plan) + 1, len(names) - 1)]
    step, restarts = threat.step, {"nb_restarts": _RESTARTS[plan]}
    pointwise = attacks.PointwiseAttack
    if threat.norm == 0:
        count = _QUERIES[plan]
        search = step(
            f"Sparse-RS-{count}", attacks.SparseRandomSearch, nb_queries=count
        )
        found = [search, step("pointwise", pointwise, **restarts)]
        if facts.is_image:
            found = [step("single pixel", attacks.SinglePixelAttack), *found]
        return found
    found = [step("pointwise", pointwise, norm=2, **restarts)]
    if _JUMPS[plan]:
        jumps, images = _JUMPS[plan]
        found.append(
            step(
                f"HopSkipJump-{jumps}",
                attacks.HopSkipJumpAttack,
                images,
                norm=2,
                num_iterations=jumps,
                max_num_evals=1000,
            )
        )
    return found
