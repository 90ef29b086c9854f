"""Networks copied by who may only ask them: victims, answers, thieves.

Beside each defence of probabilities stands the thief who takes the class
alone, `CopyCat`: where the class stays, such a defence is void. Beside random
answers also stands the one who asks each image several times.
"""

from keras_qsn.paper.cells import Extracted
from keras_qsn.paper.figures.figure import Row
from keras_qsn.paper.figures.figure import figure

# What is done to the trained network, by the name of the victim.
VICTIMS = {"float": "", "QAT": "QAT", "DivQAT": "DivQAT"}

# Attack, answers, images asked about: of every victim, defended or not.
_MAIN = (
    ("KnockoffNets", "soft", "held back"),
    ("CopyCat", "hard", "held back"),
)
# Of those whose answers are random.
_AVERAGING = (("KnockoffNets, mean of 5", "soft", "held back"),)
# Of those whose answers are not defended.
_OTHERS = (
    ("Jacobian", "soft", "held back"),
    ("KnockoffNets", "soft", "outside"),
    ("KnockoffNets", "soft", "noise"),
)
_MORE = (
    ("KnockoffNets, adaptive", "soft", "held back"),
    ("Jacobian", "hard", "held back"),
    ("CopyCat", "hard", "outside"),
    ("CopyCat", "hard", "noise"),
)


@figure(
    "extraction",
    "Extraction",
    "Nothing; it is what DivQAT (arXiv:2512.23948) is to hinder.",
    kind="copies",
)
def extraction(grid):
    scale = grid.scale
    given = {
        "watched": False,
        **scale.table,
        # Some dozen copies of it are trained.
        "architecture": "small",
        "train_images": scale.victim_images,
    }
    original = grid.network(**given)
    for victim, after in VICTIMS.items():
        network = grid.network(after=after, **given)
        for told in ("", *scale.answers):
            name = f"{victim}, {told}" if told else victim
            for attack, answers, pool in _thieves(scale, after, told):
                cell = Extracted(
                    network,
                    original,
                    attack,
                    answers,
                    scale.queries,
                    grid.eps,
                    pool,
                    told,
                    grid.seed,
                )
                setting = f"{attack}, {answers}, {pool}"
                yield Row(name, setting, cell, field="agreement")


def _thieves(scale, after, told):
    if told:
        return _MAIN + _AVERAGING if told == "noise" else _MAIN
    if scale.all_thieves:
        return _MAIN + _OTHERS + _MORE
    return _MAIN if after else _MAIN + _OTHERS
