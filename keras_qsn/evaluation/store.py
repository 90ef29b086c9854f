"""What an evaluation has finished, in the `Folder` that keeps it."""

import dataclasses

from keras_qsn.evaluation.checks import registry
from keras_qsn.evaluation.outcomes import Outcome
from keras_qsn.evaluation.outcomes import Step


def kept_outcome(folder, name, step):
    """The outcome of an attack, or `None` if it has not finished."""
    kept = folder.get(f"attack-{name}.npz")
    if kept is None:
        return None
    blind, seconds = int(kept.pop("blind")), float(kept.pop("seconds"))
    return Outcome(step, **kept, blind=blind, seconds=seconds)


def keep_outcome(folder, name, outcome):
    """Keep the outcome of an attack."""
    kept = {**vars(outcome)}
    del kept["step"]
    folder.put(f"attack-{name}.npz", kept)


def drop_parts(folder, number):
    """Forget the parts of a step's outcome, now that the whole is kept."""
    folder.drop(f"attack-{number}-from-*.npz")


def kept_checks(folder):
    """What `keep_checks` kept, or `None`."""
    kept = folder.get("checks.json")
    if kept is None:
        return None
    outcomes = [
        kept_outcome(folder, name, Step(f"checks: {name}", name, None))
        for name in kept["broken_by"]
    ]
    if None in outcomes:
        # Its file was damaged, and deleted.
        return None
    # Of each check what was measured: the rest is in the register.
    checks = [
        registry.ENTRIES[check["key"]].result(
            *(check[name] for name in ("status", "value", "meaning", "attack"))
        )
        for check in kept["checks"]
    ]
    return checks, outcomes, kept["curve"], kept["trace"]


def keep_checks(folder, checks, outcomes, curve, trace):
    """Keep the checks, what they broke, the curves and the trace."""
    for outcome in outcomes:
        keep_outcome(folder, outcome.step.threat, outcome)
    kept = {
        "checks": [dataclasses.asdict(check) for check in checks],
        "broken_by": [outcome.step.threat for outcome in outcomes],
        "curve": curve,
        "trace": trace,
    }
    folder.put("checks.json", kept)
