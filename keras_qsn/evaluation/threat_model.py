"""What an attacker may change."""

import dataclasses
import inspect

import numpy as np

from keras_qsn.evaluation.outcomes import Step


# Ends of the range may be arrays, which have no truth to compare by.
@dataclasses.dataclass(frozen=True, eq=False)
class ThreatModel:
    """What an attacker may change.

    Args:
        eps: Radius of the ball, in pixel units, or a number of pixels.
        norm: `np.inf`, `2`, `1` or `0`.
        clip_min: Smallest pixel value, or one for each feature.
        clip_max: Largest pixel value, likewise.
        seed: Of the attacks.
    """

    eps: float
    norm: float
    clip_min: float | np.ndarray = 0.0
    clip_max: float | np.ndarray = 1.0
    seed: int = 0

    def attack(self, kind, **kwargs):
        """An attack of this class within the threat model."""
        own = {
            "eps": self.eps,
            "norm": self.norm,
            "clip_min": self.clip_min,
            "clip_max": self.clip_max,
            "seed": self.seed,
        }
        accepted = inspect.signature(kind).parameters
        own = {k: v for k, v in own.items() if k in accepted}
        return kind(**{**own, **kwargs})

    def step(self, name, kind, max_images=None, **settings):
        """A step of a plan: an attack of this class within the threat model."""
        attack = self.attack(kind, **settings)
        return Step(name, attack.threat, attack, max_images)

    def at(self, eps):
        """The same with another radius."""
        return dataclasses.replace(self, eps=eps)

    def diameter(self, shape):
        """Distance of the farthest images of this shape."""
        widths = np.subtract(self.clip_max, self.clip_min, dtype="float64")
        return float(
            np.linalg.norm(np.broadcast_to(widths, shape).ravel(), self.norm)
        )

    def grey(self, shape):
        """A radius at which every image can be turned into the same grey one:
        half of the way, or all pixels."""
        return self.diameter(shape) / (1 if self.norm == 0 else 2)

    def has_range(self, attack):
        """Whether an attack keeps to this range of pixels."""
        return np.array_equal(
            attack.clip_min, self.clip_min
        ) and np.array_equal(attack.clip_max, self.clip_max)
