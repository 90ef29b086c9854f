"""The result of an attack that copies a model."""

import dataclasses

import numpy as np

from keras_qsn._core import display
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

    def to_json(self):
        """Plain values.

        Returns:
            A dict of `name`, the attack's; `settings`; `queries`, their
            number; `agreement`, `copy_accuracy` and `victim_accuracy`, each an
            object of `share`, `images`, `low` and `high`, the ends of the
            95 % interval, or `None`; `curve`, a list of objects of `queries`
            and `agreement`; `l1`, number or `None`; and `fooled`, as the
            attribute.
        """
        # Not at the top: it loads matplotlib.
        from keras_qsn.report import extraction

        return extraction.to_json(self._named())["results"][0]

    def write(self, folder):
        """Write a report: JSON, Markdown, a plot and one HTML page.

        Args:
            folder: Where to; created if need be.

        Returns:
            The paths of the files, the page last.
        """
        from keras_qsn.report import extraction

        title = f"How well is {self.settings['victim']} copied?"
        return extraction.write(self._named(), folder, title)

    def show(self, folder=None):
        """Write the report and open its page in the browser.

        Args:
            folder: As for `write`. Defaults to `None`: a temporary one, which
                stays until the system clears it.

        Returns:
            The path of the page, to open by hand where there is no browser.
        """
        return display.show(self.write, folder)

    def __repr__(self):
        ends = wilson_interval(self.agreement, len(self.victim))
        words = (
            f"agreement {percent(self.agreement)} ({percent_range(*ends)}) on "
            f"{len(self.victim):,} images; {self.settings['attack']}, "
            f"{self.queries:,} queries"
        )
        return f"{type(self).__name__}({words})"

    def _repr_html_(self):
        return comparison_html(self._named())

    def _named(self):
        return {self.settings["attack"]: self}

    def _accuracy(self, classes):
        return None if self.y is None else float((classes == self.y).mean())


def comparison_html(results):
    """Results by name as a notebook shows them."""
    from keras_qsn.report import extraction

    (header,), rows = extraction.table(results)
    subject = display.html_paragraph(extraction.subject(results))
    return subject + display.html_table(header, rows)
