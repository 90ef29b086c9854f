"""`evaluate_robustness`: a model's accuracy in the worst case."""

import dataclasses
import time
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.attacks import norms
from keras_qsn.evaluation import checks as checking
from keras_qsn.evaluation import plans
from keras_qsn.evaluation.key import key
from keras_qsn.evaluation.outcome import Evaluation
from keras_qsn.evaluation.outcome import Outcome
from keras_qsn.evaluation.outcome import UntrustedEvaluation
from keras_qsn.evaluation.sources import trained_sources
from keras_qsn.evaluation.store import Store
from keras_qsn.inputs import as_arrays
from keras_qsn.inputs import check_images
from keras_qsn.inputs import check_labels
from keras_qsn.kept import claimed
from keras_qsn.models import KerasModelWrapper

# Rounding of a norm in float32.
_SLACK = 1 + 1e-6


def evaluate_robustness(
    model,
    x,
    y=None,
    eps=0.3,
    norm=np.inf,
    plan="standard",
    sources=None,
    train_data=None,
    clip_min=0.0,
    clip_max=1.0,
    seed=0,
    batch_size=128,
    folder=None,
    certified=None,
    strict=False,
    progress=None,
    verbose="auto",
):
    """Accuracy of a classifier in the worst case over many attacks.

    An image counts as robust if it is classified correctly and no attack of
    the plan finds an image within `eps` of it, in the given norm, that is
    not. Attacks run one after the other on the images still unbroken; then
    come the checks of whether they can be believed.

    Args:
        model: Keras classifier, or a `KerasModelWrapper` around one.
        x: Float images in `[clip_min, clip_max]`, or a batched
            `tf.data.Dataset` of images and labels.
        y: True classes, integers or one-hot; `None` with a dataset.
        eps: Float > 0. Radius of the ball, in pixel units. Defaults to `0.3`.
        norm: `np.inf` or `2`. Defaults to `np.inf`.
        plan: `"quick"`, `"standard"`, `"full"`, or a list of `Step` or of
            attacks. Defaults to `"standard"`.
        sources: Optional `{name: model}`, models to transfer examples from.
        train_data: Optional `(x, y)`. If given, a named plan trains models
            to transfer from: the same network without its quantizers and,
            except in the quick plan, with another seed and a substitute.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Same seed, same result. Defaults to `0`.
        batch_size: Images attacked at once. Defaults to `128`.
        folder: Optional folder that keeps each finished attack; the same
            call goes on from there after an interrupt or a kill.
        certified: Optional booleans, one for each image: which are proved
            robust, to be held against the attacks.
        strict: Whether failed checks raise. Defaults to `False`.
        progress: Optional function called with the name of the attack, the
            number of images it has finished, and their count.
        verbose: `0`, `1` or `"auto"`: lines and bars never, always, or
            unless there is a `progress`. Defaults to `"auto"`.

    Returns:
        An `Evaluation`.

    Raises:
        UntrustedEvaluation: If `strict`, and checks failed.
        ValueError: If an argument is out of range, or `folder` holds another
            evaluation.

    Example:

    >>> model = cleverhans_cnn(quantizer=ConstantQuantization(2), seed=0)
    >>> x, y = np.full((2, 28, 28, 1), 0.5, "float32"), [3, 4]
    >>> attack = FastGradientMethod(eps=0.3)
    >>> evaluation = evaluate_robustness(model, x, y, plan=[attack], verbose=0)
    >>> evaluation.robust_accuracy <= evaluation.clean_accuracy
    True

    Limitations:
        An upper bound: another attack may break what these did not. Only
        certificates bound the accuracy from below.

    Reference:
        - Carlini et al., 2019: https://arxiv.org/abs/1902.06705
        - Croce and Hein, 2020: https://arxiv.org/abs/2003.01690
    """
    wrapper = KerasModelWrapper.of(model)
    x, y = as_arrays(x, y)
    if y is None:
        raise ValueError(
            "`y` must hold the true classes: robustness is accuracy. "
            "Received: y=None"
        )
    x = check_images(x, clip_min, clip_max, wrapper.model)
    y = check_labels(y, len(x), int(wrapper(x[:1]).shape[-1]))
    norm = norms.check_norm(norm, (np.inf, 2))
    if not (np.isfinite(eps) and eps > 0):
        raise ValueError(
            f"`eps` must be a finite number above 0. Received: eps={eps}"
        )
    threat = plans.ThreatModel(float(eps), norm, clip_min, clip_max, seed)
    verbose = bool(progress is None if verbose == "auto" else verbose)
    tell = _Teller(progress, verbose)
    own = None
    if isinstance(plan, str):
        plans.check_name(plan)
    else:
        own = plans.given(plan, threat)
    if train_data is not None:
        train_data = _check_train_data(train_data, wrapper, threat)
    decisive = key(
        wrapper,
        x,
        y,
        threat,
        batch_size,
        own or plan,
        sources,
        train_data,
        certified,
    )
    with claimed(folder, decisive) as folder:
        store = Store(folder)
        steps, missing = own, {}
        if own is None:
            steps, missing = _named_plan(
                plan, wrapper, threat, sources, train_data, folder, tell
            )
        settings = {
            "model": wrapper.model.name,
            **decisive,
            "plan": plan if own is None else "own",
            "attacks": [plans.describe(step) for step in steps],
            "missing_sources": missing,
        }
        prediction = predict(wrapper, x, batch_size)
        robust = prediction == y
        outcomes = []
        for number, step in enumerate(steps):
            outcome = store.load(number, step)
            if outcome is None:
                outcome = _attack(
                    wrapper, x, y, robust, step, threat, batch_size, tell
                )
                store.save(number, outcome)
            robust[outcome.broken] = False
            outcomes.append(outcome)
            tell.finished(step, robust.mean())
        evaluation = Evaluation(
            settings, x, y, prediction, outcomes, [], {}, {}
        )
        evaluation = _checked(
            evaluation, wrapper, threat, plan, certified, store, tell
        )
    if strict and evaluation.failed:
        raise UntrustedEvaluation(evaluation)
    return evaluation


