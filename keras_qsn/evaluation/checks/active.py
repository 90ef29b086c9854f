"""The active test: does an attack find examples that are surely there?

Zimmermann, Brendel, Tramer and Carlini, 2022: https://arxiv.org/abs/2206.13991
"""

import numpy as np
import tensorflow as tf

from keras_qsn._core.tracing import replaced
from keras_qsn.attacks.white_box.gradient import ProjectedGradientDescent
from keras_qsn.evaluation.checks.crafting import SharedView
from keras_qsn.evaluation.checks.crafting import crafted

_INNER = 64
_FEW = 5
_INTERIOR = 0.95


def pass_rate(probe):
    """Share of planted examples that PGD finds.

    For each image a linear classifier on the features before the logits
    parts one point on the border of the ball from many inside it. That point
    is an adversarial example by construction.

    Returns:
        The share, and the number of images for which one could be planted.
    """
    layer = probe.seen.wrapper.head
    if layer is None:
        return 0.0, 0
    view = probe.sight.seen(probe.wrapper, *probe.sight.surrogates(probe.facts))
    key = "features", view.key

    def record(x):
        return _recorded(layer, view, x)

    def features(x):
        return probe.forward(key, record, x).astype("float64")

    t, x = probe.threat, probe.x
    rng = np.random.default_rng(t.seed)
    points = [x] + [_point(rng, x, t, _INTERIOR) for _ in range(_INNER - 1)]
    border = _point(rng, x, t, 1.0)
    inner = features(np.concatenate(points)).reshape(len(points), len(x), -1)
    inner = inner.swapaxes(0, 1)
    outer = features(border)
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
    weights = weights[rows].astype("float32")
    offset = ((reach + planted)[rows] / 2).astype("float32")
    seen = SharedView(view.wrapper, x.shape[1:], key, record)

    def planted_view(weights, offset):
        def logits_fn(images):
            score = tf.reduce_sum(seen(images) * weights, 1) - offset
            return tf.stack([-score, score], 1)

        return logits_fn

    attack = t.attack(
        ProjectedGradientDescent, nb_iter=probe.budget.nb_iter, nb_restarts=3
    )
    hit = np.zeros(len(rows), bool)
    # What few steps find, many would.
    for tried in (attack.with_counts((_FEW, 1)), attack):
        if not hit.all():
            probe.note(tried)
            x_adv = crafted(
                tried,
                planted_view,
                x[rows],
                np.zeros(len(rows), "int32"),
                probe.batches(len(rows)),
                weights,
                offset,
            )
            reached = features(x_adv).astype("float32")
            hit |= (reached * weights).sum(1) > offset
    return float(hit.mean()), len(rows)


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
