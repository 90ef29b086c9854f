"""Attacks on Keras classifiers, in the words of Cleverhans."""

from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.base import AttackResult
from keras_qsn.attacks.gradient import BasicIterativeMethod
from keras_qsn.attacks.gradient import FastGradientMethod
from keras_qsn.attacks.gradient import MomentumIterativeMethod
from keras_qsn.attacks.gradient import ProjectedGradientDescent

__all__ = [
    "Attack",
    "AttackResult",
    "BasicIterativeMethod",
    "FastGradientMethod",
    "MomentumIterativeMethod",
    "ProjectedGradientDescent",
]
