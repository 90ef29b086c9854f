"""The paper's figures, as rows of cells."""

import dataclasses
import typing

from keras_qsn.paper import rows
from keras_qsn.paper import variants

_BOTH = ("mnist", "cifar10")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the paper.

    Args:
        name: Short name, for the command line.
        title: What it shows.
        paper: What the paper shows or says there.
        data: Data sets it is drawn for.
        rows: Function of a `Grid` that returns its rows.
        kind: How it is drawn: `"bars"`, `"curves"`, `"epochs"` or
            `"images"`.
    """

    name: str
    title: str
    paper: str
    data: tuple
    rows: typing.Callable
    kind: str


FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "fig1",
            "Quantized input, undefended network",
            "8.87 % undefended, 24.66 % behind 2 levels, 19.6 % behind 3.",
            ("cifar10",),
            rows.fig1,
            "images",
        ),
        Figure(
            "fig5",
            "FGSM adversarial training, plain CNN and TQ",
            "TQ learns adversarial training better than the plain CNN.",
            ("mnist",),
            rows.fig5,
            "epochs",
        ),
        Figure(
            "fig6",
            "Examples for QuSecNets and for a signum quantizer",
            "On signum the attack is unable to make examples.",
            ("mnist",),
            rows.fig6,
            "images",
        ),
        Figure(
            "z",
            "Effect of z",
            "5 to 40 trains TQ; above, training halts. 50 for CQ.",
            ("mnist",),
            rows.effect_of_z,
            "curves",
        ),
        Figure(
            "fig7",
            "CQ under FGSM, by number of levels",
            "More levels, lower accuracy.",
            _BOTH,
            rows.fig7,
            "curves",
        ),
        Figure(
            "fig8",
            "Perceptibility",
            "Quantized networks need more visible noise.",
            _BOTH,
            rows.fig8,
            "images",
        ),
        Figure(
            "fig9",
            "FGSM, all defences",
            "MNIST, eps 0.3, white-box: none 1.48 %, CQ 97.51 %, BReLU 94 %.",
            _BOTH,
            rows.fig9,
            "bars",
        ),
        Figure(
            "fig10",
            "CW-L2, 100 iterations",
            "0 % without defence; MNIST 88 % white-box, 90 % black-box; "
            "CIFAR-10 54 % and 50 %.",
            _BOTH,
            rows.fig10,
            "bars",
        ),
        Figure(
            "fig11",
            "JSMA, targeted",
            "Little gained: JSMA's noise is concentrated.",
            _BOTH,
            rows.fig11,
            "bars",
        ),
        Figure(
            "ranges",
            "Gain over no defence",
            "The later abstract: 50 to 96 points on MNIST, 10 to 50 on "
            "CIFAR-10.",
            _BOTH,
            variants.ranges,
            "bars",
        ),
        Figure(
            "readings",
            "Which reading gives 1.48 % and 97.51 %?",
            "MNIST, FGSM, eps 0.3, white-box: none 1.48 %, CQ 97.51 %.",
            ("mnist",),
            variants.readings,
            "bars",
        ),
    )
}
