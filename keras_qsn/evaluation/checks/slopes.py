"""Checks of the gradient that attacks follow, and of where it leads."""

import numpy as np
import tensorflow as tf

from keras_qsn._core.shares import percent
from keras_qsn.attacks import norms
from keras_qsn.attacks.views.surrogate import Surrogate
from keras_qsn.evaluation.checks.registry import IMAGES
from keras_qsn.evaluation.checks.registry import REPEATABLE
from keras_qsn.evaluation.checks.registry import Need
from keras_qsn.evaluation.checks.registry import check
from keras_qsn.evaluation.checks.wording import HALF_POINT

# A slope, of logits by pixel, that attacks lose sight of.
_FAINT = 1e-8
# Finite differences of each image, and in how many turns.
_PIXELS = 32
_TURNS = 4

_STEPS = Need(
    lambda probe: probe.threat.norm in (np.inf, 2),
    "not applicable",
    "The curve is of PGD, which has no steps in L1 or L0.",
)


@check(
    5,
    "loss-curve",
    "attack has converged",
    needs=(IMAGES, _STEPS),
    own_gradient=True,
)
def loss_curve(probe):
    nb_iter = probe.budget.nb_iter
    loss, left, broken = _follow(probe, 2 * nb_iter)
    probe.trace["PGD"] = [float(value) for value in loss]
    meaning = (
        "Twice the steps must bring nothing; else the attack has not "
        "converged: take more steps."
    )
    if broken.all():
        return "pass", f"all broken after {len(loss) - 1} steps", meaning
    best = np.maximum.accumulate(loss)
    gain = best[-1] / max(best[nb_iter], 1e-12) - 1
    drop = left[nb_iter] - left[-1]
    return (
        "pass" if gain < 0.01 and drop <= HALF_POINT else "warn",
        f"loss {best[nb_iter]:.4g} after {nb_iter} steps, {best[-1]:.4g} after "
        f"{2 * nb_iter}; {percent(drop)} more broken",
        meaning,
    )


@check(
    7, "gradient-health", "gradients are there", light=True, own_gradient=True
)
def gradient_health(probe):
    gradient = _margin_slope(probe)
    zero = float((gradient.max(1) == 0).mean())
    hidden, seen = 0.0, "no quantizer to hide pixels"
    if probe.facts.quantized:
        t = probe.threat
        reach = t.eps if t.norm == np.inf else t.clip_max - t.clip_min
        low = np.clip(probe.x - reach, t.clip_min, t.clip_max)
        high = np.clip(probe.x + reach, t.clip_min, t.clip_max)
        flippable = probe.sees(low) != probe.sees(high)
        through = probe.sight.seen(probe.wrapper, Surrogate())
        behind = _margin_slope(probe, through)
        # Of pixels the network behind the quantizer listens to.
        matters = flippable.reshape(gradient.shape) & (behind >= _FAINT)
        if matters.any():
            hidden = float((gradient < _FAINT)[matters].mean())
        seen = f"{percent(hidden)} of pixels that matter hidden (below 1e-8)"
    if probe.facts.masks:
        seen += f"; layers that hide it: {', '.join(probe.facts.masks)}"
    worst = max(zero, hidden)
    return (
        "fail" if worst > 0.2 else "warn" if worst > 0.01 else "pass",
        f"{percent(zero)} of images without a gradient; {seen}",
        "Where there is no gradient, attacks that follow it see nothing: "
        "believe adaptive attacks and queries only.",
    )


@check(
    8,
    "finite-difference",
    "gradients point the right way",
    needs=(IMAGES, REPEATABLE),
    own_gradient=True,
)
def finite_difference(probe):
    rng = np.random.default_rng(probe.threat.seed)
    x, y = probe.x[:16], probe.y[:16]
    gradient = probe.gradient(x, y)[0].reshape(len(x), -1)
    h = _pixel_scale(probe.threat, gradient.shape[1]) / 4
    agree, count = 0, 0
    for _ in range(_TURNS):
        picked = [
            rng.integers(gradient.shape[1], size=len(x))
            for _ in range(_PIXELS // _TURNS)
        ]
        slope, told = _slopes(probe, x, y, gradient, np.stack(picked), h)
        # Differences within rounding have no sign.
        clear = np.abs(slope) > 1e-5
        agree += int((np.sign(slope) == np.sign(told))[clear].sum())
        count += int(clear.sum())
        if not count:
            # Single pixels do not move this model: more would not either.
            break
    probe.note("finite differences")
    share = agree / count if count else 1.0
    return (
        "pass" if share >= 0.6 else "warn",
        f"{percent(share)} of {count} slopes have the gradient's sign",
        "The gradient must point where the loss goes at the scale of the "
        "attack; else use a surrogate gradient (BPDA) or queries.",
    )


def _pixel_scale(threat, pixels):
    """How far the attack moves a pixel that it moves."""
    if threat.norm == np.inf:
        return threat.eps
    if threat.norm == 2:
        return threat.eps / np.sqrt(pixels)
    width = float(np.mean(np.subtract(threat.clip_max, threat.clip_min)))
    return min(threat.eps, width) if threat.norm == 1 else width


def _slopes(probe, x, y, gradient, pixels, h):
    """Differences of the loss along pixels, and what the gradient tells.

    `pixels` is of shape `(count, images)`, and so are both.
    """
    steps = np.zeros((*pixels.shape, gradient.shape[1]), gradient.dtype)
    np.put_along_axis(steps, pixels[..., None], h, 2)
    steps = steps.reshape(-1, *x.shape[1:])
    count = len(pixels)
    images, labels = (np.concatenate([part] * count) for part in (x, y))
    slope = _loss(probe, images + steps, labels)
    slope -= _loss(probe, images - steps, labels)
    told = np.take_along_axis(gradient, pixels.T, 1).T
    return slope.reshape(pixels.shape), told


def _loss(probe, x, y):
    """Cross-entropy of each image, to double precision of the logits."""
    logits = probe.forward(probe.seen.key, probe.seen, x.astype("float32"))
    logits = logits.astype("float64")
    logits -= logits.max(1, keepdims=True)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]


def _margin_slope(probe, view=None):
    """Size of the margin's gradient, by image and pixel.

    Not the cross-entropy's, which is faint on all confident images.
    """
    gradient, _ = probe.gradient(probe.x, probe.y, True, view)
    return np.abs(gradient).reshape(len(probe.x), -1)


def _follow(probe, nb_iter):
    """Mean loss and share of images left along PGD, step by step, and which
    images were broken in between. Ends where nothing is left to break."""
    t, x, y = probe.threat, probe.x, probe.y
    step = np.float32(2.5 * t.eps / (nb_iter // 2))
    probe.note(f"ProjectedGradientDescent(nb_iter={nb_iter})")
    losses, left, broken = [], [], np.zeros(len(x), bool)
    while len(losses) <= nb_iter and not broken.all():
        gradient, logits = probe.gradient(x, y)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        losses.append(float(tf.reduce_mean(loss)))
        fooled = logits.argmax(-1) != y
        left.append(float((~fooled).mean()))
        broken |= fooled
        delta = x + step * norms.steepest(gradient, t.norm) - probe.x
        delta = norms.project(delta, t.eps, t.norm).numpy()
        x = np.clip(probe.x + delta, t.clip_min, t.clip_max)
    return np.array(losses), np.array(left), broken
