"""Attacks on Keras classifiers, in the words of Cleverhans."""

from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.base import AttackResult
from keras_qsn.attacks.deepfool import DeepFool
from keras_qsn.attacks.gradient import BasicIterativeMethod
from keras_qsn.attacks.gradient import FastGradientMethod
from keras_qsn.attacks.gradient import MomentumIterativeMethod
from keras_qsn.attacks.gradient import ProjectedGradientDescent
from keras_qsn.attacks.saliency_map import SaliencyMapMethod

__all__ = [
    "Attack",
    "AttackResult",
    "BasicIterativeMethod",
    "DeepFool",
    "FastGradientMethod",
    "MomentumIterativeMethod",
    "ProjectedGradientDescent",
    "SaliencyMapMethod",
]
