"""The result of an evaluation, image by image."""

import dataclasses

import numpy as np

from keras_qsn._core import display
from keras_qsn._core.shares import percent
from keras_qsn._core.shares import percent_range
from keras_qsn._core.shares import wilson_interval
from keras_qsn.evaluation import masking
from keras_qsn.evaluation.answers import Answers
from keras_qsn.evaluation.detection import Detection


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of `evaluate_robustness`.

    Attributes:
        settings: What was evaluated, how: plain values.
        x: The images.
        y: Their classes.
        prediction: The classes the model gives them.
        outcomes: An `Outcome` for each attack, in the order they ran.
        checks: A list of `Check`.
        curve: Accuracy under an attack at other radii,
            `{attack: [(eps, accuracy), ...]}`.
        trace: Mean loss along an attack, `{attack: [loss, ...]}`.
        answers: The `Answers` of a model that answers at random, which is
            right where half of them are; else `None`.
        detection: The `Detection` of a detector beside the model, which what
            it rejects does not fool; else `None`.
    """

    settings: dict
    x: np.ndarray
    y: np.ndarray
    prediction: np.ndarray
    outcomes: list
    checks: list
    curve: dict
    trace: dict
    answers: Answers | None = None
    detection: Detection | None = None

    @property
    def correct(self):
        """Which images are classified correctly, and not rejected, boolean."""
        right = self.prediction == self.y
        return (
            right
            if self.detection is None
            else right & ~self.detection.rejected
        )

    @property
    def robust(self):
        """Which images are correct and no attack broke, boolean."""
        robust = self.correct.copy()
        for outcome in self.outcomes:
            robust[outcome.broken] = False
        return robust

    @property
    def clean_accuracy(self):
        """Share of correct images."""
        return float(self.correct.mean())

    @property
    def robust_accuracy(self):
        """Share of images that are correct and unbroken: the worst case."""
        return float(self.robust.mean())

    @property
    def x_adv(self):
        """The images, each broken one replaced by what broke it; of a model
        that answers at random, each by the worst that was found."""
        x_adv = self.x.copy()
        for outcome in self.outcomes:
            if len(outcome.hurt):
                x_adv[outcome.hurt] = outcome.x_hurt
            x_adv[outcome.broken] = outcome.x_adv
        return x_adv

    def rejection_curve(self):
        """What a detector's other thresholds would do, as `Detection.curve`;
        empty without a detector."""
        if self.detection is None:
            return []
        right = self.prediction == self.y
        for outcome in self.outcomes:
            right[outcome.broken] = False
        return self.detection.curve(right)

    def accuracy_after(self):
        """Accuracy left after each attack, in order, all before included."""
        robust, left = self.correct.copy(), []
        for outcome in self.outcomes:
            robust[outcome.broken] = False
            left.append(float(robust.mean()))
        return left

    @property
    def unmasked(self):
        """Images that white-box attacks had missed and other attacks broke.

        Their count for each threat model but the white box; `None` where no
        attack of it was run on an image that white-box attacks had missed.
        Images broken before any white-box attack of many steps saw them are
        not counted: of them it is not known.
        """
        return masking.unmasked(self.outcomes, len(self.y))

    def write(self, folder, quantize=None):
        """Write a report: JSON, Markdown, plots and one HTML page.

        Args:
            folder: Where to; created if need be.
            quantize: Optional function from images to what the network
                behind the quantizer sees, for the pictures: the
                quantization layer itself, for example.

        Returns:
            The paths of the files, the page last.
        """
        # Not at the top: it loads matplotlib.
        from keras_qsn.report import write_report

        return write_report(self, folder, quantize)

    def show(self, folder=None, quantize=None):
        """Write the report and open its page in the browser.

        Args:
            folder: As for `write`. Defaults to `None`: a temporary one, which
                stays until the system clears it.
            quantize: As for `write`.

        Returns:
            The path of the page, to open by hand where there is no browser.
        """
        return display.show(lambda folder: self.write(folder, quantize), folder)

    def to_dataframe(self):
        """A pandas `DataFrame` with a row for each image, without pixels.

        Its columns are the keys of `images` in `robustness.json`, and
        `robust`.
        """
        from keras_qsn.report.schema import images

        frame = display.data_frame(images(self))
        frame["robust"] = self.robust
        return frame

    def __repr__(self):
        settings, count = self.settings, len(self.y)
        ends = wilson_interval(self.robust_accuracy, count)
        words = (
            f"robust {percent(self.robust_accuracy)} "
            f"({percent_range(*ends)}), clean {percent(self.clean_accuracy)}; "
            f"{count} images, L{settings['norm']} {settings['eps']:g}, "
            f"{len(self.outcomes)} attacks, {len(self.failed)} of "
            f"{len(self.checks)} checks failed"
        )
        return f"{type(self).__name__}({words})"

    def _repr_html_(self):
        from keras_qsn.report import notebook_html

        return notebook_html(self)

    @property
    def failed(self):
        """The checks that failed."""
        return [check for check in self.checks if check.status == "fail"]


class UntrustedEvaluation(Exception):
    """Checks failed: the figures of `evaluation` are not to be believed.

    Attributes:
        evaluation: The `Evaluation`.
    """

    def __init__(self, evaluation):
        lines = [
            f"{check.number}. {check.name}: {check.value}. {check.meaning}"
            for check in evaluation.failed
        ]
        super().__init__("\n".join(["Checks failed:", *lines]))
        self.evaluation = evaluation
