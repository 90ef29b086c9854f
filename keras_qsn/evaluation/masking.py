"""Who broke what white-box attacks missed: the evidence of masked gradients.

A gradient is masked where those who do without it break what attacks that
follow it, in many steps, have tried and missed. One step proves nothing: the
same image would fall to ten.
"""

import numpy as np

from keras_qsn.attacks.threats import STEPS
from keras_qsn.attacks.threats import THREATS

# Steps.
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
    """Which of `count` images white-box attacks of many steps missed.

    Those of the plan, and those of the checks, which are thorough and run on
    all that the others run on.
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


def unmasked(outcomes, count):
    """`Evaluation.unmasked`, of its outcomes and its number of images."""
    missed = missed_by_white_box(outcomes, count)
    broken = dict.fromkeys(THREATS[1:])
    for outcome in outcomes:
        threat = outcome.step.threat
        if threat in broken and missed[outcome.tried].any():
            count = int(missed[outcome.broken].sum())
            broken[threat] = (broken[threat] or 0) + count
    return broken
