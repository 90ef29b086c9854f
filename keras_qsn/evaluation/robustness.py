"""`evaluate_robustness`: a model's accuracy in the worst case."""

import dataclasses

import numpy as np

from keras_qsn._core.executors import executor_of
from keras_qsn._core.kept import Folder
from keras_qsn._core.kept import work_folder
from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_number
from keras_qsn._core.precision import check_float_type
from keras_qsn._core.progress import Progress
from keras_qsn.attacks import norms
from keras_qsn.attacks.running import check_eps
from keras_qsn.classifier.detector import check_detector
from keras_qsn.classifier.inputs import as_arrays
from keras_qsn.classifier.inputs import check_images
from keras_qsn.classifier.inputs import check_labels
from keras_qsn.classifier.inputs import labelled_images
from keras_qsn.classifier.memory import images_at_once
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import plans
from keras_qsn.evaluation import preflight
from keras_qsn.evaluation.approach import approach
from keras_qsn.evaluation.checked import checked
from keras_qsn.evaluation.checks import running
from keras_qsn.evaluation.checks.probe import Probe
from keras_qsn.evaluation.detection import Detection
from keras_qsn.evaluation.facts import ModelFacts
from keras_qsn.evaluation.judge import Judge
from keras_qsn.evaluation.key import check_functions
from keras_qsn.evaluation.key import key
from keras_qsn.evaluation.result import Evaluation
from keras_qsn.evaluation.result import UntrustedEvaluation
from keras_qsn.evaluation.run import Work
from keras_qsn.evaluation.run import run
from keras_qsn.evaluation.sources import trained_sources
from keras_qsn.evaluation.surrogates import check_surrogates
from keras_qsn.evaluation.threat_model import ThreatModel


