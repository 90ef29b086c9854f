"""How good a copy is, and what a defence of answers did to them."""

import numpy as np
from scipy import special

from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.running import check_gradient
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.datasets import seeded_subset

# Images that are made adversarial, at most.
_IMAGES = 1000


def agreement(copy, x, victim):
    """Share of images to which a copy gives the victim's class.

    Args:
        copy: The copy's `KerasModelWrapper`.
        x: Images.
        victim: The victim's classes of them.
    """
    return float((copy.predict(x) == victim).mean())


def answers_moved(clean, x, answers):
    """Mean L1 distance of answers from those of the undefended victim.

        mean_i sum_c |answer_ic - p_ic|, from 0 to 2

    Args:
        clean: Keras classifier, the victim without its defence; or `None`.
        x: Images asked about.
        answers: Their answers, rows that sum to 1.

    Returns:
        The mean; `None` without `clean`.
    """
    if clean is None or not len(x):
        return None
    p = special.softmax(KerasModelWrapper.of(clean).logits(x), -1)
    return float(np.abs(answers - p).sum(-1).mean())


def check_adversary(adversary, copy):
    """Refuse what is no attack on the copy."""
    if adversary is None:
        return
    if not isinstance(adversary, Attack):
        raise TypeError(
            "`adversary` must be an attack of `keras_qsn.attacks`. "
            f"Received: {adversary!r}"
        )
    check_gradient(adversary, copy)


def fooling_images(x, adversary):
    """How many images `fooled` sends to the victim."""
    return 0 if adversary is None else min(len(x), _IMAGES)


def fooled(adversary, copy, victim, x, classes):
    """How often the victim falls for what fools its copy.

    Of up to 1,000 images, drawn by the attack's seed, adversarial ones are
    made on the copy, away from the class that the victim gives the image.

    Args:
        adversary: An `Attack`, or `None`.
        copy: The copy's `KerasModelWrapper`.
        victim: The `Victim`.
        x: Images.
        classes: The victim's classes of them.

    Returns:
        A dict of `attack`, its name; `config`; `images`, their number; and
        the shares of images for which `copy` and `victim` then leave that
        class. `None` without an attack.
    """
    if adversary is None:
        return None
    x, classes = seeded_subset(x, classes, _IMAGES, adversary.seed)
    x_adv = adversary.generate(copy, x, classes, verbose=0)
    return {
        "attack": type(adversary).__name__,
        "config": adversary.get_config(),
        "images": len(x),
        "copy": 1 - agreement(copy, x_adv, classes),
        "victim": float((victim.predict(x_adv) != classes).mean()),
    }
