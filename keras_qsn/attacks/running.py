"""Running an attack on images: checks, batches, the verdict, warnings.

Building is what costs on a large network: the network itself is traced once
for each view of it, and what attacks and checks do with it calls that.
"""

import warnings

import numpy as np
import tensorflow as tf

from keras_qsn._core.progress import Progress
from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks.result import AttackInterrupted
from keras_qsn.attacks.result import AttackResult
from keras_qsn.attacks.result import BlindAttackWarning
from keras_qsn.attacks.views.base import Seen
from keras_qsn.classifier.compiled import compiled
from keras_qsn.classifier.compiled import compiled_logits
from keras_qsn.classifier.compiled import images_spec
from keras_qsn.classifier.compiled import numbers_spec
from keras_qsn.classifier.inputs import as_arrays
from keras_qsn.classifier.inputs import check_images
from keras_qsn.classifier.inputs import check_labels
from keras_qsn.classifier.inputs import in_words
from keras_qsn.classifier.memory import images_at_once
from keras_qsn.classifier.wrapper import KerasModelWrapper


def run_attack(
    attack,
    model,
    x,
    y=None,
    y_target=None,
    batch_size=None,
    progress=None,
    verbose="auto",
    first=0,
):
    """`Attack.run`, with the attack and its arguments.

    With `first`, the images are some of a larger set, from that number on,
    and have the seeds that they have there.
    """
    wrapper = KerasModelWrapper.of(model)
    check_gradient(attack, wrapper)
    x, y = as_arrays(x, y)
    x = check_images(x, attack.clip_min, attack.clip_max, wrapper)
    batch_size = images_at_once(batch_size, wrapper, x.shape[1:])
    check_eps(attack, x.shape[1:])
    labels = _check_labels(y, y_target, len(x), wrapper.num_classes)
    if labels is None:
        labels = wrapper.predict(x, batch_size)
    targeted = y_target is not None
    result = AttackResult(
        np.empty_like(x),
        np.empty(len(x), "int64"),
        np.empty(len(x), bool),
        np.empty(len(x), bool),
    )
    show = Progress(progress, verbose)
    done = 0
    try:
        while done < len(x):
            batch = slice(done, min(done + batch_size, len(x)))
            found = _on_batch(
                *(attack, wrapper, x[batch], labels[batch], targeted),
                first + done,
            )
            for whole, part in zip(result, found):
                whole[batch] = part
            done = batch.stop
            show(type(attack).__name__, done, len(x))
    except KeyboardInterrupt as error:
        finished = AttackResult(*(values[:done] for values in result))
        raise AttackInterrupted(finished) from error
    _warn_if_blind(attack, result, wrapper)
    return result


def check_gradient(attack, wrapper):
    """Refuse to look into a model of which only the answers are known."""
    if wrapper.answers_only and attack.threat not in ("queries", "transfer"):
        raise ValueError(
            f"A model of which only the answers are known "
            f"('{wrapper.model.name}') must be attacked by queries or from "
            f"another model. Received: {type(attack).__name__}, a "
            f"{attack.threat} attack. Attack a twin of it, and carry over: "
            "`TransferAttack(attack, twin)`, or `sources={'twin': twin}` of "
            "an evaluation."
        )


def compiled_gradient(wrapper, shape, key="logits", view=None, numbers=0):
    """The gradient that attacks start from, shared by attacks and checks.

    Args:
        wrapper: As for `compiled_logits`.
        shape: As for `compiled_logits`.
        key: As for `compiled_logits`.
        view: As for `compiled_logits`.
        numbers: As for `compiled_logits`.

    Returns:
        A concrete function of images, int32 labels, a boolean, whether the
        gradient of the margin is wanted, not the cross-entropy's, and the
        scalars; it returns that gradient, untargeted, and the logits.
    """

    def run(x, labels, of_margin, *scalars):
        logits = compiled_logits(wrapper, shape, key, view, numbers)

        def logits_fn(x):
            return logits(x, *scalars)

        return losses.gain_gradient(logits_fn, x, labels, of_margin, False)

    return compiled(
        wrapper,
        ("gradient", key, tuple(shape)),
        run,
        images_spec(shape),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.bool),
        *numbers_spec(numbers),
    )


def compiled_attack(attack, wrapper, shape, targeted):
    """`attack.craft` on a model.

    Args:
        attack: `Attack`.
        wrapper: `KerasModelWrapper` of the model attacked.
        shape: Shape of one image.
        targeted: As for `craft`.

    Returns:
        A function of images, labels, `eps`, seeds and the attack's `counts`.
    """
    seen = attack.seen(wrapper, shape)
    key, numbers = _shared(seen)

    def run(x, labels, eps, seeds, *values):
        count = len(attack.counts)
        counts, scalars = values[:count], values[count:]
        counting = attack.with_counts(counts)
        look = seen.with_numbers(scalars) if scalars else seen
        return counting.craft(look, x, labels, eps, seeds, targeted)

    function = compiled(
        seen.wrapper,
        ("attack", attack.cache_key, key, tuple(shape), targeted),
        run,
        images_spec(shape),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([None, 2], tf.int32),
        *(tf.TensorSpec([], tf.int32) for _ in attack.counts),
        *numbers_spec(len(numbers)),
    )
    return lambda *arguments: function(*arguments, *numbers)


