"""Checks of the model and of what the attacks returned."""

import numpy as np
import tensorflow as tf

from keras_qsn._core.shares import percent
from keras_qsn._core.tracing import replaced
from keras_qsn.attacks import norms
from keras_qsn.classifier.opened import quantizers_of
from keras_qsn.evaluation.checks.registry import IMAGES
from keras_qsn.evaluation.checks.registry import QUANTIZER
from keras_qsn.evaluation.checks.registry import Need
from keras_qsn.evaluation.checks.registry import check
from keras_qsn.evaluation.checks.wording import HALF_POINT
from keras_qsn.evaluation.checks.wording import listed
from keras_qsn.evaluation.masking import missed_by_white_box
from keras_qsn.quantization.staircase import make_staircase

_CERTIFICATES = Need(
    lambda probe: probe.certified is not None,
    "no certificates",
    "Give `certified` to hold proofs against attacks.",
)
_HIDES = Need(
    lambda probe: probe.facts.quantized or probe.sight.unmasks,
    "not applicable",
    "The model has no quantization layer, and no other that hides its "
    "gradient.",
)
_IMAGE = Need(
    lambda probe: probe.facts.is_image,
    "not applicable",
    "Only images are stored in 8 bits.",
)


@check(
    10, "queries", "queries find nothing more", light=True, own_gradient=True
)
def queries(probe):
    won, share, words = _wins(probe, "queries")
    return (
        "pass" if share <= 0.002 else "warn",
        f"{len(won)} images broken by queries alone{words}",
        "Queries need no gradient: what only they break, gradients hid. The "
        "worst case counts it; take more queries to see whether there is "
        "more.",
    )


@check(
    11,
    "surrogates",
    "surrogate gradients find nothing more",
    needs=(IMAGES, _HIDES),
    light=True,
    own_gradient=True,
)
def surrogates(probe):
    won, share, words = _wins(probe, "adaptive")
    return (
        "pass" if share <= HALF_POINT else "warn",
        f"{len(won)} images broken by adaptive attacks alone{words}",
        "A layer masks its gradient: accuracy under plain gradient "
        "attacks overstates. The worst case counts it.",
    )


@check(
    12, "transfer", "transfer finds nothing more", light=True, own_gradient=True
)
def transfer(probe):
    if not any(o.step.threat == "transfer" for o in probe.evaluation.outcomes):
        return (
            "warn",
            "not run",
            "No other model to transfer from: give `sources` or `train_data`.",
        )
    won, share, words = _wins(probe, "transfer")
    return (
        "pass" if share <= HALF_POINT else "warn",
        f"{len(won)} images broken by transfer that white-box attacks "
        f"missed{words}",
        "Black-box beats white-box: gradients are masked, and accuracy under "
        "white-box attacks overstates. The worst case counts it.",
    )


@check(
    14,
    "soft-and-hard",
    "soft and hard levels agree",
    needs=(IMAGES, QUANTIZER),
    light=True,
)
def soft_and_hard(probe):
    layers = quantizers_of(probe.wrapper)

    def other(layer, inputs, **_):
        staircase = make_staircase(
            layer.num_levels,
            layer.steepness,
            hard=not layer.hard,
            value_range=layer.value_range,
        )
        x = tf.cast(tf.convert_to_tensor(inputs), layer.variable_dtype)
        y = staircase(x, tf.convert_to_tensor(layer.thresholds))
        return tf.cast(y, layer.compute_dtype)

    def view(x):
        with replaced(layers, "call", other):
            return probe.wrapper.get_logits(x)

    def right(x):
        key = "soft for hard", probe.seen.key
        logits = probe.forward(key, probe.seen.through(view), x)
        return (logits.argmax(-1) == probe.y).mean()

    clean = right(probe.x)
    under = right(probe.evaluation.x_adv[probe.numbers])
    name = "soft" if layers[0].hard else "hard"
    return (
        "pass" if clean >= 0.99 else "warn",
        f"with {name} levels {percent(clean)} of the correct images stay "
        f"correct, {percent(under)} of the attacked ones",
        "Soft and hard levels are two functions: say which one is deployed, "
        "and evaluate that one.",
    )


@check(15, "logit-scale", "logits are of moderate size", light=True)
def logit_scale(probe):
    logits = probe.logits(probe.x)
    sums = np.abs(logits.sum(1) - 1) < 1e-5
    probabilities = bool((logits >= 0).all() and (logits <= 1).all())
    spread = float(np.median(np.ptp(logits, axis=1)))
    bad = probabilities and sums.all()
    return (
        "fail" if bad else "warn" if spread > 50 else "pass",
        "the model returns probabilities" if bad else f"range {spread:.3g}",
        "Attacks need logits of moderate size: a softmax, or logits far "
        "apart, saturates the cross-entropy. Use the DLR or margin loss.",
    )


