"""The project's own overview, which the demo shows.

Each defence on clean images, under white-box FGSM and PGD, on examples
crafted on the undefended network, and under attacks that know of its
quantizer; behind a hard one, what can be proved.
"""

from keras_qsn.paper.cells import Proved
from keras_qsn.paper.figures.figure import Row
from keras_qsn.paper.figures.figure import figure

# Shares of `eps` at which the curves are measured.
_SWEEP = (1 / 3, 2 / 3, 1.0, 4 / 3)
_ADAPTIVE = {"bpda": "PGD-20, straight-through", "cube": "cube"}


def defences(grid):
    """The networks, by name; the undefended one first."""
    adversarial = {"adversarial_eps": grid.eps}
    return {
        "undefended": grid.undefended,
        "CQ": grid.network("CQ"),
        "CQ, hard": grid.network("CQ", hard=True),
        "TQ": grid.network("TQ"),
        "adversarial": grid.network(**adversarial),
        "adversarial TQ": grid.network("TQ", **adversarial),
    }


def columns(grid):
    """The cells of the table, `{defence: {column: cell}}`.

    What is given to the others is crafted once, for the undefended network
    itself too.
    """
    plain = grid.undefended
    given = {"eps": grid.eps, "images": min(1000, grid.scale.images)}
    table = {}
    for name, network in defences(grid).items():
        cells = table[name] = {}
        for column, attack in (("fgsm", "FGSM"), ("pgd", grid.scale.pgd)):
            carried = grid.attacked(network, attack, source=plain, **given)
            if network == plain:
                cells[column] = carried
            else:
                cells[column] = grid.attacked(network, attack, **given)
                cells[f"black_box_{column}"] = carried
        if network.quantized:
            for column, attack in _ADAPTIVE.items():
                cells[column] = grid.attacked(network, attack, **given)
    return table


def proofs(grid):
    """What is proved of the networks behind a hard quantizer, by name."""
    few = grid.scale.few_images
    return {
        name: Proved(network, grid.eps, few, seed=grid.seed)
        for name, network in defences(grid).items()
        if network.hard
    }


def curves(grid):
    """White-box cells at several radii, `{defence: {attack: {eps: cell}}}`."""
    radii = [round(share * grid.eps, 6) for share in _SWEEP]
    few = grid.scale.few_images
    return {
        name: {
            title: {
                eps: grid.attacked(network, attack, eps=eps, images=few)
                for eps in radii
            }
            for title, attack in (("FGSM", "FGSM"), ("PGD", grid.scale.pgd))
        }
        for name, network in defences(grid).items()
    }


@figure("demo", "The defences under all attacks", "The demo's table.")
def demo(grid):
    settings = {
        "fgsm": "FGSM, white-box",
        "pgd": "PGD, white-box",
        "black_box_fgsm": "FGSM, black-box",
        "black_box_pgd": "PGD, black-box",
        "bpda": "PGD, straight-through",
        "cube": "cube",
    }
    networks = defences(grid)
    for name, cells in columns(grid).items():
        worst = grid.worst(networks[name]) if networks[name].quantized else None
        for column, cell in cells.items():
            yield Row(name, settings[column], cell, worst=worst)
    for name, cell in proofs(grid).items():
        yield Row(name, "certified", cell)


@figure(
    "demo-eps",
    "The defences against eps, white-box",
    "The demo's curves.",
    kind="curves",
)
def demo_against_eps(grid):
    for name, lines in curves(grid).items():
        for attack, cells in lines.items():
            for eps, cell in cells.items():
                yield Row(f"{name}, {attack}", attack, cell, at=eps)
