"""Checks of the gradient that attacks follow, and of where it leads.

Each returns a status, what was measured, and what that means.
"""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import norms
from keras_qsn.attacks.objectives import loss_gradient
from keras_qsn.attacks.objectives import margin_gradient
from keras_qsn.attacks.quantizers import backward_through
from keras_qsn.evaluation.wording import HALF_POINT
from keras_qsn.evaluation.wording import points

# A slope, of logits by pixel, that attacks lose sight of.
_FAINT = 1e-8


def loss_curve(probe):
    nb_iter = probe.budget.nb_iter
    loss, left = _follow(probe, 2 * nb_iter)
    probe.trace["PGD"] = [float(value) for value in loss]
    best = np.maximum.accumulate(loss)
    gain = best[-1] / max(best[nb_iter], 1e-12) - 1
    drop = left[nb_iter] - left[-1]
    return (
        "pass" if gain < 0.01 and drop <= HALF_POINT else "warn",
        f"loss {best[nb_iter]:.4g} after {nb_iter} steps, {best[-1]:.4g} after "
        f"{2 * nb_iter}; {points(drop)} more broken",
        "Twice the steps must bring nothing; else the attack has not "
        "converged: take more steps.",
    )


def gradient_health(probe):
    get_logits = probe.wrapper.get_logits
    gradient = _margin_slope(probe, get_logits)
    zero = float((gradient.max(1) == 0).mean())
    hidden, seen = 0.0, "no quantizer to hide pixels"
    if probe.quantized:
        t = probe.threat
        reach = t.eps if t.norm == np.inf else t.clip_max - t.clip_min
        low = np.clip(probe.x - reach, t.clip_min, t.clip_max)
        high = np.clip(probe.x + reach, t.clip_min, t.clip_max)
        flippable = probe.sees(low) != probe.sees(high)
        behind = _margin_slope(probe, backward_through(probe.wrapper, None))
        # Of pixels the network behind the quantizer listens to.
        matters = flippable.reshape(gradient.shape) & (behind >= _FAINT)
        if matters.any():
            hidden = float((gradient < _FAINT)[matters].mean())
        seen = f"{points(hidden)} of pixels that matter hidden (below 1e-8)"
    worst = max(zero, hidden)
    return (
        "fail" if worst > 0.2 else "warn" if worst > 0.01 else "pass",
        f"{points(zero)} of images without a gradient; {seen}",
        "Where there is no gradient, attacks that follow it see nothing: "
        "believe adaptive attacks and queries only.",
    )


def finite_difference(probe):
    rng = np.random.default_rng(probe.threat.seed)
    x, y = probe.x[:16], probe.y[:16]
    gradient, _ = loss_gradient(
        probe.wrapper.get_logits, tf.constant(x), y, False
    )
    gradient = np.asarray(gradient).reshape(len(x), -1)
    h = probe.threat.eps / 4
    if probe.threat.norm == 2:
        h /= np.sqrt(gradient.shape[1])
    agree, count = 0, 0
    for _ in range(32):
        pixel = rng.integers(gradient.shape[1], size=len(x))
        step = np.zeros_like(gradient)
        step[np.arange(len(x)), pixel] = h
        step = step.reshape(x.shape)
        slope = _loss(probe, x + step, y) - _loss(probe, x - step, y)
        told = gradient[np.arange(len(x)), pixel]
        # Differences within rounding have no sign.
        clear = np.abs(slope) > 1e-5
        agree += int((np.sign(slope) == np.sign(told))[clear].sum())
        count += int(clear.sum())
    share = agree / count if count else 1.0
    return (
        "pass" if share >= 0.6 else "warn",
        f"{points(share)} of {count} slopes have the gradient's sign",
        "The gradient must point where the loss goes at the scale of the "
        "attack; else use a surrogate gradient (BPDA) or queries.",
    )


def _loss(probe, x, y):
    """Cross-entropy of each image, to double precision of the logits."""
    logits = probe.logits(x.astype("float32")).astype("float64")
    logits -= logits.max(1, keepdims=True)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]


def _margin_slope(probe, logits_fn):
    """Size of the margin's gradient, by image and pixel.

    Not the cross-entropy's, which is faint on all confident images.
    """
    x = tf.constant(probe.x)
    gradient, _ = margin_gradient(logits_fn, x, probe.y, False)
    return np.abs(np.asarray(gradient)).reshape(len(probe.x), -1)


def _follow(probe, nb_iter):
    """Mean loss and share of images left along PGD, step by step."""
    t, start = probe.threat, tf.constant(probe.x)
    y, step = tf.constant(probe.y, tf.int32), 2.5 * t.eps / (nb_iter // 2)

    def run(start):
        def move(i, x, losses, left):
            gradient, logits = loss_gradient(
                probe.wrapper.get_logits, x, y, False
            )
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            right = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), y)
            delta = x + step * norms.steepest(gradient, t.norm) - start
            delta = norms.project(delta, t.eps, t.norm)
            return (
                i + 1,
                tf.clip_by_value(start + delta, t.clip_min, t.clip_max),
                losses.write(i, tf.reduce_mean(loss)),
                left.write(i, tf.reduce_mean(tf.cast(right, tf.float32))),
            )

        arrays = [tf.TensorArray(tf.float32, nb_iter + 1) for _ in range(2)]
        _, _, losses, left = tf.while_loop(
            lambda i, *_: i <= nb_iter, move, (0, start, *arrays)
        )
        return losses.stack(), left.stack()

    # Traced by hand: TensorFlow warns of functions that each call traces anew.
    run = tf.function(run, autograph=False).get_concrete_function(start)
    losses, left = run(start)
    return losses.numpy(), left.numpy()