@check(16, "determinism", "the model is deterministic", light=True)
def determinism(probe):
    if probe.judge.is_random:
        return (
            "none",
            f"judged over {probe.judge.draws} draws at each image",
            "The model answers at random: it was attacked in expectation, and "
            "an image counts as broken where fewer than half of the answers "
            "are right.",
        )
    runs = [probe.logits(probe.x) for _ in range(3)]
    size = max(float(np.abs(runs[0]).max()), 1e-12)
    worst = max(float(np.abs(run - runs[0]).max()) / size for run in runs)
    return (
        "pass" if worst <= 1e-6 else "fail",
        f"logits differ by {worst:.2g} of their size",
        "A model that answers at random must be attacked in expectation, and "
        "judged by many answers; this one was taken for one that does not.",
    )


@check(
    17, "silent-success", "adversarial images are what they claim", light=True
)
def silent_success(probe):
    e, t = probe.evaluation, probe.threat
    broken = np.flatnonzero(e.correct & ~e.robust)
    x_adv, x = e.x_adv[broken], e.x[broken]
    inside = norms.inside(x, x_adv, t.eps, t.norm, t.clip_min, t.clip_max)
    # Where answers are counted, an image near one half may be on either side.
    right = probe.right(x_adv, e.y[broken])
    bad = (right >= 0.5 + probe.judge.luck) | ~inside
    return (
        "fail" if bad.any() else "pass",
        f"{int(bad.sum())} of {len(broken)} adversarial images are not what "
        "they claim",
        "Every adversarial image is judged again: misclassified, in the ball, "
        "in the pixel range.",
    )


@check(
    18,
    "sandwich",
    "no certified image is broken",
    needs=(_CERTIFICATES,),
    light=True,
)
def sandwich(probe):
    broken = ~probe.evaluation.robust
    for by_number in probe.broken.values():
        broken[list(by_number)] = True
    both = np.flatnonzero(probe.certified & broken)
    return (
        "fail" if len(both) else "pass",
        f"{len(both)} certified images broken{listed(both)}",
        "An image proved robust must never be broken: one such image makes "
        "all certificates void.",
    )


@check(
    21,
    "eight-bit",
    "examples survive 8 bits",
    needs=(IMAGES, _IMAGE),
    light=True,
)
def eight_bit(probe):
    e, t = probe.evaluation, probe.threat
    broken = np.flatnonzero(e.correct & ~e.robust)
    unit = (e.x_adv[broken] - t.clip_min) / (t.clip_max - t.clip_min)
    rounded = t.clip_min + np.round(255 * unit) / 255 * (
        t.clip_max - t.clip_min
    )
    still = probe.fooled(rounded.astype("float32"), e.y[broken])
    share = float(still.mean()) if len(broken) else 1.0
    return (
        "pass" if share >= 0.9 else "warn",
        f"{percent(share)} of {len(broken)} adversarial images still fool "
        "when stored with 8 bits",
        "Examples that only live between grey levels cannot be shown to a "
        "system that reads image files.",
    )


def _wins(probe, threat):
    """Images that this kind of attacker broke and the white box does not.

    Whatever the order of the plan: images that white-box attacks of many
    steps did not see, since they were broken before, are tried now, as many
    as the checks may.

    Returns:
        Their numbers, their share of all images, and both in words.
    """
    outcomes = [o for o in probe.evaluation.outcomes if o.step.threat == threat]
    broken = np.concatenate(
        [np.zeros(0, "int64"), *(o.broken for o in outcomes)]
    )
    missed = missed_by_white_box(
        probe.evaluation.outcomes, len(probe.evaluation.y)
    )
    unseen = broken[~missed[broken]]
    again = unseen[: probe.budget.images if probe.mode == "all" else 0]
    won = broken[missed[broken]]
    if len(again):
        left = ~probe.fools(probe.descent(probe.budget.nb_iter), again)
        won = np.concatenate([won, again[left]])
    words = listed(won)
    unknown = len(unseen) - len(again)
    if unknown:
        words += f"; {unknown} more that white-box attacks did not see"
    for outcome in outcomes:
        probe.note(outcome.step.name)
    return won, len(won) / len(probe.evaluation.y), words
