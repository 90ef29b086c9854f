"""The result of an attack that copies a model."""

import dataclasses

import numpy as np

from keras_qsn._core.shares import percent
from keras_qsn._core.shares import percent_range
from keras_qsn._core.shares import wilson_interval


@dataclasses.dataclass(frozen=True, eq=False)
class ExtractionResult:
    """How well a model was copied: what `ExtractionAttack.run` returns.

    Attributes:
        settings: What was copied, how: plain values.
        queries: Images sent to the victim.
        y: True classes of the images measured on, or `None`.
        victim: The victim's classes of them.
        copy: The copy's.
        curve: A list of `(queries, agreement)`.
        l1: Mean L1 distance of the answers from the undefended victim's, from
            0 to 2; `None` where that is not known.
        fooled: What adversarial images of the copy did to the victim: a dict
            of `attack`, `config`, `images`, and the shares `copy` and
            `victim` of images that changed class; or `None`.
    """

    settings: dict
    queries: int
    y: np.ndarray | None
    victim: np.ndarray
    copy: np.ndarray
    curve: list
    l1: float | None = None
    fooled: dict | None = None

    @property
    def agreement(self):
        """Share of images to which the copy gives the victim's class."""
        return float((self.copy == self.victim).mean())

    @property
    def victim_accuracy(self):
        """The victim's accuracy; `None` without true classes."""
        return self._accuracy(self.victim)

    @property
    def copy_accuracy(self):
        """The copy's accuracy; `None` without true classes."""
        return self._accuracy(self.copy)

    def __repr__(self):
        ends = wilson_interval(self.agreement, len(self.victim))
        words = (
            f"agreement {percent(self.agreement)} ({percent_range(*ends)}) on "
            f"{len(self.victim):,} images; {self.queries:,} queries"
        )
        return f"{type(self).__name__}({words})"

    def _accuracy(self, classes):
        return None if self.y is None else float((classes == self.y).mean())
