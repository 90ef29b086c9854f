"""What the paper leaves open, and what it sums up: functions of a `Grid`."""

from keras_qsn.paper.grid import Row
from keras_qsn.paper.rows import fig9
from keras_qsn.paper.rows import fig10
from keras_qsn.paper.rows import fig11


def ranges(grid):
    """What a defence gains over none, attack by attack."""
    rows = []
    for figure, attack in ((fig9, "FGSM"), (fig10, "CW-L2"), (fig11, "JSMA")):
        found = figure(grid)
        none = {row.setting: row for row in found if row.defence == "none"}
        for row in found:
            if row.defence not in ("CQ", "TQ", "TQ, adversarial"):
                continue
            baseline = none[row.setting.replace("black-box", "white-box")]
            rows.append(
                Row(
                    row.defence,
                    f"{attack}, {row.setting}",
                    row.cell,
                    field="gain",
                    baseline=baseline.cell,
                )
            )
    return rows


def readings(grid):
    """Which reading gives the printed figure?

    One thing changed at a time, or Cleverhans' tutorial as a whole.
    """
    plain = grid.undefended
    smoothed = {"label_smoothing": 0.1}
    # Labels and initial weights of Cleverhans' own tutorial; its earlier
    # versions leave the examples unclipped too.
    tutorial = {"initializer": "cleverhans", **smoothed}
    longer = {"epochs": grid.scale.epochs * 5 // 3}
    unclipped = "FGSM, unclipped"
    rows = [
        Row(name, attack, grid.attacked(network, attack), 1.48)
        for name, network in (
            ("none", plain),
            ("none, label smoothing 0.1", grid.network(**smoothed)),
            ("none, smoothing, Cleverhans' weights", grid.network(**tutorial)),
            ("none, 10 epochs", grid.network(**longer)),
        )
        for attack in ("FGSM", unclipped)
    ]
    guessed = grid.attacked(plain, guessed=True)
    rows.append(Row("none, attacker guesses the label", "FGSM", guessed, 1.48))
    slope = "FGSM, autodiff slope"
    quantized = "FGSM, from quantized images"
    few = grid.scale.few_images
    for name, network, attack in (
        ("CQ", grid.network("CQ"), "FGSM"),
        ("CQ", grid.network("CQ"), slope),
        ("CQ", grid.network("CQ"), quantized),
        ("CQ, as the authors' code", _authors(grid, 50.0), "FGSM"),
        ("CQ, as the authors' code", _authors(grid, 50.0), slope),
        ("CQ, as the authors' code, z = 5", _authors(grid, 5.0), "FGSM"),
        ("CQ, hard output", grid.network("CQ", hard=True), "FGSM"),
        ("CQ, hard output", grid.network("CQ", hard=True), slope),
        ("CQ, label smoothing 0.1", grid.network("CQ", **smoothed), "FGSM"),
        (
            "CQ, smoothing, Cleverhans' weights",
            grid.network("CQ", **tutorial),
            unclipped,
        ),
        ("CQ, 10 epochs", grid.network("CQ", **longer), "FGSM"),
        ("CQ, z = 500", grid.network("CQ", steepness=500.0), "FGSM"),
        (
            "CQ, z = 500, smoothing, Cleverhans' weights",
            grid.network("CQ", steepness=500.0, **tutorial),
            unclipped,
        ),
        ("CQ, zero slope (signum)", grid.network("signum"), "FGSM"),
        ("TQ", grid.network("TQ"), "FGSM"),
        ("TQ, Eq. 2", grid.network("TQ", threshold_cost="Eq. 2"), "FGSM"),
        (
            "TQ, Eq. 2, Eqs. 5 to 8 as printed",
            grid.network("TQ", threshold_cost="Eq. 2", gradient="paper"),
            "FGSM",
        ),
        ("TQ, z = 40", grid.network("TQ", steepness=40.0), "FGSM"),
    ):
        rows.append(
            Row(
                name,
                attack,
                grid.attacked(network, attack),
                97.51,
                grid.worst(network, images=few),
            )
        )
    for setting, source in (
        ("black-box, undefended", plain),
        ("black-box, substitute", "substitute"),
        (
            "black-box, CQ of another seed",
            grid.network("CQ", seed=grid.seed + 1),
        ),
    ):
        rows.append(
            Row(
                "CQ",
                setting,
                grid.attacked(grid.network("CQ"), source=source),
                97.51,
            )
        )
    return rows


def _authors(grid, steepness):
    return grid.network("CQ", variant="authors", steepness=steepness)
