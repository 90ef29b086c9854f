"""Images that were broken, as a person sees them."""

import dataclasses

import numpy as np

from keras_qsn._core.display import is_picture
from keras_qsn.report.summary import became
from keras_qsn.report.summary import distances


@dataclasses.dataclass(frozen=True)
class Picture:
    """A broken image in several views.

    Args:
        index: Its number.
        label: Its class, which is what the model said before the attack.
        became: What the model says after it.
        attack: Name of the attack that broke it.
        distance: How far it was moved, in the norm of the evaluation.
        views: `{title: image}`, images in `[0, 1]`.
    """

    index: int
    label: int
    became: int
    attack: str
    distance: float
    views: dict


def pictures(evaluation, quantize=None, limit=8):
    """Some of the broken images, of as many attacks as possible.

    None if the images are no images of one or three channels. `quantize` is
    from images to what the network behind a quantizer sees of them.
    """
    if not drawable(evaluation):
        return []
    chosen = _in_turn(evaluation, limit)
    if not chosen:
        return []
    index = [i for i, _ in chosen]
    clean, adversarial = evaluation.x[index], evaluation.x_adv[index]
    views = _views(evaluation.settings, clean, adversarial, quantize)
    moved, classes = distances(evaluation), became(evaluation)
    return [
        Picture(
            int(i),
            int(evaluation.y[i]),
            int(classes[i]),
            attack,
            float(moved[i]),
            {title: images[row] for title, images in views.items()},
        )
        for row, (i, attack) in enumerate(chosen)
    ]


def drawable(evaluation):
    """Whether the images can be drawn."""
    return is_picture(evaluation.x[0])


def _in_turn(evaluation, limit):
    """Each attack's first broken image, then each one's second, and so on."""
    turns = sorted(
        (turn, number, i)
        for number, outcome in enumerate(evaluation.outcomes)
        for turn, i in enumerate(outcome.broken)
    )
    return [
        (i, evaluation.outcomes[number].step.name)
        for _, number, i in turns[:limit]
    ]


def _views(settings, clean, adversarial, quantize):
    low, high = (np.asarray(end, "float32") for end in settings["value_range"])
    views = {
        "clean": _scaled(clean, low, high),
        "adversarial": _scaled(adversarial, low, high),
    }
    if quantize is not None:
        seen = [_seen(quantize(images)) for images in (clean, adversarial)]
        low = min(low.min(), *(images.min() for images in seen))
        high = max(high.max(), *(images.max() for images in seen))
        views = {
            "clean": views["clean"],
            "clean, quantized": _scaled(seen[0], low, high),
            "adversarial": views["adversarial"],
            "adversarial, quantized": _scaled(seen[1], low, high),
        }
    delta = adversarial - clean
    largest = max(float(np.abs(delta).max()), 1e-12)
    return {**views, "difference": _scaled(delta, -largest, largest)}


def _seen(images):
    """Quantized images with one or three channels, others averaged."""
    images = np.asarray(images, "float32")
    if images.shape[-1] in (1, 3):
        return images
    return images.mean(-1, keepdims=True)


def _scaled(images, low, high):
    return np.clip((images - low) / (high - low), 0, 1)
