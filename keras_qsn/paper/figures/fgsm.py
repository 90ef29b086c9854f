"""Figures of defences under FGSM."""

from keras_qsn.paper.figures.figure import Row
from keras_qsn.paper.figures.figure import figure


@figure(
    "fig1",
    "Quantized input, undefended network",
    "8.87 % undefended, 24.66 % behind 2 levels, 19.6 % behind 3.",
    data=("cifar10",),
    kind="images",
)
def fig1(grid):
    plain, few = grid.undefended, grid.scale.few_images
    networks = {"none": (plain, 8.87)}
    for levels, printed in ((2, 24.66), (3, 19.6)):
        name = f"Q{levels}"
        squeezed = grid.network(after=name)
        trained = grid.network("CQ", num_levels=levels)
        networks[f"{name} before the trained CNN"] = squeezed, printed
        networks[f"{name} in training too"] = trained, printed
    settings = {
        "white-box": {},
        # Cleverhans' attack without labels.
        "white-box, labels guessed": {"guessed": True},
        "black-box": {"source": plain},
    }
    for name, (network, printed) in networks.items():
        for setting, given in settings.items():
            if given.get("source") == network:
                continue
            worst = None
            if network.defence != "none" and setting == "white-box":
                worst = grid.worst(network, images=few)
            attacked = grid.attacked(network, **given)
            yield Row(name, setting, attacked, printed, worst)


@figure(
    "fig5",
    "FGSM adversarial training, plain CNN and TQ",
    "TQ learns adversarial training better than the plain CNN.",
    data=("mnist",),
    kind="epochs",
)
def fig5(grid):
    networks = {
        "CNN": grid.network(adversarial_eps=grid.eps),
        "TQ": grid.network("TQ", adversarial_eps=grid.eps),
    }
    for name, network in networks.items():
        fgsm, worst = grid.attacked(network), grid.worst(network)
        images = grid.scale.worst_images
        pgd = grid.attacked(network, "PGD", images=images)
        yield Row(name, "FGSM, epoch by epoch", network)
        yield Row(name, "FGSM, after training", fgsm, worst=worst)
        yield Row(name, "PGD", pgd)


@figure(
    "fig6",
    "Examples for QuSecNets and for a signum quantizer",
    "On signum the attack is unable to make examples.",
    data=("mnist",),
    kind="images",
)
def fig6(grid):
    networks = {
        "CQ": grid.network("CQ"),
        "TQ": grid.network("TQ"),
        "signum (DQA)": grid.network("signum"),
    }
    for name, network in networks.items():
        through = grid.attacked(network, "FGSM, straight-through")
        carried = grid.attacked(network, source=grid.undefended)
        worst = grid.worst(network)
        yield Row(name, "white-box", grid.attacked(network))
        yield Row(name, "straight-through", through)
        yield Row(name, "black-box", carried, worst=worst)


@figure(
    "z",
    "Effect of z",
    "5 to 40 trains TQ; above, training halts. 50 for CQ.",
    data=("mnist",),
    kind="curves",
)
def effect_of_z(grid):
    sweeps = {
        "CQ": (1, 5, 10, 20, 50, 100, 500),
        "TQ": (1, 5, 10, 20, 40, 70, 100),
    }
    for name, values in sweeps.items():
        for z in grid.sweep(*values):
            network = grid.network(
                name,
                steepness=float(z),
                train_images=grid.scale.sweep_images,
            )
            worst = grid.worst(network, images=grid.scale.few_images)
            yield Row(name, "FGSM", grid.attacked(network), worst=worst, at=z)


@figure(
    "fig7",
    "CQ under FGSM, by number of levels",
    "More levels, lower accuracy.",
    kind="curves",
)
def fig7(grid):
    shares = grid.sweep(1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1, 4 / 3)
    for levels in grid.sweep(2, 3, 4, 8, 16):
        network = grid.network("CQ", num_levels=levels)
        for share in shares:
            eps = round(share * grid.eps, 4)
            attacked = grid.attacked(network, eps=eps)
            worst = None
            if share in shares[1::4]:
                few = grid.scale.few_images
                worst = grid.worst(network, eps=eps, images=few)
            yield Row(f"{levels} levels", "FGSM", attacked, None, worst, at=eps)


@figure(
    "fig8",
    "Perceptibility",
    "Quantized networks need more visible noise.",
    kind="images",
)
def fig8(grid):
    attacks = {
        "CW-L2, median L2 needed": "CW-L2, full search",
        "level flips, median L2 needed": "level flips, L2",
    }
    for name, network in grid.defences().items():
        yield Row(name, "FGSM", grid.attacked(network))
        for setting, attack in attacks.items():
            if network.quantized or attack.startswith("CW"):
                attacked = grid.attacked(network, attack)
                yield Row(name, setting, attacked, field="L2")


@figure(
    "fig9",
    "FGSM, all defences",
    "MNIST, eps 0.3, white-box: none 1.48 %, CQ 97.51 %, BReLU 94 %.",
)
def fig9(grid):
    bits = "5 bits" if grid.data == "cifar10" else "1 bit"
    networks = {
        **grid.defences(),
        "adversarial": grid.network(adversarial_eps=grid.eps),
        f"squeezing, {bits}": grid.network(after=bits),
        "squeezing, median 2x2": grid.network(after="median 2x2"),
        "BReLU + GDA": grid.network("BReLU+GDA"),
    }
    printed = {"none": 1.48, "CQ": 97.51, "BReLU + GDA": 94.0}
    if grid.data == "cifar10":
        printed = {}
    for name, network in networks.items():
        attacked, worst = grid.attacked(network), grid.worst(network)
        yield Row(name, "white-box", attacked, printed.get(name), worst)
        if network != grid.undefended:
            carried = grid.attacked(network, source=grid.undefended)
            yield Row(name, "black-box", carried)