def _shared(seen):
    """The key of a function that is shared, and its numbers, of a `Seen`, or
    of what an attack has in its place."""
    if isinstance(seen, Seen):
        return seen.shared_key, seen.get_numbers()
    return seen.key, ()


def check_eps(threat, shape):
    """Refuse a range of another shape, and a ball that holds every image.

    Args:
        threat: What has an `eps`, a `norm`, `clip_min` and `clip_max`.
        shape: Shape of one image.
    """
    low, high = threat.clip_min, threat.clip_max
    try:
        widths = np.broadcast_to(np.subtract(high, low), shape).ravel()
    except ValueError as error:
        raise ValueError(
            "`clip_min` and `clip_max` must be numbers, or arrays that "
            f"broadcast to one image of shape {tuple(shape)}. Received: "
            f"shapes {np.shape(low)} and {np.shape(high)}"
        ) from error
    if threat.eps is None:
        return
    norms.check_radius(threat.eps, threat.norm)
    largest = float(np.linalg.norm(widths.astype("float64"), threat.norm))
    if threat.eps > largest:
        raise ValueError(
            f"`eps` must be at most {largest:.6g}, the distance of the "
            f"farthest images of {len(widths)} pixels in "
            f"{in_words(low, high)} in the L{threat.norm:g} norm. "
            f"Received: eps={threat.eps}"
        )


def _on_batch(attack, wrapper, x, labels, targeted, first):
    """The entries of an `AttackResult` for images from number `first`."""
    slope = slope_at(attack, wrapper, x, labels)
    x_adv = attack.attacked(
        wrapper,
        targeted,
        tf.constant(x),
        tf.constant(labels, tf.int32),
        tf.constant(attack.eps or 0.0, tf.float32),
        tf.constant(_seeds(attack.seed, np.arange(first, first + len(x)))),
    ).numpy()
    logits = wrapper.logits(x_adv, len(x))
    success = (logits.argmax(-1) == labels) == targeted
    if attack.eps is None and not success.all():
        x_adv[~success] = x[~success]
        logits[~success] = wrapper.logits(x, len(x))[~success]
    _check_finite(logits, slope)
    prediction = logits.argmax(-1)
    success = (prediction == labels) == targeted
    return x_adv, prediction, success, slope == 0


def slope_at(attack, wrapper, x, labels):
    """Largest part of the gradient that the attack starts from."""
    if attack.follows is None:
        return np.ones(len(x), "float32")
    seen = look = attack.seen(wrapper)
    if isinstance(seen, Seen):
        seen = seen.at(0.0)
        look = seen.look
    key, numbers = _shared(seen)
    function = compiled_gradient(
        *(seen.wrapper, x.shape[1:], key, look, len(numbers))
    )
    gradient, logits = function(
        tf.constant(x),
        tf.constant(labels, tf.int32),
        tf.constant(attack.follows == "margin"),
        *numbers,
    )
    slope = norms.size(gradient, 1).numpy()
    _check_finite(logits.numpy(), slope)
    return slope


def _seeds(seed, index):
    """One seed for each image, from the attack's seed and its position."""
    return np.stack([np.full_like(index, seed), index], 1).astype("int32")


def _check_labels(y, y_target, num_images, num_classes):
    """The labels to leave or to reach, or `None` if there are none."""
    if y is not None:
        y = check_labels(y, num_images, num_classes)
    if y_target is None:
        return y
    labels = check_labels(y_target, num_images, num_classes, "y_target")
    if y is not None and (labels == y).any():
        raise ValueError(
            "`y_target` must differ from `y`. Received: "
            f"{int((labels == y).sum())} target(s) equal to the label."
        )
    return labels


def _check_finite(logits, slope):
    bad = int((~(np.isfinite(logits).all(1) & np.isfinite(slope))).sum())
    if bad:
        raise ValueError(
            "The model's logits, or their gradient at the image, must be "
            f"finite. Received: NaN or infinite for {bad} of {len(slope)} "
            "images. Look for diverged weights, a division by zero or a "
            "logarithm of zero in the model."
        )


def _warn_if_blind(attack, result, wrapper):
    blind, failed = result.blind, ~result.success
    if (blind & failed).any():
        cut = wrapper.gradient_cut(result.x_adv.shape[1:])
        where = "" if cut is None else f", which ends at {cut}"
        warnings.warn(
            f"{type(attack).__name__} found a gradient of zero at "
            f"{int(blind.sum())} of {len(blind)} images and failed on "
            f"{int((blind & failed).sum())} of them, which says nothing "
            f"of their robustness: the model hides its gradient{where}. "
            "Use attacks that need none, such as SquareAttack.",
            BlindAttackWarning,
            stacklevel=4,
        )
