"""Several attacks that copy models, side by side."""

import dataclasses

from keras_qsn._core import display
from keras_qsn.extraction.result import ExtractionResult
from keras_qsn.extraction.result import comparison_html


@dataclasses.dataclass(frozen=True, eq=False)
class ExtractionComparison:
    """What `compare_extractions` returns: a table, a curve for each result.

    Attributes:
        results: `{name: ExtractionResult}`.
    """

    results: dict

    def to_json(self):
        """Plain values.

        Returns:
            A dict of `schema_version`, 1; and `results`: a list of what
            `ExtractionResult.to_json` returns, with `name` as given.
        """
        # Not at the top: it loads matplotlib.
        from keras_qsn.report import extraction

        return extraction.to_json(self.results)

    def to_dataframe(self):
        """A pandas `DataFrame` with a row for each result; shares in
        `[0, 1]`, the interval of the agreement in `low` and `high`."""
        from keras_qsn.report import extraction

        return display.data_frame(extraction.numbers(self.results))

    def write(self, folder):
        """Write `extraction.json`, `.md`, `.png` and `.html`.

        Args:
            folder: Where to; created if need be.

        Returns:
            The paths of the files, the page last.
        """
        from keras_qsn.report import extraction

        return extraction.write(self.results, folder, "How well is it copied?")

    def show(self, folder=None):
        """Write the files, and open the page in the browser.

        Args:
            folder: As for `write`. Defaults to `None`: a temporary one, which
                stays until the system clears it.

        Returns:
            The path of the page, to open by hand where there is no browser.
        """
        return display.show(self.write, folder)

    def __repr__(self):
        from keras_qsn.report import extraction

        return extraction.to_text(self.results)

    def _repr_html_(self):
        return comparison_html(self.results)


def compare_extractions(results):
    """Put several attacks side by side: victims, defences, budgets, answers.

    Args:
        results: `{name: ExtractionResult}`, in the order of the table.

    Returns:
        An `ExtractionComparison`, which prints as a table and writes a page.

    Raises:
        TypeError: If there is something else than results.
        ValueError: If there is none.

    Example:

    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> victim = cleverhans_cnn(seed=0)
    >>> results = {
    ...     answers: KnockoffNets(20, answers, epochs=1).run(
    ...         victim, substitute_mlp(seed=1), x, x[30:], verbose=0
    ...     )
    ...     for answers in ("soft", "hard")
    ... }
    >>> comparison = compare_extractions(results)
    >>> [row["name"] for row in comparison.to_json()["results"]]
    ['soft', 'hard']

    Limitations:
        Attacks on different images, or with different budgets and copies, are
        not told apart from better ones. Look at `how` of the page.
    """
    if not isinstance(results, dict):
        raise TypeError(
            "`results` must be a dictionary, {name: result}. "
            f"Received: {results!r}"
        )
    if not results:
        raise ValueError("There must be a result. Received none.")
    for name, result in results.items():
        if not isinstance(result, ExtractionResult):
            raise TypeError(
                "`results` must hold what `ExtractionAttack.run` returns. "
                f"Received: {result!r} as {name!r}"
            )
    return ExtractionComparison({str(n): r for n, r in results.items()})
