"""Whether the attacks can be believed: the checks of masked gradients.

One function for each check, numbered as in the report. A check that fails
says that the accuracy measured is not the truth, not that the model is bad.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_qsn import attacks
from keras_qsn.attacks import norms
from keras_qsn.attacks.objectives import loss_gradient
from keras_qsn.attacks.objectives import margin_gradient
from keras_qsn.attacks.quantizers import backward_through
from keras_qsn.attacks.quantizers import quantizers_of
from keras_qsn.evaluation import active
from keras_qsn.evaluation.outcome import Check
from keras_qsn.evaluation.outcome import Outcome
from keras_qsn.evaluation.outcome import Step
from keras_qsn.evaluation.probe import Probe
from keras_qsn.layers import QuantLayer
from keras_qsn.tracing import replaced

# Half a point of accuracy.
_HALF_POINT = 0.005

# A slope, of logits by pixel, that attacks lose sight of.
_FAINT = 1e-8


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much work the checks may do.

    Args:
        images: Largest number of images tried.
        nb_iter: Steps of the longer PGD.
        restarts: Of PGD.
        samples: Random points for each image, of each of two kinds.
    """

    images: int
    nb_iter: int
    restarts: int
    samples: int


BUDGETS = {
    "quick": Budget(images=24, nb_iter=40, restarts=4, samples=100),
    "standard": Budget(images=64, nb_iter=100, restarts=8, samples=1000),
    "full": Budget(images=100, nb_iter=100, restarts=20, samples=10000),
}


def check(evaluation, wrapper, threat, budget, certified=None, tell=None):
    """Run all checks.

    Args:
        evaluation: The `Evaluation` of the attacks.
        wrapper: The model's `KerasModelWrapper`.
        threat: The `ThreatModel`.
        budget: A `Budget`.
        certified: Optional booleans: the images proved robust.
        tell: Optional function called with a name, the number of checks
            done, and their count.

    Returns:
        A list of `Check`; an `Outcome` of the images that checks broke and
        attacks did not; accuracy curves; the loss along an attack.
    """
    probe = Probe(wrapper, evaluation, threat, budget)
    done = []
    for number, (name, function) in enumerate(_CHECKS, 1):
        if function is sandwich:
            found = sandwich(probe, certified)
        elif len(probe.numbers):
            found = function(probe)
        else:
            found = "none", "no image", "The model gets no image right."
        done.append(Check(number, name, *found))
        if tell is not None:
            tell("checks", number, len(_CHECKS))
    broken = np.array(
        sorted(n for n in probe.found if evaluation.robust[n]), "int64"
    )
    step = Step("checks", "adaptive", None)
    outcome = Outcome(
        step,
        np.intersect1d(probe.numbers, np.flatnonzero(evaluation.robust)),
        broken,
        np.array([probe.found[n] for n in broken]).reshape(
            -1, *evaluation.x.shape[1:]
        ),
        0,
        0.0,
    )
    return done, outcome, probe.curve, probe.trace


def eps_zero(probe):
    attack = probe.threat.at(0.0).attack(attacks.FastGradientMethod)
    left = probe.survives(attack).mean()
    return (
        "pass" if left == 1 else "fail",
        f"{_points(left)} of correct images left at eps 0",
        "Without a perturbation nothing may change; else the attack or the "
        "model is not what it seems (random layers, wrong labels).",
    )


def ladder(probe):
    fgsm = probe.survives(probe.threat.attack(attacks.FastGradientMethod))
    short = probe.survives(probe.descent(10))
    long = probe.survives(probe.descent(probe.budget.nb_iter))
    rungs = [fgsm.mean(), short.mean(), long.mean()]
    worst = max(b - a for a, b in zip(rungs, rungs[1:]))
    return (
        _graded(worst, len(fgsm)),
        f"FGSM {_points(rungs[0])}, PGD-10 {_points(rungs[1])}, "
        f"PGD-{probe.budget.nb_iter} {_points(rungs[2])} left",
        "More steps must not break fewer images; where they do, gradients "
        "mislead, and accuracy under gradient attacks means little.",
    )


