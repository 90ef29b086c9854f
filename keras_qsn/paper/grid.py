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
        pgd: Which of `measuring.ATTACKS` PGD is, by its number of steps.
        watched: Whether adversarial training is, epoch by epoch.
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
        return Network(self.data, defence, **given)

    def attacked(self, network, attack="FGSM", **settings):
        """A network under an attack; FGSM is at the paper's eps."""
        ball = attack.startswith(("FGSM", "PGD", "cube"))
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
        return WorstCase(network, self.network(), **given)

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
