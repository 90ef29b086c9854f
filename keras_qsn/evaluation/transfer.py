"""`transfer_matrix`: what is crafted on one model, judged on all others."""

import warnings

import numpy as np

from keras_qsn._core.progress import Progress
from keras_qsn.attacks import Attack
from keras_qsn.attacks import BlindAttackWarning
from keras_qsn.classifier.inputs import as_arrays
from keras_qsn.classifier.inputs import check_labels
from keras_qsn.classifier.memory import images_at_once
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import plans
from keras_qsn.evaluation.transferability import TransferMatrix


def transfer_matrix(
    models,
    x,
    y=None,
    attacks=(),
    sources=None,
    batch_size=None,
    progress=None,
    verbose="auto",
):
    """Which attacks find, on one model, what fools another.

    Each attack crafts examples on each model, once, and all models judge
    them. Steps of one kind against many steps, say: a single-step adversary
    often transfers, a multi-step one fits its source.

    Args:
        models: `{name: model}` of at least two Keras classifiers of the same
            images and classes, each as it is or in a `KerasModelWrapper`; or
            a list, named by their models. Crafted on and judged.
        x: Images in the range of the attacks, or a batched `tf.data.Dataset`
            of images and labels.
        y: True classes, integers or one-hot; `None` with a dataset.
        attacks: `{name: attack}`, or a list, named as `evaluate_robustness`
            names them. None that has a source already.
        sources: More of `{name: model}`, crafted on but not judged, such as
            an `ensemble` of some. Defaults to `None`.
        batch_size: Images attacked at once: a number, or the memory that they
            may take, such as `"500MB"`, and 128 at most. Defaults to `None`:
            `"2GB"`.
        progress: Optional function called with `"attack on source"`, the
            number of images done, and their count.
        verbose: `0`, `1` or `"auto"`: lines and bars never, always, or for
            what takes over a second. Defaults to `"auto"`.

    Returns:
        A `TransferMatrix`, which prints as a table for each attack.

    Raises:
        TypeError: If there is something else than models or attacks.
        ValueError: If there are less than two models or no attack, a name is
            there twice, or images or classes do not fit.

    Example:

    >>> models = {f"seed {i}": cleverhans_cnn(seed=i) for i in (0, 1)}
    >>> x = np.random.default_rng(0).random((8, 28, 28, 1), "float32")
    >>> y = KerasModelWrapper(models["seed 0"]).predict(x)
    >>> attacks = [FastGradientMethod(0.1), BasicIterativeMethod(0.1)]
    >>> matrix = transfer_matrix(models, x, y, attacks)
    >>> matrix.success("FastGradientMethod").shape
    (2, 2)

    Limitations:
        A lower bound of what transfers: other attacks, and more sources at
        once, transfer better. Without a ball (`CarliniWagnerL2`), what an
        attack finds on its source lies just behind its boundary and hardly
        transfers. Models that answer at random are judged by one answer.

    Reference:
        - Papernot et al., 2016: https://arxiv.org/abs/1605.07277
        - Liu et al., 2017: https://arxiv.org/abs/1611.02770
        - Seiler, Trautmann and Kerschke, IJCNN 2020, "Enhancing Resilience of
          Deep Learning Networks By Means of Transferable Adversaries", whose
          own generator could not be had
    """
    targets = _models("models", models, 2)
    sources = {**targets, **_more(sources, targets)}
    attacks = _attacks(attacks)
    x, y = as_arrays(x, y)
    if y is None:
        raise ValueError(
            "`y` must hold the true classes: success is another one. "
            "Received: y=None"
        )
    classes = {name: w.num_classes for name, w in sources.items()}
    if len({*classes.values()}) > 1:
        raise ValueError(
            "All models must have the same classes. Received: "
            + ", ".join(f"'{name}' of {n}" for name, n in classes.items())
        )
    y = check_labels(y, len(x), next(iter(classes.values())))
    batch_size = min(
        images_at_once(batch_size, wrapper, x.shape[1:])
        for wrapper in sources.values()
    )
    show = Progress(progress, verbose)
    became, blind = {}, {}
    for name, attack in attacks.items():
        found = [
            _crafted(
                *(attack, wrapper, x, y, batch_size),
                lambda _, done, total, at=f"{name} on {source}": show(
                    at, done, total
                ),
            )
            for source, wrapper in sources.items()
        ]
        became[name] = np.array(
            [_judged(targets, one.x_adv, batch_size) for one in found]
        )
        blind[name] = np.array([one.blind for one in found])
    clean = np.asarray(x, "float32")
    return TransferMatrix(
        {
            "targets": [*targets],
            "sources": [*sources],
            "attacks": {
                name: {
                    "attack": type(attack).__name__,
                    "config": attack.get_config(),
                }
                for name, attack in attacks.items()
            },
            "images": len(x),
            "batch_size": batch_size,
        },
        y,
        _judged(targets, clean, batch_size),
        became,
        blind,
    )


