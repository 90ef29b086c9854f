"""The steps of a plan that go through layers which hide their gradient."""

import functools

from keras_qsn import attacks
from keras_qsn.evaluation.result import Step


def unmasked(threat, facts, sight, nb_iter, restarts):
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
    apgd = functools.partial(
        threat.attack, attacks.AutoProjectedGradientDescent, nb_iter=nb_iter
    )
    dlr = "APGD-DLR" if facts.num_classes > 2 else "APGD-margin"
    through = {
        f"PGD-{nb_iter}": threat.attack(
            attacks.ProjectedGradientDescent,
            nb_iter=nb_iter,
            nb_restarts=restarts,
            early_stop=True,
        ),
        dlr: apgd(loss="dlr"),
        "APGD-CE": apgd(loss="ce"),
    }
    return [
        Step(f"{name} through surrogates", "adaptive", sight.unmasked(attack))
        for name, attack in through.items()
    ]
