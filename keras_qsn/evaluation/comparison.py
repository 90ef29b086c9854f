"""Several models, evaluated on the same images, side by side."""

import dataclasses
import pathlib

import numpy as np

from keras_qsn._core import display
from keras_qsn.certification.certificate import Certificate
from keras_qsn.evaluation.result import Evaluation


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` returns: a leaderboard, the most robust model first.

    Attributes:
        evaluations: `{name: Evaluation}`.
        certificates: `{name: Certificate}` of those that have one.
    """

    evaluations: dict
    certificates: dict

    def to_json(self):
        """Plain values; accuracies as `robustness.json` has them.

        Returns:
            A dict of `schema_version`, 1; `norm`, text; `eps`, number;
            `data_name`, text or `None`; `models`: a list, most robust first,
            of `name`, text; `clean_accuracy`, `robust_accuracy`, accuracies;
            `certified_accuracy`, accuracy or `None`; `verdict`, as in
            `robustness.json`; `failed_checks`, list of their keys; `plan`,
            text; `attacks`, their number; `seconds` that they took.
        """
        # Not at the top: it loads matplotlib.
        from keras_qsn.report import leaderboard

        return leaderboard.to_json(self)

    def to_dataframe(self):
        """A pandas `DataFrame` with a row for each model, in the order of
        `to_json`; accuracies in `[0, 1]`, intervals in `robust_low` and
        `robust_high`."""
        from keras_qsn.report import leaderboard

        return display.data_frame(leaderboard.numbers(self))

    def write(self, folder):
        """Write `comparison.json`, `comparison.md` and `comparison.html`.

        Args:
            folder: Where to; created if need be.

        Returns:
            The paths of the files, the page last.
        """
        from keras_qsn.report import leaderboard

        return leaderboard.write(self, pathlib.Path(folder))

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
        from keras_qsn.report import leaderboard

        return leaderboard.to_text(self)

    def _repr_html_(self):
        from keras_qsn.report import leaderboard

        return display.html_paragraph(
            leaderboard.subject(self)
        ) + display.html_table(*leaderboard.table(self))


def compare(evaluations, certificates=None):
    """Put evaluations of several models on the same images side by side.

    Args:
        evaluations: `{name: Evaluation}`; or a list of them, named by their
            models. All of the same images, norm and radius; the range of
            pixels may differ.
        certificates: Optional `{name: Certificate}`, of the same images and
            radius as the evaluation of that name.

    Returns:
        A `Comparison`, which prints as a table and writes one page.

    Raises:
        TypeError: If there is something else in place of an evaluation or a
            certificate.
        ValueError: If images, norm or radius differ, a name is there twice,
            or an image is certified that an attack broke.

    Example:

    >>> model = cleverhans_cnn(quantizer=ConstantQuantization(2), seed=0)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> y = KerasModelWrapper(model).predict(x)
    >>> plan = [FastGradientMethod(eps=0.3)]
    >>> evaluation = evaluate_robustness(model, x, y, plan=plan, verbose=0)
    >>> comparison = compare({"CQ": evaluation})
    >>> [row["name"] for row in comparison.to_json()["models"]]
    ['CQ']

    Limitations:
        A table of upper bounds: of two models the one attacked less may stand
        higher. Give all the same plan; read the verdicts.
    """
    evaluations = _by_name(evaluations)
    first_name, first = next(iter(evaluations.items()))
    for name, evaluation in evaluations.items():
        difference = _difference(evaluation, first)
        if difference:
            raise ValueError(
                "All evaluations must be of the same images, norm and radius. "
                f"Received: {name!r} and {first_name!r} differ in "
                f"{difference}. Evaluate both with the same `x`, `y`, `eps` "
                "and `norm`."
            )
    certificates = dict(certificates or {})
    for name, certificate in certificates.items():
        _check_certificate(name, certificate, evaluations)
    return Comparison(evaluations, certificates)


def _by_name(evaluations):
    if not isinstance(evaluations, (dict, list, tuple)):
        raise TypeError(
            "`evaluations` must be a dictionary, {name: evaluation}, or a "
            f"list. Received: {evaluations!r}"
        )
    if not isinstance(evaluations, dict):
        pairs = [
            (getattr(e, "settings", {}).get("model"), e) for e in evaluations
        ]
        evaluations = dict(pairs)
        if len(evaluations) < len(pairs):
            raise ValueError(
                "Evaluations in a list are told by the names of their models, "
                f"which must differ. Received: {[name for name, _ in pairs]}. "
                "Give a dictionary, {name: evaluation}."
            )
    if not evaluations:
        raise ValueError("There must be an evaluation. Received none.")
    for name, evaluation in evaluations.items():
        if not isinstance(evaluation, Evaluation):
            raise TypeError(
                "`evaluations` must hold what `evaluate_robustness` returns. "
                f"Received: {evaluation!r} as {name!r}"
            )
    return {str(name): evaluation for name, evaluation in evaluations.items()}


def _difference(one, other):
    """What two evaluations differ in, or `None`; in units of the range."""
    if one.settings["norm"] != other.settings["norm"]:
        return "norm"
    if not np.array_equal(one.y, other.y) or one.x.shape != other.x.shape:
        return "images"
    pixels, radii = zip(*map(_in_units, (one, other)))
    if not np.allclose(*pixels, atol=1e-4):
        return "images"
    return None if np.allclose(*radii, rtol=1e-5) else "eps"


def _in_units(evaluation):
    low, high = map(np.asarray, evaluation.settings["value_range"])
    size = high - low
    eps = evaluation.settings["eps"]
    # A number of pixels is of no range.
    radius = eps if evaluation.settings["norm"] == 0 else eps / size
    return (evaluation.x - low) / size, radius


def _check_certificate(name, certificate, evaluations):
    if not isinstance(certificate, Certificate):
        raise TypeError(
            "`certificates` must hold what `certify` returns. "
            f"Received: {certificate!r} as {name!r}"
        )
    evaluation = evaluations.get(name)
    if evaluation is None:
        raise ValueError(
            "Each certificate must have the name of an evaluation. "
            f"Received: {name!r}; there are {', '.join(evaluations)}"
        )
    settings, count = evaluation.settings, len(evaluation.y)
    if (
        settings["norm"] != "inf"
        or not np.isclose(certificate.eps, settings["eps"])
        or len(certificate) != count
    ):
        raise ValueError(
            "A certificate must be of the evaluation's images, of L-infinity "
            f"and of its eps. Received: {certificate!r} beside {evaluation!r}"
        )
    broken = np.flatnonzero(certificate.certified & ~evaluation.robust)
    if len(broken):
        raise ValueError(
            "No attack can break a certified image: one of the two is of "
            "another model, or wrong. Received: images "
            f"{broken[:5].tolist()} of {name!r}"
        )