def eps_sweep(probe):
    t = probe.threat
    scale = t.clip_max - t.clip_min
    # At half the range every image can be turned into the same grey one.
    grey = scale * norms.diameter(t.norm, probe.x[0].size) / 2
    radii = sorted({0.0, t.eps / 4, t.eps / 2, t.eps, min(2 * t.eps, grey)})
    radii = [*radii, *([grey] if grey > radii[-1] else [])]
    left = [probe.survives(probe.strongest(eps)).mean() for eps in radii]
    share = float(probe.evaluation.clean_accuracy)
    probe.curve["strongest"] = [
        (float(eps), share * float(a)) for eps, a in zip(radii, left)
    ]
    probe.curve["FGSM"] = [
        (
            float(eps),
            share
            * float(
                probe.survives(
                    t.at(eps).attack(attacks.FastGradientMethod)
                ).mean()
            ),
        )
        for eps in radii
    ]
    rise = max(b - a for a, b in zip(left, left[1:]))
    status = _graded(rise, len(probe.x))
    classes = probe.logits(probe.x[:1]).shape[1]
    if left[-1] > 1 / classes + 0.02:
        status = "fail"
    return (
        status,
        ", ".join(f"eps {e:.3g}: {_points(a)}" for e, a in zip(radii, left)),
        "Accuracy must fall with eps, to that of guessing where every image "
        "can be turned grey; an attack that cannot do that is broken.",
    )


def unbounded(probe):
    t = probe.threat
    eps = norms.diameter(t.norm, probe.x[0].size) * (t.clip_max - t.clip_min)
    left = probe.survives(probe.strongest(eps)).mean()
    return (
        "pass" if left == 0 else "fail",
        f"{_points(left)} left",
        "An attack that may change everything must break everything; else it "
        "is the attack that is weak.",
    )


def loss_curve(probe):
    nb_iter = probe.budget.nb_iter
    loss, left = _follow(probe, 2 * nb_iter)
    probe.trace["PGD"] = [float(value) for value in loss]
    best = np.maximum.accumulate(loss)
    gain = best[-1] / max(best[nb_iter], 1e-12) - 1
    drop = left[nb_iter] - left[-1]
    return (
        "pass" if gain < 0.01 and drop <= _HALF_POINT else "warn",
        f"loss {best[nb_iter]:.4g} after {nb_iter} steps, {best[-1]:.4g} after "
        f"{2 * nb_iter}; {_points(drop)} more broken",
        "Twice the steps must bring nothing; else the attack has not "
        "converged: take more steps.",
    )