def _crafted(attack, wrapper, x, y, batch_size, progress):
    """What an attack does to one source; where it is blind, the table says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlindAttackWarning)
        return attack.run(
            wrapper, x, y, batch_size=batch_size, progress=progress, verbose=0
        )


def _judged(targets, x, batch_size):
    """What all targets say of some images."""
    return np.array([w.predict(x, batch_size) for w in targets.values()])


def _models(what, given, least):
    """Wrappers by name."""
    if not isinstance(given, dict):
        if not isinstance(given, (list, tuple)):
            raise TypeError(
                f"`{what}` must be a dictionary, {{name: model}}, or a list. "
                f"Received: {given!r}"
            )
        wrappers = [KerasModelWrapper.of(model) for model in given]
        names = [wrapper.model.name for wrapper in wrappers]
        if len({*names}) < len(names):
            raise ValueError(
                "Models in a list are told by their names, which must differ. "
                f"Received: {names}. Give a dictionary, {{name: model}}."
            )
        given = dict(zip(names, wrappers))
    if len(given) < least:
        raise ValueError(
            f"`{what}` must hold at least {least} models. "
            f"Received: {len(given)}"
        )
    named = _by_text(what, given)
    return {name: KerasModelWrapper.of(model) for name, model in named.items()}


def _by_text(what, given):
    """With names as text, by which no two may be the same."""
    named = {str(name): value for name, value in given.items()}
    if len(named) < len(given):
        raise ValueError(
            f"Names of `{what}` must differ as text. Received: {[*given]}"
        )
    return named


def _more(sources, targets):
    """Sources that are no targets."""
    more = _models("sources", sources or {}, 0)
    twice = more.keys() & targets.keys()
    if twice:
        raise ValueError(
            "`sources` must have other names than `models`. "
            f"Received: {', '.join(sorted(twice))} in both"
        )
    return more


def _attacks(given):
    """Attacks by name."""
    if not isinstance(given, (dict, list, tuple)):
        raise TypeError(
            "`attacks` must be a dictionary, {name: attack}, or a list. "
            f"Received: {given!r}"
        )
    items = [*(given.values() if isinstance(given, dict) else given)]
    if not items:
        raise ValueError("`attacks` must hold an attack. Received: none")
    for attack in items:
        if not isinstance(attack, Attack) or attack.threat == "transfer":
            raise TypeError(
                "`attacks` must hold attacks that have no source of their "
                f"own. Received: {attack!r}"
            )
    if isinstance(given, dict):
        return _by_text("attacks", given)
    named = dict(zip(plans.names_of(items), items))
    if len(named) < len(items):
        raise ValueError(
            "Attacks in a list must differ. Received: "
            f"{', '.join(plans.names_of(items))}. Give a dictionary, "
            "{name: attack}."
        )
    return named
