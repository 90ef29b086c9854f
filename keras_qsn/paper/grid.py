"""The grid: how large it is, and its cells, by what is varied."""

import dataclasses

from keras_qsn.paper.cells import Attacked
from keras_qsn.paper.cells import Network
from keras_qsn.paper.cells import WorstCase


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything a grid takes.

    Args:
        data: Data sets; a single one stands for all that a figure names.
        epochs: Of training.
        train_images: How many; `None` is all.
        sweep_images: Training images of the sweep over z.
        images: Test images under one-step attacks.
        worst_images: Test images in the worst case, main rows.
        few_images: Test images in the worst case of sweeps, and under slow
            attacks.
        sources: Test images of targeted attacks, each with nine targets.
        sweep: Every how many values of a sweep are taken.
        pgd: Which of `attacking.ATTACKS` PGD is, by its number of steps.
        watched: Whether adversarial training is, epoch by epoch.
        fewer_images: Training images of networks that a defence needs others
            beside; `None` is `train_images`.
        table: Of the networks of Table 1, what differs from the others.
        settings: Of parts of defences, by name, what differs from their
            defaults.
        table_without: Lines that Table 1 lacks.
        table_images: Test images in Table 1, worst case.
        table_plan: Name of the plan there.
        victim_images: Training images of networks that are copied; of the
            others some are asked about.
        queries: Images that a thief may ask about.
        answers: Defences of answers, keys of `extracting.DEFENCES`.
        all_thieves: Whether each victim meets each thief; else the float
            network meets some, the others the main ones.
    """

    data: tuple
    epochs: int
    train_images: int | None
    sweep_images: int | None
    images: int
    worst_images: int
    few_images: int
    sources: int
    sweep: int
    pgd: str = "PGD"
    watched: bool = True
    fewer_images: int | None = None
    table: dict = dataclasses.field(default_factory=dict)
    settings: dict = dataclasses.field(default_factory=dict)
    table_without: tuple = ()
    table_images: int = 1000
    table_plan: str = "standard"
    victim_images: int = 30000
    queries: int = 10000
    answers: tuple = ("rounded to tenths", "reverse sigmoid", "noise")
    all_thieves: bool = True


FULL = Scale(
    data=("mnist", "cifar10"),
    epochs=6,
    train_images=None,
    sweep_images=20000,
    images=10000,
    worst_images=500,
    few_images=200,
    sources=10,
    sweep=1,
    fewer_images=55000,
    settings={
        # Each pass of the classifier is one of the generator times restarts
        # times steps, for R = 10 and L = 200 some thousand times its own.
        "Defense-GAN": {
            "width": 32,
            "epochs": 20,
            "num_restarts": 3,
            "num_steps": 40,
        },
    },
)
QUICK = Scale(
    data=("digits",),
    epochs=4,
    train_images=3000,
    sweep_images=3000,
    images=300,
    worst_images=40,
    few_images=40,
    sources=2,
    sweep=4,
    table={"architecture": "small", "epochs": 10},
    settings={
        "PGD": {"nb_iter": 4},
        "APE-GAN": {"width": 8, "epochs": 3, "learning_rate": 2e-3},
    },
    # One answer of it is some hundred passes through a generator.
    table_without=("Defense-GAN",),
    table_images=40,
    table_plan="quick",
    victim_images=2000,
    queries=500,
    answers=("reverse sigmoid",),
    all_thieves=False,
)


class Grid:
    """Cells of one data set, by name, and one seed, at a `Scale`."""

    def __init__(self, scale, data, seed):
        self.scale = scale
        self.data = data
        self.seed = seed
        self.eps = 0.1 if data == "cifar10" else 0.3

    def network(self, defence="none", **settings):
        """A network as this grid trains it."""
        given = {
            "epochs": self.scale.epochs,
            "train_images": self.scale.train_images,
            "seed": self.seed,
            "watched": self.scale.watched,
            **settings,
        }
        parts = {defence, given.get("aim"), given.get("after")}
        given["settings"] = tuple(
            (part, tuple(sorted(own.items())))
            for part, own in sorted(self.scale.settings.items())
            if part in parts
        )
        return Network(self.data, defence, **given)

    def attacked(self, network, attack="FGSM", **settings):
        """A network under an attack; FGSM is at the paper's eps."""
        ball = attack.startswith(("FGSM", "PGD", "MIM", "cube"))
        given = {
            "eps": self.eps if ball else 0.0,
            "images": self.scale.images if ball else self.scale.few_images,
            "seed": self.seed,
            **settings,
        }
        if given.get("targeted"):
            given["images"] = self.scale.sources
        return Attacked(network, attack, **given)

    def worst(self, network, **settings):
        """A network in the worst case."""
        given = {
            "eps": self.eps,
            "images": self.scale.worst_images,
            "seed": self.seed,
            **settings,
        }
        # The same training for every network that is judged.
        given.setdefault("source", self.network())
        return WorstCase(network, **given)

    def sweep(self, *values):
        """The values of a sweep, or some of them."""
        return values[:: self.scale.sweep]

    @property
    def undefended(self):
        """The network whose examples are carried over."""
        return self.network()

    def defences(self):
        """The paper's own defences, by name."""
        return {
            "none": self.network(),
            "CQ": self.network("CQ"),
            "TQ": self.network("TQ"),
            "TQ, adversarial": self.network("TQ", adversarial_eps=self.eps),
        }
