"""`minimal_distances`: how far the nearest adversarial examples are."""

import dataclasses

import numpy as np

from keras_qsn._core.config import plain
from keras_qsn._core.kept import Folder
from keras_qsn._core.kept import work_folder
from keras_qsn._core.numbers import check_count
from keras_qsn._core.progress import Progress
from keras_qsn._core.shares import percent
from keras_qsn.attacks import norms
from keras_qsn.classifier.inputs import labelled_images
from keras_qsn.classifier.memory import images_at_once
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import nearest
from keras_qsn.evaluation import plans
from keras_qsn.evaluation import preflight
from keras_qsn.evaluation.approach import approach
from keras_qsn.evaluation.distances import MinimalDistances
from keras_qsn.evaluation.facts import ModelFacts
from keras_qsn.evaluation.judge import Judge
from keras_qsn.evaluation.key import check_functions
from keras_qsn.evaluation.key import key
from keras_qsn.evaluation.reaching import reach
from keras_qsn.evaluation.threat_model import ThreatModel


def minimal_distances(
    model,
    x,
    y=None,
    norm=2,
    plan="standard",
    value_range=None,
    seed=0,
    batch_size=None,
    folder=None,
    progress=None,
    verbose="auto",
):
    """Of each image, the smallest perturbation that any attack finds.

    Every attack of the plan runs on every image; what counts is the nearest
    example of all, in the given norm, wherever an attack itself looked. Its
    cost stands beside it, as passes of one image through the network, forwards
    and backwards. An image that is misclassified as it is has distance 0.

    Args:
        model: Keras classifier, or a `KerasModelWrapper` around one.
        x: Images in `value_range` (floats, or uint8 where it is 0 to 255), or
            a batched `tf.data.Dataset` of images and labels.
        y: True classes, integers or one-hot; `None` with a dataset.
        norm: `np.inf`, `2`, `1` or `0`, the number of pixels that change.
            Distances are in pixel units. Defaults to `2`.
        plan: `"quick"`, `"standard"`, `"full"` (50, 100 or 1000 steps of a
            search, and more kinds of attack), or a list of `Step` or of
            attacks. Defaults to `"standard"`.
        value_range: As for `evaluate_robustness`.
        seed: Integer. Same seed, same result. Defaults to `0`.
        batch_size: Images attacked at once: a number, or the memory that they
            may take, such as `"500MB"`, and 128 at most. Defaults to `None`:
            `"2GB"`.
        folder: Optional folder that keeps each finished batch of each attack;
            the same call goes on from there after an interrupt or a kill.
        progress: Optional function called with the name of the attack, the
            number of images it has finished, and their count.
        verbose: `0`, `1` or `"auto"`: lines and bars never, always, or
            unless there is a `progress`. Defaults to `"auto"`.

    Returns:
        A `MinimalDistances`.

    Raises:
        ValueError: If an argument is out of range, `folder` holds other work,
            or the model answers at random.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> y = KerasModelWrapper(model).predict(x)
    >>> attacks = [FastMinimumNorm(nb_iter=30), DeepFool()]
    >>> found = minimal_distances(model, x, y, plan=attacks, verbose=0)
    >>> found.found[0].forward
    30.0
    >>> bool(0 < found.median <= min(found.medians.values()))
    True

    Limitations:
        Upper bounds: another attack may find nearer examples, and where a
        layer hides the gradient much nearer ones; named plans go through such
        layers as `evaluate_robustness` does, plans of your own as they are.

    Reference:
        - Cina et al., 2024 (AttackBench), for the best of an ensemble within
          a budget of passes: https://arxiv.org/abs/2404.19460
    """
    wrapper = KerasModelWrapper.of(model)
    x, y, low, high = labelled_images(
        wrapper, x, y, value_range, "the distance is to another one"
    )
    norm = norms.check_norm(norm, (np.inf, 2, 1, 0))
    batch_size = images_at_once(batch_size, wrapper, x.shape[1:])
    seed = check_count("seed", seed, np.iinfo("int32").min)
    if verbose == "auto":
        verbose = int(progress is None)
    progress = Progress(progress, verbose)
    # A ball that holds every image.
    threat = ThreatModel(np.inf, norm, low, high, seed)
    threat = threat.at(threat.diameter(x.shape[1:]))
    own = None
    if isinstance(plan, str):
        plans.check_name(plan)
    else:
        own = plans.given(plan, threat)
        if folder is not None:
            check_functions(own)
    judge = Judge.of(wrapper, x, 1, seed, batch_size)
    if judge.is_random:
        raise ValueError(
            "A model that answers at random has no smallest distance: an "
            "example may be luck. Received: one whose logits move by "
            f"{percent(judge.chance.spread)} of the largest. Judge it by many "
            "answers within a radius: `evaluate_robustness(model, x, y, eps)`."
        )
    prediction = preflight.predict(judge, x, y)
    facts = ModelFacts.of(wrapper, x.shape[1:], threat)
    wrong = prediction != y
    best, x_adv, found = np.where(wrong, 0.0, np.inf), x.copy(), []
    decisive = _key(wrapper, x, y, threat, batch_size, own or plan)
    with work_folder(folder, decisive) as path:
        folder = Folder(path)
        facts, sight, seen = approach(
            *(wrapper, x, prediction, _near(threat), facts, judge),
            *(None if own else plan, {}, None, "float32", folder),
        )
        steps = own or nearest.named(plan, threat, facts, sight)
        for number, step in enumerate(steps):
            one, result = reach(
                *(number, step, wrapper, x, y, norm, batch_size),
                *(folder, progress),
            )
            one.distances[wrong] = 0
            nearer = one.distances < best
            best[nearer], x_adv[nearer] = one.distances[nearer], result[nearer]
            found.append(one)
            progress.line(f"{step.name}: median {np.median(best[~wrong]):.4g}")
    settings = {
        "model": wrapper.model.name,
        "norm": "inf" if norm == np.inf else int(norm),
        "plan": "own" if own else plan,
        "value_range": [plain(low), plain(high)],
        "seed": seed,
        "batch_size": batch_size,
        "images": len(x),
        "masks": seen["masks"],
    }
    return MinimalDistances(settings, x, y, prediction, x_adv, found)


def _near(threat):
    """A radius at which to look whether a layer hides its gradient."""
    widest = float(np.max(np.subtract(threat.clip_max, threat.clip_min)))
    return dataclasses.replace(threat, eps=0.1 * widest, norm=np.inf)


def _key(wrapper, x, y, threat, batch_size, plan):
    """What decides the result, as plain values."""
    nothing = dict.fromkeys(("checks", "sources", "train_data", "certified"))
    given = wrapper, x, y, threat, batch_size, plan
    decisive = key(*given, **nothing, surrogates={}, draws=1)
    # The radius is none that anybody gave.
    del decisive["eps"]
    return {"work": "minimal distances", **decisive}
