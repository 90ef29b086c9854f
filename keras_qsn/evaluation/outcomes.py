"""What an evaluation is made of: steps, what came of each, and checks."""

import dataclasses

import numpy as np

from keras_qsn.attacks.threats import THREATS


@dataclasses.dataclass(frozen=True)
class Step:
    """One attack of a plan.

    Args:
        name: Text that names it in reports; once in a plan.
        threat: What the attacker knows: `"white-box"` (everything, attacks
            the model as it is), `"adaptive"` (and attacks through what hides
            its gradient), `"transfer"` (other models) or `"queries"` (the
            model's answers).
        attack: The `Attack`.
        max_images: Of the images still unbroken, only this many are tried,
            the first ones. Defaults to `None`: all.

    Example:

    >>> Step("FGSM", "white-box", FastGradientMethod(0.3)).threat
    'white-box'
    """

    name: str
    threat: str
    attack: object
    max_images: int | None = None

    def __post_init__(self):
        if self.threat not in THREATS:
            raise ValueError(
                f"`threat` must be one of {', '.join(THREATS)}. "
                f"Received: threat={self.threat!r}"
            )

    def get_config(self):
        """The step as plain values; a step of the checks has no attack."""
        attack = self.attack
        return {
            "name": self.name,
            "threat": self.threat,
            "max_images": self.max_images,
            "attack": attack and type(attack).__name__,
            "config": attack.get_config() if attack else {},
        }


def _none():
    """A field that holds nothing, of no image."""
    return dataclasses.field(default_factory=lambda: np.zeros(0, "int64"))


# Arrays have no truth to compare by: two outcomes are equal if they are one.
@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What one attack of the plan did.

    Attributes:
        step: The `Step`.
        tried: Numbers of the images it was run on: those nothing before it
            had broken.
        broken: Numbers of the images it broke.
        x_adv: The adversarial images, one for each of `broken`.
        became: The class that the model gives each of those.
        blind: How many it was run on without a gradient to follow.
        seconds: Time it took.
        hurt: Of a model that answers at random, numbers of the images that it
            did not break, but at which fewer answers are right than at any
            image found before.
        x_hurt: What it made of each of `hurt`.
        right: The share of right answers there.
    """

    step: Step
    tried: np.ndarray
    broken: np.ndarray
    x_adv: np.ndarray
    became: np.ndarray
    blind: int
    seconds: float
    hurt: np.ndarray = _none()
    x_hurt: np.ndarray = _none()
    right: np.ndarray = _none()


@dataclasses.dataclass(frozen=True)
class Check:
    """One test of whether the attacks can be believed.

    Attributes:
        number: Its number in the documentation.
        key: The same for this check in all versions, such as `"eps-sweep"`.
        name: A short name.
        status: `"pass"`, `"warn"`, `"fail"` or `"none"`, where it makes no
            sense here.
        value: What was measured, as text.
        meaning: One sentence: what it means and what to do.
        attack: What it attacked with, as text; empty where it did not.
        own_gradient: Whether it is of the model's own gradient, or of who
            breaks what that hides: adaptive attacks do without it.
    """

    number: int
    key: str
    name: str
    status: str
    value: str
    meaning: str
    attack: str = ""
    own_gradient: bool = False
