"""The attacks of the grid, by the names that cells have of them."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_qsn import attacks
from keras_qsn.paper.networks import quantizer_of


def _pgd(eps, seed, nb_iter):
    return attacks.ProjectedGradientDescent(eps, nb_iter=nb_iter, seed=seed)


def _carlini_wagner(learning_rate, steps, initial_const):
    return attacks.CarliniWagnerL2(
        learning_rate=learning_rate,
        binary_search_steps=steps,
        max_iterations=100,
        initial_const=initial_const,
    )


def _fgsm(cell):
    return attacks.FastGradientMethod(cell.eps)


def _of_probabilities(y, logits):
    """The cross-entropy as Keras has it of probabilities, which it clips.

    Where the network is surer than that there is no gradient.
    """
    probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
    own = tf.gather(probabilities, y, batch_dims=1)
    least = keras.config.epsilon()
    return -tf.math.log(tf.clip_by_value(own, least, 1 - least))


def _transferable(cell):
    """Many steps that do not fit their source: MI-FGSM, diverse inputs."""
    attack = attacks.MomentumIterativeMethod(
        cell.eps, eps_iter=cell.eps / 10, nb_iter=10
    )
    return attacks.ViewedAttack(attack, attacks.InputDiversity())


def _slope(network):
    return quantizer_of(network).steepness


def _quantized(x, network):
    hard = dataclasses.replace(network, hard=True)
    return np.asarray(quantizer_of(hard)(x))


# Functions of an `Attacked` cell.
ATTACKS = {
    "FGSM": _fgsm,
    # The loss as papers computed it, which a saturated softmax hides.
    "FGSM, softmax": lambda cell: attacks.FastGradientMethod(
        cell.eps, loss=_of_probabilities
    ),
    "MIM": _transferable,
    "PGD": lambda cell: _pgd(cell.eps, cell.seed, 40),
    "PGD-10": lambda cell: _pgd(cell.eps, cell.seed, 10),
    # The slope as y (1 - y), which autodiff of a float32 sigmoid gives: what
    # Cleverhans saw of the authors' layer.
    "FGSM, autodiff slope": lambda cell: attacks.BPDA(
        _fgsm(cell), _slope(cell.network)
    ),
    "FGSM, from quantized images": _fgsm,
    # Out of the images' range where eps leads there, as in Cleverhans without
    # `clip_min` and `clip_max`.
    "FGSM, unclipped": lambda cell: attacks.FastGradientMethod(
        cell.eps, clip_min=-cell.eps, clip_max=1 + cell.eps
    ),
    "FGSM, straight-through": lambda cell: attacks.BPDA(_fgsm(cell)),
    # Attacks that know of the quantizer, and stop at what they have broken.
    "PGD-20, straight-through": lambda cell: attacks.BPDA(
        attacks.ProjectedGradientDescent(
            cell.eps, nb_iter=20, seed=cell.seed, early_stop=True
        )
    ),
    "cube": lambda cell: attacks.CubeAttack(
        cell.eps, nb_iter=20, nb_restarts=3, seed=cell.seed
    ),
    # The settings of Cleverhans' tutorial, with the paper's 100 iterations.
    "CW-L2": lambda cell: _carlini_wagner(0.2, 1, 10.0),
    # Finds an example of every image, so that distances can be compared.
    "CW-L2, full search": lambda cell: _carlini_wagner(0.1, 9, 1.0),
    "level flips, L2": lambda cell: attacks.LevelFlipAttack(2),
    "JSMA": lambda cell: attacks.SaliencyMapMethod(gamma=0.1),
    "level flips, L0": lambda cell: attacks.LevelFlipAttack(0),
}

# Where an attack does not start from the images as they are.
STARTS = {"FGSM, from quantized images": _quantized}
