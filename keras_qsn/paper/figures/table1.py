"""Table 1, measured: every defence it names, and those of two further seeds.

Its last column, the limitations, is read off the same cells.
"""

import dataclasses

from keras_qsn.paper.cells import Inference
from keras_qsn.paper.figures.figure import Row
from keras_qsn.paper.figures.figure import figure

# What is measured of each line, in the order of the table.
COLUMNS = (
    "FGSM, softmax",
    "FGSM",
    "PGD",
    "CW-L2",
    "CW-L2, full search",
    "JSMA",
    "transfer",
    "substitute",
    "worst case",
    "training",
    "inference",
    "parameters",
)

# A published limitation, and the columns in which it would show.
_OF_OTHER_KINDS = ("PGD", "CW-L2", "JSMA", "transfer")
_JSMA_CW = {"JSMA": ("JSMA",), "CW": ("CW-L2", "CW-L2, full search")}
_TRANSFER = {"transfer attacks": ("transfer",)}
_ON_THE_GAN = {"attacks on the GAN": ("worst case",)}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the table.

    Args:
        family: The approach, in the words of Table 1.
        network: What of the `Network` differs from the undefended one.
        limitations: What Table 1 says defeats it, and the columns in which
            that would show.
        claim: The number of the defence's own paper, where one is known.
        adversarial: Whether it trains on examples at the grid's radius.
        held_out: Whether it needs images that it was not trained on.
        large_logits: Whether it makes logits so large that papers, whose FGSM
            follows the loss of the softmax, saw no gradient.
        slow: Whether its answers take so long that few images must do.
    """

    family: str
    network: dict
    limitations: dict = dataclasses.field(default_factory=dict)
    claim: str = ""
    adversarial: bool = False
    held_out: bool = False
    large_logits: bool = False
    slow: bool = False


_TRAINING = "adversarial learning"
_INPUT = "input transformation"
_MASKING = "gradient masking"
_BOTH = f"{_INPUT}, {_TRAINING}"

ENTRIES = {
    "undefended": Entry("–", {}, large_logits=True),
    "CQ": Entry(
        _INPUT,
        {"defence": "CQ"},
        _JSMA_CW,
        "MNIST: FGSM leaves 97.51 %, CW-L2 88 %",
    ),
    "TQ, adversarial": Entry(
        _BOTH, {"defence": "TQ"}, _JSMA_CW, adversarial=True
    ),
    "squeezing, 1 bit": Entry(_INPUT, {"after": "1 bit"}, _JSMA_CW),
    "squeezing, detector": Entry(
        "detection", {"after": "squeezing"}, _JSMA_CW, held_out=True
    ),
    "BReLU + GDA": Entry(
        _BOTH, {"defence": "BReLU+GDA"}, _JSMA_CW, "MNIST: FGSM leaves 94 %"
    ),
    "APE-GAN": Entry(
        _BOTH,
        {"after": "APE-GAN"},
        _ON_THE_GAN,
        "CIFAR-10: FGSM leaves 73.6 %",
        held_out=True,
    ),
    "Defense-GAN": Entry(
        _INPUT, {"after": "Defense-GAN"}, _ON_THE_GAN, held_out=True, slow=True
    ),
    "adversarial, FGSM": Entry(
        _TRAINING,
        {},
        {"unknown attacks": _OF_OTHER_KINDS},
        adversarial=True,
    ),
    "adversarial, FGSM-RS": Entry(
        _TRAINING,
        {"aim": "FGSM-RS"},
        {"unknown attacks": _OF_OTHER_KINDS},
        adversarial=True,
    ),
    "adversarial, PGD": Entry(
        _TRAINING,
        {"aim": "PGD"},
        {"unknown attacks": _OF_OTHER_KINDS[1:]},
        adversarial=True,
    ),
    "TRADES": Entry(
        _TRAINING,
        {"aim": "TRADES"},
        {"unknown attacks": _OF_OTHER_KINDS[1:]},
        adversarial=True,
    ),
    "distillation, T = 100": Entry(
        _MASKING, {"aim": "distillation"}, _TRANSFER, large_logits=True
    ),
    "DQA *": Entry(
        f"{_MASKING}, {_INPUT}",
        {"defence": "DQA", "aim": "PGD", "after": "signum"},
        {**_TRANSFER, "black-box attacks": ("substitute",)},
        adversarial=True,
    ),
    "inhibition *": Entry(
        _MASKING,
        {"after": "inhibition"},
        claim="MNIST: 4.77 % of attacks succeed",
        held_out=True,
        large_logits=True,
    ),
    "hashing, random inhibition *": Entry(
        _MASKING,
        {"defence": "hashed", "after": "random inhibition"},
        held_out=True,
        large_logits=True,
    ),
    "superimposing *": Entry("consistency", {"aim": "consistency"}),
}


def networks(grid):
    """The networks of the table's lines, by name."""
    made = {}
    for name, entry in ENTRIES.items():
        if name in grid.scale.table_without:
            continue
        given = {"watched": False, **grid.scale.table, **entry.network}
        if entry.adversarial:
            given["adversarial_eps"] = grid.eps
        if entry.held_out and grid.scale.fewer_images:
            given["train_images"] = grid.scale.fewer_images
        made[name] = grid.network(**given)
    return made


def columns(grid, network, plain, entry):
    """The cells of a line, `{column: cell}`."""
    scale = grid.scale
    many, few = scale.images, scale.worst_images
    worst = scale.table_images
    if entry.slow:
        many = few = worst = scale.few_images
    source = plain
    if network == plain:
        source = dataclasses.replace(plain, seed=grid.seed + 1)
    slow_attack = {"images": scale.few_images}
    cells = {}
    if entry.large_logits:
        softmax = grid.attacked(network, "FGSM, softmax", images=many)
        cells["FGSM, softmax"] = softmax
    cells |= {
        "FGSM": grid.attacked(network, images=many),
        "PGD": grid.attacked(network, "PGD", images=few),
        "CW-L2": grid.attacked(network, "CW-L2", **slow_attack),
        "JSMA": grid.attacked(network, "JSMA", targeted=True),
        "transfer": grid.attacked(network, "MIM", source=source, images=few),
    }
    # Where the limitation speaks of them; of the undefended network all.
    asked = {c for wanted in entry.limitations.values() for c in wanted}
    asked = COLUMNS if network == plain else asked
    if "CW-L2, full search" in asked:
        cells["CW-L2, full search"] = grid.attacked(
            network, "CW-L2, full search", **slow_attack
        )
    if "substitute" in asked:
        cells["substitute"] = grid.attacked(
            network, source="substitute", images=few
        )
    cells["worst case"] = grid.worst(
        network, source=source, images=worst, plan=scale.table_plan
    )
    return cells


@figure(
    "table1",
    "Table 1, measured",
    "Approaches, threat models and limitations, in words.",
    kind="table",
)
def table1(grid):
    made = networks(grid)
    plain = made["undefended"]
    for name, network in made.items():
        entry = ENTRIES[name]
        cells = columns(grid, network, plain, entry)
        for column, cell in cells.items():
            worst = cell if column == "worst case" else None
            yield Row(name, column, cell, worst=worst, claim=entry.claim)
        yield Row(name, "training", network, field="training", baseline=plain)
        inference = Inference(network, plain, grid.scale.few_images, grid.seed)
        yield Row(name, "inference", inference, field="inference")
        yield Row(name, "parameters", network, field="parameters")
