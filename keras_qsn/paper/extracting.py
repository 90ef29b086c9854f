"""Measuring an `Extracted` cell: thieves, and defences of answers, by name."""

import dataclasses
import functools

from keras_qsn import attacks
from keras_qsn import defenses
from keras_qsn import extraction
from keras_qsn.paper.networks import built
from keras_qsn.paper.pools import POOLS

ATTACKS = {
    "KnockoffNets": extraction.KnockoffNets,
    "KnockoffNets, adaptive": functools.partial(
        extraction.KnockoffNets, sampling="adaptive"
    ),
    "KnockoffNets, mean of 5": functools.partial(
        extraction.KnockoffNets, repeats=5
    ),
    "Jacobian": extraction.JacobianAugmentation,
    "CopyCat": extraction.CopyCat,
}

DEFENCES = {
    "": lambda: (),
    "rounded to tenths": lambda: (defenses.RoundedAnswers(1),),
    "reverse sigmoid": lambda: (defenses.ReverseSigmoid(),),
    "noise": lambda: (defenses.NoisyAnswers(),),
}


def measure_extraction(cell, model, original, data, data_dir=None):
    """Copy a network by asking it; the thief knows its architecture.

    Args:
        cell: The `Extracted` cell.
        model: The model of its network.
        original: The float model, whose answers are held against.
        data: The data set.
        data_dir: Optional folder with the data sets.

    Returns:
        Plain values, and arrays: the classes of victim and copy.
    """
    x, y, words = POOLS[cell.pool](cell, data, data_dir)
    layers = DEFENCES[cell.told]()
    # The thief's own first weights.
    start = dataclasses.replace(
        cell.network, after="", settings=(), seed=cell.seed + 1
    )
    thief = ATTACKS[cell.attack](cell.queries, cell.answers, seed=cell.seed)
    result = thief.run(
        defenses.with_defended_answers(model, *layers) if layers else model,
        built(start, x.shape[1:]),
        x if y is None else (x, y),
        data.x_test,
        data.y_test,
        clean=original,
        adversary=attacks.ProjectedGradientDescent(
            cell.eps, nb_iter=10, seed=cell.seed
        ),
        verbose=0,
    )
    values = {
        "agreement": result.agreement,
        "clean": result.victim_accuracy,
        "copy": result.copy_accuracy,
        "fooled": result.fooled["victim"],
        "l1": result.l1,
        "queries": result.queries,
        "images": len(data.x_test),
        "asked": words,
    }
    return values, {"victim": result.victim, "copy": result.copy}