def _checked(evaluation, wrapper, threat, plan, certified, store, tell):
    """The evaluation with its checks, and what they broke."""
    budget = checking.BUDGETS[plan if isinstance(plan, str) else "quick"]
    kept = store.load_checks()
    if kept is None:
        kept = checking.check(
            evaluation, wrapper, threat, budget, certified, tell
        )
        store.save_checks(kept)
    checks, outcome, curve, trace = kept
    outcomes = [
        *evaluation.outcomes,
        *([outcome] if len(outcome.broken) else []),
    ]
    tried = min(int(evaluation.correct.sum()), budget.images)
    return dataclasses.replace(
        evaluation,
        settings={**evaluation.settings, "curve_images": tried},
        outcomes=outcomes,
        checks=checks,
        curve=curve,
        trace=trace,
    )


def _named_plan(plan, wrapper, threat, sources, train_data, folder, tell):
    """The steps of a named plan, and why sources of it could not be made."""
    sources, missing = dict(sources or {}), {}
    if train_data is not None:
        trained, missing = trained_sources(
            wrapper, *train_data, plan, threat.seed, folder, tell
        )
        sources |= trained
    quantized = plans.is_quantized(wrapper.model)
    return plans.named(plan, threat, quantized, sources), missing


def _check_train_data(train_data, wrapper, threat):
    x, y = as_arrays(*train_data)
    x = check_images(x, threat.clip_min, threat.clip_max, wrapper.model)
    return x, check_labels(y, len(x), int(wrapper(x[:1]).shape[-1]))


def predict(wrapper, x, batch_size=128):
    """The model's classes of the images, as a NumPy array."""
    return np.concatenate(
        [
            wrapper.get_predicted_class(x[start : start + batch_size])
            for start in range(0, len(x), batch_size)
        ]
    ).astype("int32")


def _attack(wrapper, x, y, robust, step, threat, batch_size, tell):
    """Run a step on the images still robust."""
    started = time.perf_counter()
    tried = np.flatnonzero(robust)[: step.max_images]
    if not len(tried):
        return Outcome(step, tried, tried, x[:0], 0, 0.0)
    with warnings.catch_warnings():
        # Blind images are counted in the outcome, and checked.
        warnings.filterwarnings("ignore", ".*found a gradient of zero")
        result = step.attack.run(
            wrapper,
            x[tried],
            y[tried],
            batch_size=batch_size,
            callback=lambda done: tell(step.name, done, len(tried)),
        )
    size = norms.size(tf.constant(result.x_adv - x[tried]), threat.norm)
    inside = size.numpy() <= threat.eps * _SLACK
    # Of the images returned: of a batch of another size, a lead of one
    # rounding error may be gone.
    wrong = predict(wrapper, result.x_adv, batch_size) != y[tried]
    hit = result.success & inside & wrong
    return Outcome(
        step,
        tried,
        tried[hit],
        result.x_adv[hit],
        int(result.blind.sum()),
        time.perf_counter() - started,
    )


class _Teller:
    """Says how far the evaluation is."""

    def __init__(self, progress, verbose):
        self._progress = progress
        self._verbose = verbose
        self._bar = None
        self._name = None

    def __call__(self, name, done, total):
        if self._progress is not None:
            self._progress(name, done, total)
        if not self._verbose:
            return
        if name != self._name:
            print(name, flush=True)
            self._name = name
            self._bar = keras.utils.Progbar(total, unit_name="image")
        self._bar.update(done)

    def finished(self, step, accuracy):
        if self._verbose:
            print(f"{step.name}: {100 * accuracy:.1f} % left", flush=True)
