"""What an evaluation found, image by image."""

import dataclasses

import numpy as np
from scipy import stats

THREATS = ("white-box", "adaptive", "transfer", "queries")


@dataclasses.dataclass(frozen=True)
class Step:
    """One attack of a plan.

    Args:
        name: Text that names it in reports; once in a plan.
        threat: What the attacker knows: `"white-box"` (everything, attacks
            the model as it is), `"adaptive"` (and attacks through the
            quantizer), `"transfer"` (other models) or `"queries"` (the
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
        blind: How many it was run on without a gradient to follow.
        seconds: Time it took.
    """

    step: Step
    tried: np.ndarray
    broken: np.ndarray
    x_adv: np.ndarray
    blind: int
    seconds: float


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
    """

    number: int
    key: str
    name: str
    status: str
    value: str
    meaning: str
    attack: str = ""


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
    """

    settings: dict
    x: np.ndarray
    y: np.ndarray
    prediction: np.ndarray
    outcomes: list
    checks: list
    curve: dict
    trace: dict

    @property
    def correct(self):
        """Which images are classified correctly, boolean."""
        return self.prediction == self.y

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
        """The images, each broken one replaced by what broke it."""
        x_adv = self.x.copy()
        for outcome in self.outcomes:
            x_adv[outcome.broken] = outcome.x_adv
        return x_adv

    def accuracy_after(self):
        """Accuracy left after each attack, in order, all before included."""
        robust, left = self.correct.copy(), []
        for outcome in self.outcomes:
            robust[outcome.broken] = False
            left.append(float(robust.mean()))
        return left

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
        # Not at the top: the report reads evaluations.
        from keras_qsn.report import write_report

        return write_report(self, folder, quantize)

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


def interval(share, count, confidence=0.95):
    """Wilson's confidence interval of an accuracy.

    Args:
        share: The accuracy, from 0 to 1.
        count: Number of images it was measured on.
        confidence: Defaults to `0.95`.

    Returns:
        Lower and upper end.

    Example:

    >>> low, high = interval(0.9, 1000)
    >>> round(low, 3), round(high, 3)
    (0.88, 0.917)

    Reference:
        - Wilson, 1927: https://doi.org/10.2307/2276774
    """
    test = stats.binomtest(round(share * count), count)
    low, high = test.proportion_ci(confidence, method="wilson")
    return float(low), float(high)
