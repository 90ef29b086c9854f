"""Cells of the grid: what is trained, what is measured, as plain values.

A cell says everything its result depends on, so equal cells are one cell: a
training that several figures share is done once.
"""

import dataclasses
import hashlib
import json

from keras_qsn.paper.defences import AFTER
from keras_qsn.paper.defences import AIMS
from keras_qsn.version import __version__

_QUANTIZED = {"CQ", "TQ", "signum", "Q2", "Q3", "1 bit", "5 bits"}


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network.

    Args:
        data: Name of the data set.
        defence: What is built, a key of `defences.BUILT`.
        num_levels: The paper's `n`.
        steepness: The paper's `z`. Defaults to `None`: 50 for CQ, 5 for TQ.
        hard: Whether the quantizer's output is the exact level.
        variant: `"standard"`, or `"authors"` for their published code.
        gradient: `"exact"`, or `"paper"` for Eqs. 5 to 8 as printed.
        threshold_cost: What thresholds are trained on: `"cross-entropy"`,
            with the network, or `"Eq. 2"`, by Eq. 3.
        adversarial_eps: Radius of the FGSM examples that are half of each
            batch; `0` trains on clean images.
        label_smoothing: Share of the label spread over all classes.
        initializer: Of all kernels: `"glorot"`, Keras' default, or
            `"cleverhans"`, `N(0, 1 / fan_in)`, of Cleverhans' own networks.
        after: What is done to the network after training, a key of
            `defences.AFTER`; `""` is nothing.
        epochs: Of training.
        train_images: How many; `None` is all.
        seed: Decides weights, order and which images.
        watched: Whether accuracy under the attack trained on is measured
            after each epoch, on test images.
        aim: What it is trained for, a key of `defences.AIMS`.
        architecture: `"cleverhans"`, or `"small"`, for quick looks.
        settings: Of `defence`, `aim` and `after`, where they differ from
            their defaults: pairs of a name and of pairs.
    """

    data: str
    defence: str = "none"
    num_levels: int = 2
    steepness: float | None = None
    hard: bool = False
    variant: str = "standard"
    gradient: str = "exact"
    threshold_cost: str = "cross-entropy"
    adversarial_eps: float = 0.0
    label_smoothing: float = 0.0
    initializer: str = "glorot"
    after: str = ""
    epochs: int = 6
    train_images: int | None = None
    seed: int = 0
    watched: bool = True
    aim: str = ""
    architecture: str = "cleverhans"
    settings: tuple = ()

    @property
    def quantized(self):
        """Whether adaptive attacks have a quantizer to go round."""
        return bool(_QUANTIZED & {self.defence, self.after})

    @property
    def detector(self):
        """Whether a detector stands beside it."""
        return bool(self.after) and AFTER[self.after].detector is not None

    @property
    def needs(self):
        """Cells that must be finished first."""
        if self.after:
            return (self._without(self.after, after=""),)
        companion = AIMS[self.aim].companion
        if companion:
            return (self._without(self.aim, aim=companion),)
        return ()

    def own(self, name):
        """The settings of a part of it, by name."""
        return dict(dict(self.settings).get(name, ()))

    def _without(self, name, **changes):
        settings = tuple(own for own in self.settings if own[0] != name)
        return dataclasses.replace(self, settings=settings, **changes)


@dataclasses.dataclass(frozen=True)
class Attacked:
    """Accuracy of a network under one attack.

    Args:
        network: The `Network` judged.
        attack: Name of the attack, a key of `attacking.ATTACKS`.
        eps: Radius of the ball; `0` for attacks without one.
        source: `Network` whose examples are used, a black-box attack;
            `"substitute"` for one taught by the network's answers; `None`
            for the network itself.
        targeted: Whether each image is to reach each other class.
        guessed: Whether the attacker takes the network's answer for the
            label, as Cleverhans does by default.
        images: How many test images; one of each class in turn if targeted.
        seed: Which images, and the attack's seed.
    """

    network: Network
    attack: str
    eps: float = 0.0
    source: Network | str | None = None
    targeted: bool = False
    guessed: bool = False
    images: int = 10000
    seed: int = 0

    @property
    def needs(self):
        """Cells that must be finished first."""
        if not isinstance(self.source, Network):
            return (self.network,)
        own = dataclasses.replace(self, network=self.source, source=None)
        return (self.network, Examples(**vars(own)))


class Examples(Attacked):
    """What an attack makes of images, kept for other networks.

    The `network` is the one attacked, and there is no `source`.
    """


@dataclasses.dataclass(frozen=True)
class WorstCase:
    """Accuracy of a network in the worst case over the attacks of a plan.

    Args:
        network: The `Network` judged.
        source: `Network` to transfer examples from.
        eps: Radius of the L-infinity ball.
        images: How many test images.
        seed: Which images, and the attacks' seed.
        plan: Name of the plan.
    """

    network: Network
    source: Network
    eps: float
    images: int = 1000
    seed: int = 0
    plan: str = "quick"

    @property
    def needs(self):
        """Cells that must be finished first."""
        return (self.network, self.source)


@dataclasses.dataclass(frozen=True)
class Inference:
    """How long a network takes to answer, beside another one.

    Args:
        network: The `Network`.
        baseline: The `Network` it is held against, timed in turn with it.
        images: How many test images.
        seed: Which images.
    """

    network: Network
    baseline: Network
    images: int = 1000
    seed: int = 0

    @property
    def needs(self):
        """Cells that must be finished first."""
        return (self.network, self.baseline)


@dataclasses.dataclass(frozen=True)
class Proved:
    """What can be proved of a network behind a hard quantizer.

    Args:
        network: The `Network`.
        eps: Radius of the L-infinity ball.
        images: How many test images.
        seconds: Of branching for one image.
        seed: Which images.
    """

    network: Network
    eps: float
    images: int
    seconds: float = 0.5
    seed: int = 0

    @property
    def needs(self):
        """Cells that must be finished first."""
        return (self.network,)


@dataclasses.dataclass(frozen=True)
class Extracted:
    """How well a network is copied by who may only ask it.

    Args:
        network: The `Network` copied.
        original: The float `Network` whose answers its own are held against.
        attack: Name of the attack, a key of `extracting.ATTACKS`.
        answers: `"soft"`, the thief sees probabilities, or `"hard"`.
        queries: Images that it may ask about.
        eps: Radius of the L-infinity ball around the test images, in which
            the copy's adversarial examples lie.
        pool: Which images it asks about, a key of `pools.POOLS`.
        told: How answers are defended, a key of `extracting.DEFENCES`; `""`
            is not.
        seed: The attack's, and of the copy's first weights.
    """

    network: Network
    original: Network
    attack: str
    answers: str
    queries: int
    eps: float
    pool: str = "held back"
    told: str = ""
    seed: int = 0

    @property
    def needs(self):
        """Cells that must be finished first."""
        return (self.network, self.original)


Cell = Network | Attacked | WorstCase | Inference | Proved | Extracted


def network_of(cell):
    """The network that is trained, attacked or judged."""
    return cell if isinstance(cell, Network) else cell.network


def key(cell):
    """A name for a cell's files: readable, and another for another cell."""
    text = json.dumps([__version__, _chosen(cell)], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    network = network_of(cell)
    words = [type(cell).__name__, network.data, network.defence]
    if isinstance(cell, Attacked | Extracted):
        words.append(cell.attack)
    slug = "-".join(words).lower()
    slug = "".join(c if c.isalnum() else "-" for c in slug)
    return f"{slug}-{digest}"


def _chosen(cell):
    """A cell without its defaults: a new setting leaves old names alone."""
    chosen = {"kind": type(cell).__name__}
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        if value != field.default:
            inner = dataclasses.is_dataclass(value)
            chosen[field.name] = _chosen(value) if inner else value
    return chosen


def with_needs(cells):
    """The cells and all they need, each once, needs before needers."""
    ordered = {}

    def add(cell):
        for needed in cell.needs:
            add(needed)
        ordered[cell] = None

    for cell in cells:
        if cell not in ordered:
            add(cell)
    return list(ordered)
