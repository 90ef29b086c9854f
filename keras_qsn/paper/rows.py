"""The rows of each figure: functions of a `Grid`."""

from keras_qsn.paper.grid import Row

# CW-L2 and JSMA are attacks without a radius: accuracy under the strongest of
# them is 0, and what a defence is worth shows in the distance. The attack
# that knows of the quantizer stands beside them as the worst case.
_KNOWS_LEVELS = {"CW-L2": "level flips, L2", "JSMA": "level flips, L0"}


def fig1(grid):
    plain, few = grid.undefended, grid.scale.few_images
    networks = {"none": (plain, 8.87)}
    for levels, printed in ((2, 24.66), (3, 19.6)):
        name = f"Q{levels}"
        squeezed = grid.network(squeezer=name)
        trained = grid.network("CQ", num_levels=levels)
        networks[f"{name} before the trained CNN"] = squeezed, printed
        networks[f"{name} in training too"] = trained, printed
    rows = []
    for name, (network, printed) in networks.items():
        quantized = network.defence != "none"
        settings = {
            "white-box": {},
            # Cleverhans' attack without labels.
            "white-box, labels guessed": {"guessed": True},
            "black-box": {"source": plain},
        }
        for setting, given in settings.items():
            if given.get("source") != network:
                worst = None
                if quantized and setting == "white-box":
                    worst = grid.worst(network, images=few)
                attacked = grid.attacked(network, **given)
                rows.append(Row(name, setting, attacked, printed, worst))
    return rows


def fig5(grid):
    networks = {
        "CNN": grid.network(adversarial_eps=grid.eps),
        "TQ": grid.network("TQ", adversarial_eps=grid.eps),
    }
    rows = []
    for name, network in networks.items():
        rows += [
            Row(name, "FGSM, epoch by epoch", network),
            Row(
                name,
                "FGSM, after training",
                grid.attacked(network),
                worst=grid.worst(network),
            ),
            Row(
                name,
                "PGD",
                grid.attacked(network, "PGD", images=grid.scale.worst_images),
            ),
        ]
    return rows


def fig6(grid):
    networks = {
        "CQ": grid.network("CQ"),
        "TQ": grid.network("TQ"),
        "signum (DQA)": grid.network("signum"),
    }
    rows = []
    for name, network in networks.items():
        rows += [
            Row(name, "white-box", grid.attacked(network)),
            Row(
                name,
                "straight-through",
                grid.attacked(network, "FGSM, straight-through"),
            ),
            Row(
                name,
                "black-box",
                grid.attacked(network, source=grid.undefended),
                worst=grid.worst(network),
            ),
        ]
    return rows


def effect_of_z(grid):
    rows = []
    sweeps = {
        "CQ": (1, 5, 10, 20, 50, 100, 500),
        "TQ": (1, 5, 10, 20, 40, 70, 100),
    }
    few = grid.scale.few_images
    for name, values in sweeps.items():
        for z in grid.sweep(*values):
            network = grid.network(
                name,
                steepness=float(z),
                train_images=grid.scale.sweep_images,
            )
            rows.append(
                Row(
                    name,
                    "FGSM",
                    grid.attacked(network),
                    worst=grid.worst(network, images=few),
                    at=z,
                )
            )
    return rows


def fig7(grid):
    rows = []
    shares = grid.sweep(1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1, 4 / 3)
    for levels in grid.sweep(2, 3, 4, 8, 16):
        network = grid.network("CQ", num_levels=levels)
        for share in shares:
            eps = round(share * grid.eps, 4)
            worst = grid.worst(network, eps=eps, images=grid.scale.few_images)
            rows.append(
                Row(
                    f"{levels} levels",
                    "FGSM",
                    grid.attacked(network, eps=eps),
                    worst=worst if share in shares[1::4] else None,
                    at=eps,
                )
            )
    return rows


def fig8(grid):
    rows = []
    for name, network in grid.defences().items():
        rows += [
            Row(name, "FGSM", grid.attacked(network)),
            Row(
                name,
                "CW-L2, median L2 needed",
                grid.attacked(network, "CW-L2, full search"),
                field="L2",
            ),
        ]
        if network.quantized:
            rows.append(
                Row(
                    name,
                    "level flips, median L2 needed",
                    grid.attacked(network, "level flips, L2"),
                    field="L2",
                )
            )
    return rows


def fig9(grid):
    bits = "5 bits" if grid.data == "cifar10" else "1 bit"
    networks = {
        **grid.defences(),
        "adversarial": grid.network(adversarial_eps=grid.eps),
        f"squeezing, {bits}": grid.network(squeezer=bits),
        "squeezing, median 2x2": grid.network(squeezer="median 2x2"),
        "BReLU + GDA": grid.network("BReLU+GDA"),
    }
    printed = {"none": 1.48, "CQ": 97.51, "BReLU + GDA": 94.0}
    rows = []
    for name, network in networks.items():
        value = None if grid.data == "cifar10" else printed.get(name)
        rows.append(
            Row(
                name,
                "white-box",
                grid.attacked(network),
                value,
                grid.worst(network),
            )
        )
        if network != grid.undefended:
            black_box = grid.attacked(network, source=grid.undefended)
            rows.append(Row(name, "black-box", black_box))
    return rows


def _without_radius(grid, attack, targets, printed):
    """Rows of Figs. 10 and 11: white-box and black-box."""
    rows = []
    for name, network in grid.defences().items():
        for targeted in targets:
            aim = "targeted" if targeted else "untargeted"
            given = {"targeted": targeted}
            worst = None
            if network.quantized:
                worst = grid.attacked(network, _KNOWS_LEVELS[attack])
            white_box = grid.attacked(network, attack, **given)
            rows.append(
                Row(
                    name,
                    f"{aim}, white-box",
                    white_box,
                    printed.get((name, "white-box")),
                    worst,
                )
            )
            if name != "none":
                given["source"] = grid.undefended
                rows.append(
                    Row(
                        name,
                        f"{aim}, black-box",
                        grid.attacked(network, attack, **given),
                        printed.get((name, "black-box")),
                    )
                )
    return rows


def fig10(grid):
    # The text gives one figure for "QuSecNets" against CNNs without defence,
    # and not which of them, nor whether targeted: CQ's rows get it.
    white_box, black_box = (54.0, 50.0) if grid.data == "cifar10" else (88, 90)
    printed = {
        ("none", "white-box"): 0.0,
        ("CQ", "white-box"): white_box,
        ("CQ", "black-box"): black_box,
    }
    rows = _without_radius(grid, "CW-L2", (False, True), printed)
    for name, network in grid.defences().items():
        full = grid.attacked(network, "CW-L2, full search")
        rows.append(Row(name, "untargeted, white-box, full search", full))
    return rows


def fig11(grid):
    return _without_radius(grid, "JSMA", (True,), {})
