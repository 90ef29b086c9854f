"""Figures of attacks without a radius.

Accuracy under the strongest of them is 0, and what a defence is worth shows
in the distance.
"""

from keras_qsn.paper.figures.figure import Row
from keras_qsn.paper.figures.figure import figure

# The attack that knows of the quantizer, beside each as the worst case.
_KNOWS_LEVELS = {"CW-L2": "level flips, L2", "JSMA": "level flips, L0"}


def _without_radius(grid, attack, targets, printed):
    """White-box and black-box."""
    for name, network in grid.defences().items():
        worst = None
        if network.quantized:
            worst = grid.attacked(network, _KNOWS_LEVELS[attack])
        sources = {"white-box": None, "black-box": grid.undefended}
        for targeted in targets:
            aim = "targeted" if targeted else "untargeted"
            for setting, source in sources.items():
                if source == network:
                    continue
                yield Row(
                    name,
                    f"{aim}, {setting}",
                    grid.attacked(
                        network, attack, targeted=targeted, source=source
                    ),
                    printed.get((name, setting)),
                    worst if source is None else None,
                )


@figure(
    "fig10",
    "CW-L2, 100 iterations",
    "0 % without defence; MNIST 88 % white-box, 90 % black-box; "
    "CIFAR-10 54 % and 50 %.",
)
def fig10(grid):
    # The text gives one figure for "QuSecNets" against CNNs without defence,
    # and not which of them, nor whether targeted: CQ's rows get it.
    white_box, black_box = (54.0, 50.0) if grid.data == "cifar10" else (88, 90)
    printed = {
        ("none", "white-box"): 0.0,
        ("CQ", "white-box"): white_box,
        ("CQ", "black-box"): black_box,
    }
    yield from _without_radius(grid, "CW-L2", (False, True), printed)
    for name, network in grid.defences().items():
        full = grid.attacked(network, "CW-L2, full search")
        yield Row(name, "untargeted, white-box, full search", full)


@figure(
    "fig11",
    "JSMA, targeted",
    "Little gained: JSMA's noise is concentrated.",
)
def fig11(grid):
    yield from _without_radius(grid, "JSMA", (True,), {})
