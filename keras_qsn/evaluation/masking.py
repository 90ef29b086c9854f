"""Who broke what white-box attacks missed: the evidence of masked gradients.

A gradient is masked where those who do without it break what attacks that
follow it, in many steps, have tried and missed. One step proves nothing: the
same image would fall to ten.
"""

import numpy as np

from keras_qsn.evaluation.outcome import THREATS

# The names under which attacks count their steps, and what is many.
STEPS = ("nb_iter", "max_iter", "max_iterations", "num_iterations")
_MANY = 10


def is_thorough(step):
    """Whether a step follows the model's own gradient, many times over."""
    config = step.attack.get_config()
    while "attack" in config:
        # It looks through a view: the steps are those of the attack inside.
        config = config["attack"]["config"]
    counts = [config[name] for name in STEPS if name in config]
    return step.threat == "white-box" and max(counts, default=1) >= _MANY


def missed_by_white_box(outcomes, count):
    """Which images white-box attacks of many steps tried and missed.

    Args:
        outcomes: Those of the plan, and those of the checks, whose white-box
            attacks are thorough and run on all that the others run on.
        count: Number of images.
    """
    missed = np.zeros(count, bool)
    for outcome in outcomes:
        step = outcome.step
        if step.attack is None or is_thorough(step):
            missed[outcome.tried] = True
    for outcome in outcomes:
        if outcome.step.threat == "white-box":
            missed[outcome.broken] = False
    return missed


def unmasked(evaluation):
    """Images that white-box attacks had missed and other attacks broke.

    Returns:
        Their count for each threat model but the white box; `None` where no
        attack of it was run on an image that white-box attacks had missed.
        Images broken before any white-box attack of many steps saw them are
        not counted: of them it is not known.
    """
    outcomes = evaluation.outcomes
    missed = missed_by_white_box(outcomes, len(evaluation.y))
    found = dict.fromkeys(THREATS[1:])
    for outcome in outcomes:
        threat = outcome.step.threat
        if threat in found and missed[outcome.tried].any():
            count = int(missed[outcome.broken].sum())
            found[threat] = (found[threat] or 0) + count
    return found


def masking(evaluation):
    """What `unmasked` found, as a sentence."""
    ran = {k: v for k, v in unmasked(evaluation).items() if v is not None}
    if not ran:
        return (
            "No attack but white-box ones was run on an image that white-box "
            "attacks of many steps had missed, so nothing here can show a "
            "masked gradient."
        )
    counts = ", ".join(f"{threat} {count}" for threat, count in ran.items())
    if not any(ran.values()):
        return (
            "Other attacks broke no image that white-box attacks had missed "
            f"({counts}), which is no sign of a masked gradient."
        )
    # One image may be luck, as between any two attacks.
    if sum(ran.values()) <= max(1, 0.005 * len(evaluation.y)):
        return (
            f"Other attacks broke hardly an image that white-box attacks had "
            f"missed ({counts}): too few to tell of a masked gradient."
        )
    return (
        f"Other attacks broke images that white-box attacks had missed "
        f"({counts}). That is a sign of a masked gradient: the accuracy that "
        "white-box attacks leave overstates robustness."
    )
