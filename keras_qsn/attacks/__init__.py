"""Attacks on Keras classifiers, in the words of Cleverhans."""

from keras_qsn.attacks.adaptive import BPDA
from keras_qsn.attacks.adaptive import AnnealedBPDA
from keras_qsn.attacks.auto_attack import AutoAttack
from keras_qsn.attacks.auto_pgd import AutoProjectedGradientDescent
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.carlini_wagner import CarliniWagnerL2
from keras_qsn.attacks.cube import CubeAttack
from keras_qsn.attacks.decision import AdditiveGaussianNoiseAttack
from keras_qsn.attacks.decision import PointwiseAttack
from keras_qsn.attacks.deepfool import DeepFool
from keras_qsn.attacks.fab import FastAdaptiveBoundary
from keras_qsn.attacks.gradient import BasicIterativeMethod
from keras_qsn.attacks.gradient import FastGradientMethod
from keras_qsn.attacks.gradient import MomentumIterativeMethod
from keras_qsn.attacks.gradient import ProjectedGradientDescent
from keras_qsn.attacks.hop_skip_jump import HopSkipJumpAttack
from keras_qsn.attacks.level_flips import LevelFlipAttack
from keras_qsn.attacks.local_search import LocalSearchAttack
from keras_qsn.attacks.result import AttackInterrupted
from keras_qsn.attacks.result import AttackResult
from keras_qsn.attacks.saliency_map import SaliencyMapMethod
from keras_qsn.attacks.single_pixel import SinglePixelAttack
from keras_qsn.attacks.spsa import SPSA
from keras_qsn.attacks.square import SquareAttack
from keras_qsn.attacks.substitute import SubstituteTraining
from keras_qsn.attacks.substitute import substitute_mlp
from keras_qsn.attacks.substitute import train_substitute
from keras_qsn.attacks.transfer import TransferAttack

__all__ = [
    "AdditiveGaussianNoiseAttack",
    "AnnealedBPDA",
    "Attack",
    "AttackInterrupted",
    "AttackResult",
    "AutoAttack",
    "AutoProjectedGradientDescent",
    "BPDA",
    "BasicIterativeMethod",
    "CarliniWagnerL2",
    "CubeAttack",
    "DeepFool",
    "FastAdaptiveBoundary",
    "FastGradientMethod",
    "HopSkipJumpAttack",
    "LevelFlipAttack",
    "LocalSearchAttack",
    "MomentumIterativeMethod",
    "PointwiseAttack",
    "ProjectedGradientDescent",
    "SPSA",
    "SaliencyMapMethod",
    "SinglePixelAttack",
    "SquareAttack",
    "SubstituteTraining",
    "TransferAttack",
    "substitute_mlp",
    "train_substitute",
]
