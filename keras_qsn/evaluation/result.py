"""The result of an evaluation, image by image."""

import dataclasses
import tempfile

import numpy as np

from keras_qsn._core import display
from keras_qsn._core.shares import percent
from keras_qsn._core.shares import percent_range
from keras_qsn._core.shares import wilson_interval
from keras_qsn.attacks.threats import THREATS
from keras_qsn.evaluation import masking
from keras_qsn.evaluation.answers import Answers
from keras_qsn.evaluation.detection import Detection


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
        folder = folder or tempfile.mkdtemp(prefix="keras_qsn-")
        *_, page = self.write(folder, quantize)
        display.open_page(page)
        return page

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
