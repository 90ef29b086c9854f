"""An evaluation made by hand, to report on."""

import numpy as np

from keras_qsn import attacks
from keras_qsn.evaluation.outcomes import Check
from keras_qsn.evaluation.outcomes import Outcome
from keras_qsn.evaluation.outcomes import Step
from keras_qsn.evaluation.result import Evaluation

SCRIPT = "<script>alert(1)</script>"

STEPS = [
    Step("FGSM", "white-box", attacks.FastGradientMethod(0.3)),
    Step(
        "PGD-100",
        "white-box",
        attacks.ProjectedGradientDescent(0.3, nb_iter=100, nb_restarts=2),
    ),
    Step(
        "APGD-DLR",
        "white-box",
        attacks.AutoProjectedGradientDescent(0.3, loss="dlr"),
    ),
    Step("MIM from plain", "transfer", attacks.MomentumIterativeMethod(0.3)),
    Step(
        "soft surrogate, z=5",
        "adaptive",
        attacks.ProjectedGradientDescent(0.3, nb_iter=40, early_stop=True),
    ),
    Step(
        "Square-1000",
        "queries",
        attacks.SquareAttack(0.3, nb_queries=1000),
        max_images=20,
    ),
]

# How many of the images each of `STEPS` breaks, of those that are left.
BREAKS = [14, 11, 3, 0, 17, 2]

CHECKS = [
    Check(1, "eps-zero", "eps 0", "pass", "100.0 % left", "Nothing may."),
    Check(
        2,
        "ladder",
        "ladder",
        "fail",
        "FGSM 84 %, PGD 88 %",
        "More steps, fewer.",
        "PGD(nb_iter=20)",
        own_gradient=True,
    ),
    Check(
        7, "gradient-health", "gradient", "warn", "31 % faint", "Believe less."
    ),
    Check(18, "sandwich", "sandwich", "none", "no certificates", "Give them."),
]


def digits(count, channels=1):
    """Images of rings and bars, float32 in `[0, 1]`."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(-1, 1, 28), np.linspace(-1, 1, 28))
    middle = rng.uniform(-0.2, 0.2, (count, 2, 1, 1))
    radius = np.hypot(across - middle[:, 0], down - middle[:, 1])
    ring = np.exp(-30 * (radius - rng.uniform(0.3, 0.7, (count, 1, 1))) ** 2)
    shade = rng.uniform(0.5, 1, (count, 1, 1, channels))
    return (ring[..., None] * shade).astype("float32")


def example(
    x=None, steps=STEPS, breaks=BREAKS, checks=CHECKS, wrong=6, **settings
):
    """An evaluation in which the attacks break the first images left.

    Args:
        x: Images. Defaults to `None`: 96 of `digits`.
        steps: The attacks.
        breaks: How many images each breaks.
        checks: The checks.
        wrong: How many images the model gets wrong.
        **settings: What to change in the settings; `None` takes out.
    """
    x = digits(96) if x is None else x
    rng = np.random.default_rng(1)
    y = rng.integers(10, size=len(x)).astype("int32")
    prediction = y.copy()
    prediction[-wrong or len(y) :] = (y[-wrong or len(y) :] + 1) % 10
    left = rng.permutation(np.flatnonzero(prediction == y))
    outcomes = []
    for step, count in zip(steps, breaks):
        tried = np.sort(left)[: step.max_images]
        broken = np.sort(rng.permutation(tried)[:count])
        moved = 0.3 * np.sign(rng.normal(size=x[broken].shape))
        x_adv = np.clip(x[broken] + moved, 0, 1).astype("float32")
        blind = len(tried) // 3
        became = (y[broken] + 5) % 10
        outcomes.append(
            Outcome(step, tried, broken, x_adv, became, blind, 12.345)
        )
        left = np.setdiff1d(left, broken)
    radii = [0.0, 0.1, 0.2, 0.3, 0.45, 0.6]
    everything = {
        "model": SCRIPT,
        "weights": "1d2c3b4a59687766",
        "data": "ffeeddccbbaa9988",
        "images": len(x),
        "norm": "inf",
        "eps": 0.3,
        "value_range": [0.0, 1.0],
        "seed": 7,
        "batch_size": 128,
        "plan": "standard",
        "attacks": [{"name": step.name} for step in steps],
        "versions": {"python": "3.12", "tensorflow": "2.21", "keras": "3.15"},
        "data_name": "/data/a&b/<i>digits</i> | x",
        "curve_images": 64,
        **settings,
    }
    return Evaluation(
        {k: v for k, v in everything.items() if v is not None},
        x,
        y,
        prediction,
        outcomes,
        checks,
        {
            "strongest": list(zip(radii, [0.94, 0.85, 0.66, 0.48, 0.2, 0.08])),
            "FGSM": [[eps, 0.94 - 0.4 * eps] for eps in radii],
        },
        {"PGD": list(4 - 3.5 * np.exp(-np.arange(0, 200) / 30))},
    )
