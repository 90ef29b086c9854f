"""Attacks on Keras classifiers, in the words of Cleverhans."""

from keras_qsn.attacks.auto_pgd import AutoProjectedGradientDescent
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.carlini_wagner import CarliniWagnerL2
from keras_qsn.attacks.deepfool import DeepFool
from keras_qsn.attacks.gradient import BasicIterativeMethod
from keras_qsn.attacks.gradient import FastGradientMethod
from keras_qsn.attacks.gradient import MomentumIterativeMethod
from keras_qsn.attacks.gradient import ProjectedGradientDescent
from keras_qsn.attacks.result import AttackInterrupted
from keras_qsn.attacks.result import AttackResult
from keras_qsn.attacks.saliency_map import SaliencyMapMethod
from keras_qsn.attacks.square import SquareAttack

__all__ = [
    "Attack",
    "AttackInterrupted",
    "AttackResult",
    "AutoProjectedGradientDescent",
    "BasicIterativeMethod",
    "CarliniWagnerL2",
    "DeepFool",
    "FastGradientMethod",
    "MomentumIterativeMethod",
    "ProjectedGradientDescent",
    "SaliencyMapMethod",
    "SquareAttack",
]
