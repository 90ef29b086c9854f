"""What a network is trained for."""

import dataclasses
import typing

from keras_qsn import attacks
from keras_qsn import training
from keras_qsn.losses import ProbabilityMeanSquaredError


@dataclasses.dataclass(frozen=True)
class Aim:
    """What a network is trained for.

    Args:
        objectives: Function of a `Network`, of the model of its companion and
            of settings: a list of objectives.
        companion: Aim of the network that must be trained before, alike in
            all else; `""` for none.
        ramp: Whether the radius grows for the first half of the epochs: at
            full strength from the start, training stalls on one answer.
        passes: Through the network for each image, in those of plain
            training: for the time left.
    """

    objectives: typing.Callable
    companion: str = ""
    ramp: bool = False
    passes: float = 1.0


def _plain(network, _):
    objectives = []
    if network.adversarial_eps:
        fgsm = attacks.FastGradientMethod(network.adversarial_eps)
        objectives.append(fgsm)
    if network.threshold_cost == "Eq. 2":
        loss = ProbabilityMeanSquaredError()
        objectives.append(training.ThresholdTraining(loss))
    return objectives


def _pgd(network, nb_iter, across):
    """PGD whose steps cross the radius so many times together."""
    eps = network.adversarial_eps
    return attacks.ProjectedGradientDescent(
        eps,
        eps_iter=across * eps / nb_iter,
        nb_iter=nb_iter,
        seed=network.seed,
    )


def _madry(network, _, nb_iter=10, clean_share=0.0):
    attack = _pgd(network, nb_iter, 2.5)
    return [training.AdversarialTraining(attack, clean_share)]


def _one_step(network, _):
    attack = _pgd(network, 1, 1.25)
    return [training.AdversarialTraining(attack, clean_share=0.0)]


def _trades(network, _, nb_iter=10, beta=6.0):
    return [training.TRADES(_pgd(network, nb_iter, 2.5), beta)]


def _distilled(network, teacher, temperature=100.0):
    return [training.DefensiveDistillation(temperature, teacher)]


def _consistent(network, _):
    return [training.ConsistencyTraining(seed=network.seed)]


AIMS = {
    # The labels; with a radius, FGSM examples in half of each batch.
    "": Aim(_plain),
    "PGD": Aim(_madry, ramp=True, passes=10),
    "FGSM-RS": Aim(_one_step, ramp=True, passes=2),
    "TRADES": Aim(_trades, ramp=True, passes=12),
    "teacher": Aim(_distilled),
    "distillation": Aim(_distilled, companion="teacher", passes=1.3),
    "consistency": Aim(_consistent, passes=2),
}
