"""The active test: does an attack find examples that are surely there?

Zimmermann, Brendel, Tramer and Carlini, 2022: https://arxiv.org/abs/2206.13991
"""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks.gradient import ProjectedGradientDescent
from keras_qsn.attacks.quantizers import backward_through
from keras_qsn.tracing import replaced

_INNER = 64
_INTERIOR = 0.95


def pass_rate(probe):
    """Share of planted examples that PGD finds.

    For each image a linear classifier on the features before the logits
    parts one point on the border of the ball from many inside it. That point
    is an adversarial example by construction.

    Returns:
        The share, and the number of images for which one could be planted.
    """
    layer = probe.wrapper.head
    if layer is None:
        return 0.0, 0
    t, x = probe.threat, probe.x
    rng = np.random.default_rng(t.seed)
    points = [x] + [_point(rng, x, t, _INTERIOR) for _ in range(_INNER - 1)]
    border = _point(rng, x, t, 1.0)
    inner = np.stack([_features(probe, layer, p) for p in points], 1)
    outer = _features(probe, layer, border)
    center = inner.mean(1, keepdims=True)
    weights = np.stack(
        [_direction(a - c, b - c[0]) for a, b, c in zip(inner, outer, center)]
    )
    reach = np.einsum("nif,nf->ni", inner, weights).max(1)
    planted = (outer * weights).sum(1)
    apart = planted > reach + 1e-4 * np.abs(planted)
    rows = np.flatnonzero(apart)
    if not len(rows):
        return 0.0, 0
    weights = tf.constant(weights[rows], tf.float32)
    offset = tf.constant((reach + planted)[rows] / 2, tf.float32)
    view = probe.wrapper.get_logits
    if probe.quantized:
        view = backward_through(probe.wrapper, None)

    def logits_fn(images):
        seen = _recorded(layer, view, images)
        score = tf.reduce_sum(seen * weights, 1) - offset
        return tf.stack([-score, score], 1)

    attack = t.attack(
        ProjectedGradientDescent, nb_iter=probe.budget.nb_iter, nb_restarts=3
    )

    def run(images):
        zeros = tf.zeros([len(rows)], tf.int32)
        seeds = tf.stack([zeros + t.seed, tf.range(len(rows))], 1)
        x_adv = attack.craft(
            logits_fn, images, zeros, tf.constant(t.eps), seeds
        )
        return tf.argmax(logits_fn(x_adv), 1)

    images = tf.constant(x[rows])
    # Traced by hand: TensorFlow warns of functions that each call traces anew.
    run = tf.function(run, autograph=False).get_concrete_function(images)
    return float(np.mean(run(images))), len(rows)


def _recorded(layer, view, x):
    """What the layer is given when `view` sees the images."""
    seen = []

    def call(layer, inputs, *args, **kwargs):
        seen.append(inputs)
        return type(layer).call(layer, inputs, *args, **kwargs)

    with replaced([layer], "call", call):
        view(x)
    flat = tf.reshape(seen[0], [tf.shape(seen[0])[0], -1])
    return tf.cast(flat, tf.float32)


def _features(probe, layer, x):
    return np.asarray(_recorded(layer, probe.wrapper.get_logits, x), "float64")


def _point(rng, x, threat, share):
    """Images on the border of the ball, or of a smaller one."""
    step = rng.choice([-1.0, 1.0], x.shape)
    if threat.norm == 2:
        step /= np.sqrt(x[0].size)
    moved = x + share * threat.eps * step
    return np.clip(moved, threat.clip_min, threat.clip_max).astype("float32")


def _direction(inner, outer):
    """Least squares: 0 on what is inside, 1 on the point to be parted."""
    features = np.vstack([inner, outer[None]])
    wanted = np.zeros(len(features))
    wanted[-1] = 1
    gram = features @ features.T
    ridge = 1e-6 * np.trace(gram) / len(gram) + 1e-12
    gram += ridge * np.eye(len(gram))
    return features.T @ np.linalg.solve(gram, wanted)