def restarts(probe):
    most = probe.budget.restarts
    counts = [1, most // 2, most]
    left = [
        probe.survives(probe.descent(10, nb_restarts=n)).mean() for n in counts
    ]
    return (
        "pass" if left[1] - left[2] <= _HALF_POINT else "warn",
        ", ".join(f"{n}: {_points(a)} left" for n, a in zip(counts, left)),
        "Twice the restarts must bring nothing; else take more restarts.",
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
        seen = f"{_points(hidden)} of pixels that matter hidden (below 1e-8)"
    worst = max(zero, hidden)
    return (
        "fail" if worst > 0.2 else "warn" if worst > 0.01 else "pass",
        f"{_points(zero)} of images without a gradient; {seen}",
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
        f"{_points(share)} of {count} slopes have the gradient's sign",
        "The gradient must point where the loss goes at the scale of the "
        "attack; else use a surrogate gradient (BPDA) or queries.",
    )


def random_search(probe):
    rng = np.random.default_rng(probe.threat.seed)
    t = probe.threat
    rows = np.flatnonzero(probe.robust)
    x, y = probe.x[rows], probe.y[rows]
    broken = np.zeros(len(rows), bool)
    for i in range(probe.budget.samples * 2 if len(rows) else 0):
        step = rng.uniform(-1, 1, x.shape)
        if t.norm == 2:
            size = np.sqrt(
                (step**2).sum(tuple(range(1, x.ndim)), keepdims=True)
            )
            step /= size
        elif i % 2:
            step = np.sign(step)
        tried = np.clip(x + t.eps * step, t.clip_min, t.clip_max)
        tried = tried.astype("float32")
        wrong = probe.predict(tried) != y
        probe.keep(probe.numbers[rows], tried, wrong & ~broken)
        broken |= wrong
    return (
        "fail" if broken.any() else "pass",
        f"{broken.sum()} of {len(rows)} images called robust broken by "
        f"{2 * probe.budget.samples} random points each",
        "Chance must not find what attacks missed; else they are blind.",
    )


def queries(probe):
    won, share = _wins(probe, "queries")
    return (
        "pass" if share <= 0.002 else "warn",
        f"{len(won)} images broken by queries alone{_listed(won)}",
        "Queries need no gradient: what only they break, gradients hid. The "
        "worst case counts it; take more queries to see whether there is "
        "more.",
    )


def surrogates(probe):
    if not probe.quantized:
        return _NOT_QUANTIZED
    won, share = _wins(probe, "adaptive")
    return (
        "pass" if share <= _HALF_POINT else "warn",
        f"{len(won)} images broken by adaptive attacks alone{_listed(won)}",
        "The quantizer masks its gradient: accuracy under plain gradient "
        "attacks overstates. The worst case counts it.",
    )


def transfer(probe):
    if not any(o.step.threat == "transfer" for o in probe.evaluation.outcomes):
        return (
            "warn",
            "not run",
            "No other model to transfer from: give `sources` or `train_data`.",
        )
    won, share = _wins(probe, "transfer")
    return (
        "pass" if share <= _HALF_POINT else "warn",
        f"{len(won)} images broken by transfer that white-box attacks "
        f"missed{_listed(won)}",
        "Black-box beats white-box: gradients are masked, and accuracy under "
        "white-box attacks overstates. The worst case counts it.",
    )


def cube(probe):
    if not probe.quantized:
        return _NOT_QUANTIZED
    if probe.opened is None or probe.threat.norm != np.inf:
        return (
            "none",
            "not applicable",
            "The cube attack needs L-infinity, and a quantizer that sees "
            "single pixels.",
        )
    numbers = [
        n
        for outcome in probe.evaluation.outcomes
        if not isinstance(outcome.step.attack, attacks.CubeAttack)
        for n in outcome.broken
    ]
    rows = np.flatnonzero(np.isin(probe.numbers, numbers))
    missed = np.zeros(0, int)
    if len(rows):
        attack = probe.threat.attack(attacks.CubeAttack, nb_restarts=10)
        missed = probe.numbers[rows][probe.survives(attack, rows)]
    return (
        "warn" if len(missed) else "pass",
        f"{len(missed)} of {len(rows)} images that others broke are missed by "
        f"the cube attack{_listed(missed)}",
        "It searches all that the quantizer lets through, so it should miss "
        "none; what it misses, it may miss elsewhere.",
    )


def soft_and_hard(probe):
    if not probe.quantized:
        return _NOT_QUANTIZED
    layers = quantizers_of(probe.wrapper)

    def other(layer, inputs):
        twin = QuantLayer.from_config(
            {**layer.get_config(), "hard": not layer.hard}
        )
        x = tf.cast(tf.convert_to_tensor(inputs), layer.variable_dtype)
        y = twin._staircase(x, tf.convert_to_tensor(layer.thresholds))
        return tf.cast(y, layer.compute_dtype)

    x_adv = probe.evaluation.x_adv[probe.numbers]
    with replaced(layers, "call", other):
        clean = (probe.predict(probe.x) == probe.y).mean()
        under = (probe.predict(x_adv) == probe.y).mean()
    name = "soft" if layers[0].hard else "hard"
    return (
        "pass" if clean >= 0.99 else "warn",
        f"with {name} levels {_points(clean)} of the correct images stay "
        f"correct, {_points(under)} of the attacked ones",
        "Soft and hard levels are two functions: say which one is deployed, "
        "and evaluate that one.",
    )


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


def determinism(probe):
    runs = [probe.logits(probe.x) for _ in range(3)]
    size = max(float(np.abs(runs[0]).max()), 1e-12)
    worst = max(float(np.abs(run - runs[0]).max()) / size for run in runs)
    return (
        "pass" if worst <= 1e-6 else "fail",
        f"logits differ by {worst:.2g} of their size",
        "A model that answers at random must be attacked in expectation, "
        "which these attacks do not do.",
    )


def silent_success(probe):
    e, t = probe.evaluation, probe.threat
    broken = np.flatnonzero(e.correct & ~e.robust)
    x_adv, x = e.x_adv[broken], e.x[broken]
    size = norms.size(tf.constant(x_adv - x), t.norm).numpy()
    bad = (
        (probe.predict(x_adv) == e.y[broken])
        | (size > t.eps * (1 + 1e-6))
        | ((x_adv < t.clip_min) | (x_adv > t.clip_max)).any(
            tuple(range(1, x.ndim))
        )
    )
    return (
        "fail" if bad.any() else "pass",
        f"{int(bad.sum())} of {len(broken)} adversarial images are not what "
        "they claim",
        "Every adversarial image is judged again: misclassified, in the ball, "
        "in the pixel range.",
    )


def sandwich(probe, certified):
    if certified is None:
        return (
            "none",
            "no certificates",
            "Give `certified` to hold proofs against attacks.",
        )
    broken = ~probe.evaluation.robust
    broken[list(probe.found)] = True
    both = np.flatnonzero(np.asarray(certified) & broken)
    return (
        "fail" if len(both) else "pass",
        f"{len(both)} certified images broken{_listed(both)}",
        "An image proved robust must never be broken: one such image makes "
        "all certificates void.",
    )


def self_test(probe):
    if probe.threat.norm != np.inf:
        return ("none", "not applicable", "The self-test is for L-infinity.")
    bare = quantizers_of(probe.wrapper) if probe.quantized else []
    t, count = probe.threat, min(len(probe.x), 24)
    x, y = probe.x[:count], probe.y[:count]
    with replaced(bare, "call", lambda layer, inputs: inputs):
        quantizer = QuantLayer(
            33, 500.0, hard=True, value_range=(t.clip_min, t.clip_max)
        )
        broken = keras.Sequential(
            [keras.Input(x.shape[1:]), quantizer, probe.wrapper.model]
        )
        open_model = keras.Sequential(
            [keras.Input(x.shape[1:]), probe.wrapper.model]
        )
        plain = probe.run(probe.descent(20), open_model, x, y)
        attack = t.attack(attacks.CubeAttack, nb_iter=20, nb_restarts=3)
        masked = probe.run(attack, broken, x, y)
    gap = float(plain.success.mean() - masked.success.mean())
    return (
        "pass" if gap <= 0.05 else "fail",
        f"{_points(1 - plain.success.mean())} left without a quantizer, "
        f"{_points(1 - masked.success.mean())} behind one of 33 hard levels",
        "A fine quantizer protects nothing, and the adaptive attack must see "
        "through it.",
    )


def active_test(probe):
    rate, count = active.pass_rate(probe)
    if not count:
        return (
            "none",
            "not applicable",
            "No planted example could be made: the layer before the logits "
            "does not tell points of the ball apart.",
        )
    return (
        "pass" if rate >= 0.9 else "warn",
        f"{_points(rate)} of {count} planted examples found",
        "Examples that exist by construction must be found; else the attack "
        "is too weak for this model.",
    )


def eight_bit(probe):
    e, t = probe.evaluation, probe.threat
    broken = np.flatnonzero(e.correct & ~e.robust)
    unit = (e.x_adv[broken] - t.clip_min) / (t.clip_max - t.clip_min)
    rounded = t.clip_min + np.round(255 * unit) / 255 * (
        t.clip_max - t.clip_min
    )
    still = probe.predict(rounded.astype("float32")) != e.y[broken]
    share = float(still.mean()) if len(broken) else 1.0
    return (
        "pass" if share >= 0.9 else "warn",
        f"{_points(share)} of {len(broken)} adversarial images still fool "
        "when stored with 8 bits",
        "Examples that only live between grey levels cannot be shown to a "
        "system that reads image files.",
    )


_CHECKS = [
    ("nothing changes at eps 0", eps_zero),
    ("more steps break more", ladder),
    ("larger eps breaks more", eps_sweep),
    ("no limit breaks everything", unbounded),
    ("attack has converged", loss_curve),
    ("restarts bring nothing more", restarts),
    ("gradients are there", gradient_health),
    ("gradients point the right way", finite_difference),
    ("chance finds nothing", random_search),
    ("queries find nothing more", queries),
    ("surrogate gradients find nothing more", surrogates),
    ("transfer finds nothing more", transfer),
    ("the cube attack misses nothing", cube),
    ("soft and hard levels agree", soft_and_hard),
    ("logits are of moderate size", logit_scale),
    ("the model is deterministic", determinism),
    ("adversarial images are what they claim", silent_success),
    ("no certified image is broken", sandwich),
    ("the attack sees through a known mask", self_test),
    ("planted examples are found", active_test),
    ("examples survive 8 bits", eight_bit),
]

_NOT_QUANTIZED = (
    "none",
    "not applicable",
    "The model has no quantization layer.",
)


def _points(share):
    return f"{100 * share:.1f} %"


def _listed(numbers):
    if not len(numbers):
        return ""
    more = ", ..." if len(numbers) > 10 else ""
    return f" ({', '.join(str(n) for n in numbers[:10])}{more})"


def _graded(excess, count):
    """Within half a point, or one image of few, or more."""
    if excess <= _HALF_POINT:
        return "pass"
    return "warn" if excess <= 1 / count + 1e-9 else "fail"


def _wins(probe, threat):
    """Images broken by this kind of attacker, after others had failed."""
    before = {"transfer": ["white-box"]}.get(threat)
    outcomes = probe.evaluation.outcomes
    ran = {o.step.threat for o in outcomes}
    if before and not ran & set(before):
        return np.zeros(0, int), 0.0
    won = np.concatenate(
        [np.zeros(0, int)]
        + [o.broken for o in outcomes if o.step.threat == threat]
    )
    return won, len(won) / len(probe.evaluation.y)


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

    @tf.function(autograph=False)
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

    losses, left = run(start)
    return losses.numpy(), left.numpy()