def evaluate_robustness(
    model,
    x,
    y=None,
    eps=0.3,
    norm=np.inf,
    plan="standard",
    sources=None,
    train_data=None,
    value_range=None,
    seed=0,
    batch_size=None,
    folder=None,
    certified=None,
    strict=False,
    checks="all",
    progress=None,
    verbose="auto",
    workers=1,
    surrogates=None,
    draws=100,
    detector=None,
    attack_dtype=None,
):
    """Accuracy of a classifier in the worst case over many attacks.

    An image counts as robust if it is classified correctly and no attack of
    the plan finds an image within `eps` of it, in the given norm, that is
    not. Attacks run one after the other on the images still unbroken; then
    come the checks of whether they can be believed. Which attacks a named
    plan has depends on the model: its classes, the shape of its images,
    whether it is quantized, which layers hide their gradient, whether it
    answers at random, and in how many bits it computes.

    Args:
        model: Keras classifier, or a `KerasModelWrapper` around one.
        x: Images in `value_range` (floats, or uint8 where it is 0 to 255), or
            a batched `tf.data.Dataset` of images and labels.
        y: True classes, integers or one-hot; `None` with a dataset.
        eps: Float > 0. Radius of the ball, in pixel units; for `norm=0` how
            many pixels may change, a whole number, each channel's for itself.
            Defaults to `0.3`.
        norm: `np.inf`, `2`, `1` or `0`. Defaults to `np.inf`.
        plan: `"quick"`, `"standard"`, `"full"`, or a list of `Step` or of
            attacks. Defaults to `"standard"`.
        sources: Optional `{name: model}`, models to transfer examples from.
        train_data: Optional `(x, y)`. If given, a named plan trains models
            to transfer from: the same network without its quantizers and,
            except in the quick plan, with another seed and a substitute.
        value_range: `(low, high)`, the smallest and the largest pixel,
            numbers or arrays that broadcast to one image, such as one for
            each feature of a table. Defaults to `None`: what the model's
            quantizer or `Rescaling` says, else `(0, 1)`.
        seed: Integer. Same seed, same result. Defaults to `0`.
        batch_size: Images attacked at once: a number, or the memory that they
            may take, such as `"500MB"`, and 128 at most. Defaults to `None`:
            `"2GB"`.
        folder: Optional folder that keeps each finished attack; the same
            call goes on from there after an interrupt or a kill.
        certified: Optional booleans, one for each image: which are proved
            robust, to be held against the attacks.
        strict: Whether failed checks raise. Defaults to `False`.
        checks: `"all"`; `"light"`, those that cost no more than a few passes
            over the images; or `None`. Defaults to `"all"`.
        progress: Optional function called with the name of the attack, the
            number of images it has finished, and their count.
        verbose: `0`, `1` or `"auto"`: lines and bars never, always, or
            unless there is a `progress`. Defaults to `"auto"`.
        workers: Processes that share the images of the attacks; `"ray"`, for
            Ray on this machine, or the address of a Ray cluster. Defaults to
            `1`: this process. The result is the same.
        surrogates: Optional `{layer name: surrogate}`: what attacks of a
            named plan differentiate in place of a layer that hides its
            gradient, a function, a Keras layer, `"identity"` or `"own"`, as
            for `attacks.LayerSurrogates`. Layers not named are found, and
            get their own `surrogate`, the identity, or a small network
            fitted to imitate them.
        draws: Integer >= 1. Answers counted at each image where the model
            answers at random: right is what at least half of them are.
            Defaults to `100`.
        detector: Optional `Detector` with a threshold. What it rejects is not
            broken; of the images themselves, it is not right. A named plan
            attacks it with the model, with `norm` `np.inf` or `2`.
        attack_dtype: Name of the float type that inner layers compute in
            where attacks of a named plan climb a loss inside the ball, as
            `attacks.LowPrecision` has it; what they find is judged on the
            model itself. Defaults to `None`: `"bfloat16"` where this
            processor multiplies it faster (measured, some hundredths of a
            second), else `"float32"`; name one where machines are compared.

    Returns:
        An `Evaluation`.

    Raises:
        UntrustedEvaluation: If `strict`, and checks failed.
        ValueError: If an argument is out of range, `folder` holds another
            evaluation, or no image is right and the model is made for another
            range of pixels.

    Example:

    >>> model = cleverhans_cnn(quantizer=ConstantQuantization(2), seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> y = KerasModelWrapper(model).predict(x)
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
    executor = executor_of(workers)
    wrapper = KerasModelWrapper.of(model)
    x, y, low, high = labelled_images(
        wrapper, x, y, value_range, "robustness is accuracy"
    )
    norm = norms.check_norm(norm, (np.inf, 2, 1, 0))
    check_number("eps", eps)
    if not (np.isfinite(eps) and eps > 0):
        raise ValueError(
            f"`eps` must be a finite number above 0. Received: eps={eps}"
        )
    batch_size = images_at_once(batch_size, wrapper, x.shape[1:])
    seed = check_count("seed", seed, np.iinfo("int32").min)
    if not isinstance(sources or {}, dict):
        raise TypeError(
            "`sources` must be a dictionary, {name: model}. "
            f"Received: sources={sources!r}"
        )
    certified = preflight.check_certified(certified, len(x))
    surrogates = check_surrogates(surrogates, wrapper, folder)
    draws = check_count("draws", draws)
    if attack_dtype is not None:
        attack_dtype = check_float_type("attack_dtype", attack_dtype)
    running.check_mode(checks)
    threat = ThreatModel(float(eps), norm, low, high, seed)
    check_eps(threat, x.shape[1:])
    if detector is not None:
        check_detector(detector)
        preflight.check_attacks_of_detectors(threat, plan, wrapper)
    if verbose == "auto":
        verbose = int(progress is None)
    progress = Progress(progress, verbose)
    own = None
    if isinstance(plan, str):
        plans.check_name(plan)
    else:
        own = plans.given(plan, threat)
        preflight.check_sources(own, wrapper)
        if folder is not None:
            check_functions(own)
    if train_data is not None:
        images, labels = as_arrays(*train_data)
        images = check_images(images, low, high, wrapper)
        labels = check_labels(labels, len(images), wrapper.num_classes)
        train_data = images, labels
    judge = Judge.of(wrapper, x, draws, seed, batch_size, detector)
    detection = None
    if detector is not None:
        scores = detector.score(x)
        detection = Detection(**detector.told(), clean=scores, attacked=scores)
    decisive = key(
        wrapper,
        x,
        y,
        threat,
        batch_size,
        own or plan,
        checks,
        sources,
        train_data,
        certified,
        surrogates,
        draws,
        detector,
        attack_dtype,
    )
    # What is refused leaves no folder behind.
    facts = ModelFacts.of(wrapper, x.shape[1:], threat)
    settings = {"model": wrapper.model.name, **decisive}
    prediction = preflight.predict(judge, x, y)
    evaluation = Evaluation(
        *(settings, x, y, prediction, [], [], {}, {}), detection=detection
    )
    preflight.check_scale(evaluation, wrapper, threat)
    preflight.warn(evaluation, facts, wrapper, threat)
    with work_folder(folder, decisive) as path:
        folder = Folder(path)
        steps, missing = own, {}
        images = None if train_data is None else train_data[0]
        model_so_far = wrapper, x, prediction, threat, facts, judge
        facts, sight, seen = approach(
            *model_so_far,
            *(None if own else plan, surrogates, images, attack_dtype, folder),
        )
        if own is None:
            sources = dict(sources or {})
            if train_data is not None:
                trained, missing = trained_sources(
                    sight.seen(wrapper).wrapper,
                    *train_data,
                    plan,
                    seed,
                    folder,
                    progress,
                )
                sources |= trained
            steps = plans.named(plan, threat, facts, sources, sight)
        preflight.check_sources(steps, wrapper)
        evaluation = dataclasses.replace(
            evaluation,
            settings={
                **settings,
                **seen,
                "plan": plan if own is None else "own",
                "attacks": [step.get_config() for step in steps],
                "missing_sources": missing,
            },
            outcomes=run(
                evaluation,
                Work(judge, steps, threat),
                *(folder, progress, executor),
            ),
        )
        budget = running.BUDGETS[plan if own is None else "quick"]
        if checks is not None:
            given = wrapper, evaluation, threat, facts, budget, certified
            probe = Probe(*given, checks, sight, judge)
            evaluation = checked(evaluation, probe, folder, progress)
        answers = judge.answers(evaluation, folder)
        evaluation = dataclasses.replace(evaluation, answers=answers)
    if detector is not None:
        attacked = detector.score(evaluation.x_adv)
        detection = dataclasses.replace(detection, attacked=attacked)
        evaluation = dataclasses.replace(evaluation, detection=detection)
    if strict and evaluation.failed:
        raise UntrustedEvaluation(evaluation)
    return evaluation
