"""What a detector rejects, at its threshold and at others."""

import dataclasses

import numpy as np

_POINTS = 101


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """The scores that a detector gives, and what follows from a threshold.

    Attributes:
        detector: Its class, as text.
        threshold: Images whose score is above it are rejected.
        clean: The score of each image.
        attacked: The same of what the attacks made of it: what broke it, or
            the image itself.

    Example:

    >>> scores = np.array([0.1, 0.4]), np.array([0.2, 0.4])
    >>> detection = Detection("Roughness", 0.3, *scores)
    >>> detection.rejected.tolist()
    [False, True]
    """

    detector: str
    threshold: float
    clean: np.ndarray
    attacked: np.ndarray

    @property
    def rejected(self):
        """Which images are rejected as they are, boolean."""
        return self.clean > self.threshold

    def curve(self, right):
        """What other thresholds would do, from the strictest.

        Adversarial images were made for the detector's own threshold: at
        another one, attacks that know that may do better.

        Args:
            right: Which attacked images are classified correctly, boolean.

        Returns:
            For each threshold, percentiles of the clean scores and its own, a
            dict of `threshold`; `clean_rejected`, the share of images that
            are rejected as they are; `accepted`, how many attacked ones are
            not; and `accuracy`, the share of those that is right, `None` of
            none.
        """
        percentiles = np.linspace(0, 1, _POINTS)
        points = np.quantile(self.clean, percentiles, method="lower")
        return [
            self._at(threshold, right)
            for threshold in np.unique([*points, self.threshold])
        ]

    def _at(self, threshold, right):
        accepted = self.attacked <= threshold
        count = int(accepted.sum())
        return {
            "threshold": float(threshold),
            "clean_rejected": float((self.clean > threshold).mean()),
            "accepted": count,
            "accuracy": float(right[accepted].mean()) if count else None,
        }
