"""What the paper leaves open, and what it sums up."""

from keras_qsn.paper.figures.fgsm import fig9
from keras_qsn.paper.figures.figure import Row
from keras_qsn.paper.figures.figure import figure
from keras_qsn.paper.figures.without_radius import fig10
from keras_qsn.paper.figures.without_radius import fig11


@figure(
    "ranges",
    "Gain over no defence",
    "The later abstract: 50 to 96 points on MNIST, 10 to 50 on CIFAR-10.",
)
def ranges(grid):
    """What a defence gains over none, attack by attack."""
    for rows, attack in ((fig9, "FGSM"), (fig10, "CW-L2"), (fig11, "JSMA")):
        rows = list(rows(grid))
        none = {row.setting: row for row in rows if row.defence == "none"}
        for row in rows:
            if row.defence not in ("CQ", "TQ", "TQ, adversarial"):
                continue
            baseline = none[row.setting.replace("black-box", "white-box")]
            yield Row(
                row.defence,
                f"{attack}, {row.setting}",
                row.cell,
                field="gain",
                baseline=baseline.cell,
            )


@figure(
    "readings",
    "Which reading gives 1.48 % and 97.51 %?",
    "MNIST, FGSM, eps 0.3, white-box: none 1.48 %, CQ 97.51 %.",
    data=("mnist",),
)
def readings(grid):
    """One thing changed at a time, or Cleverhans' tutorial as a whole."""
    plain, quantized = grid.undefended, grid.network("CQ")
    smoothed = {"label_smoothing": 0.1}
    # Labels and initial weights of Cleverhans' own tutorial; its earlier
    # versions leave the examples unclipped too.
    tutorial = {"initializer": "cleverhans", **smoothed}
    longer = {"epochs": grid.scale.epochs * 5 // 3}
    unclipped = "FGSM, unclipped"
    undefended = {
        "none": {},
        "none, label smoothing 0.1": smoothed,
        "none, smoothing, Cleverhans' weights": tutorial,
        "none, 10 epochs": longer,
    }
    for name, settings in undefended.items():
        for attack in ("FGSM", unclipped):
            attacked = grid.attacked(grid.network(**settings), attack)
            yield Row(name, attack, attacked, 1.48)
    guessed = grid.attacked(plain, guessed=True)
    yield Row("none, attacker guesses the label", "FGSM", guessed, 1.48)
    slope = "FGSM, autodiff slope"
    authors = {"variant": "authors"}
    hard, steep = {"hard": True}, {"steepness": 500.0}
    equations = {"threshold_cost": "Eq. 2"}
    # Name, defence, what is changed, and the attacks.
    for name, defence, settings, attacks in (
        ("CQ", "CQ", {}, ("FGSM", slope, "FGSM, from quantized images")),
        (
            "CQ, as the authors' code",
            "CQ",
            {**authors, "steepness": 50.0},
            ("FGSM", slope),
        ),
        (
            "CQ, as the authors' code, z = 5",
            "CQ",
            {**authors, "steepness": 5.0},
            ("FGSM",),
        ),
        ("CQ, hard output", "CQ", hard, ("FGSM", slope)),
        ("CQ, label smoothing 0.1", "CQ", smoothed, ("FGSM",)),
        ("CQ, smoothing, Cleverhans' weights", "CQ", tutorial, (unclipped,)),
        ("CQ, 10 epochs", "CQ", longer, ("FGSM",)),
        ("CQ, z = 500", "CQ", steep, ("FGSM",)),
        (
            "CQ, z = 500, smoothing, Cleverhans' weights",
            "CQ",
            {**steep, **tutorial},
            (unclipped,),
        ),
        ("CQ, zero slope (signum)", "signum", {}, ("FGSM",)),
        ("TQ", "TQ", {}, ("FGSM",)),
        ("TQ, Eq. 2", "TQ", equations, ("FGSM",)),
        (
            "TQ, Eq. 2, Eqs. 5 to 8 as printed",
            "TQ",
            {**equations, "gradient": "paper"},
            ("FGSM",),
        ),
        ("TQ, z = 40", "TQ", {"steepness": 40.0}, ("FGSM",)),
    ):
        network = grid.network(defence, **settings)
        worst = grid.worst(network, images=grid.scale.few_images)
        for attack in attacks:
            attacked = grid.attacked(network, attack)
            yield Row(name, attack, attacked, 97.51, worst)
    sources = {
        "black-box, undefended": plain,
        "black-box, substitute": "substitute",
        "black-box, CQ of another seed": grid.network("CQ", seed=grid.seed + 1),
    }
    for setting, source in sources.items():
        carried = grid.attacked(quantized, source=source)
        yield Row("CQ", setting, carried, 97.51)
