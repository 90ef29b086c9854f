"""Attacks on Keras classifiers, in the words of Cleverhans."""

from keras_qsn.attacks.adaptive.bpda import BPDA
from keras_qsn.attacks.adaptive.bpda import AnnealedBPDA
from keras_qsn.attacks.adaptive.cube import CubeAttack
from keras_qsn.attacks.adaptive.eot import EOT
from keras_qsn.attacks.adaptive.evasion import DetectorEvasion
from keras_qsn.attacks.adaptive.level_flips import LevelFlipAttack
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.decisions.hop_skip_jump import HopSkipJumpAttack
from keras_qsn.attacks.decisions.pointwise import AdditiveGaussianNoiseAttack
from keras_qsn.attacks.decisions.pointwise import PointwiseAttack
from keras_qsn.attacks.result import AttackInterrupted
from keras_qsn.attacks.result import AttackResult
from keras_qsn.attacks.result import BlindAttackWarning
from keras_qsn.attacks.scores.local_search import LocalSearchAttack
from keras_qsn.attacks.scores.single_pixel import SinglePixelAttack
from keras_qsn.attacks.scores.sparse_random_search import SparseRandomSearch
from keras_qsn.attacks.scores.spsa import SPSA
from keras_qsn.attacks.scores.square import SquareAttack
from keras_qsn.attacks.transfer.substitute import SubstituteTraining
from keras_qsn.attacks.transfer.substitute import substitute_mlp
from keras_qsn.attacks.transfer.substitute import train_substitute
from keras_qsn.attacks.transfer.transfer import TransferAttack
from keras_qsn.attacks.viewed import ViewedAttack
from keras_qsn.attacks.views.base import View
from keras_qsn.attacks.views.full_precision import FullPrecision
from keras_qsn.attacks.views.input_diversity import InputDiversity
from keras_qsn.attacks.views.layer_surrogates import LayerSurrogates
from keras_qsn.attacks.views.low_precision import LowPrecision
from keras_qsn.attacks.views.scales import ScaleInvariance
from keras_qsn.attacks.views.translation import TranslationInvariance
from keras_qsn.attacks.white_box.auto_attack import AutoAttack
from keras_qsn.attacks.white_box.auto_pgd import AutoProjectedGradientDescent
from keras_qsn.attacks.white_box.carlini_wagner import CarliniWagnerL2
from keras_qsn.attacks.white_box.decoupled import DecoupledDirectionNorm
from keras_qsn.attacks.white_box.deepfool import DeepFool
from keras_qsn.attacks.white_box.fab import FastAdaptiveBoundary
from keras_qsn.attacks.white_box.fast_minimum_norm import FastMinimumNorm
from keras_qsn.attacks.white_box.gradient import BasicIterativeMethod
from keras_qsn.attacks.white_box.gradient import FastGradientMethod
from keras_qsn.attacks.white_box.gradient import ProjectedGradientDescent
from keras_qsn.attacks.white_box.momentum import MomentumIterativeMethod
from keras_qsn.attacks.white_box.saliency_map import SaliencyMapMethod
from keras_qsn.attacks.white_box.sigma_zero import SigmaZero

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
    "BlindAttackWarning",
    "CarliniWagnerL2",
    "CubeAttack",
    "DecoupledDirectionNorm",
    "DeepFool",
    "DetectorEvasion",
    "EOT",
    "FastAdaptiveBoundary",
    "FastGradientMethod",
    "FastMinimumNorm",
    "FullPrecision",
    "HopSkipJumpAttack",
    "InputDiversity",
    "LayerSurrogates",
    "LevelFlipAttack",
    "LocalSearchAttack",
    "LowPrecision",
    "MomentumIterativeMethod",
    "PointwiseAttack",
    "ProjectedGradientDescent",
    "SPSA",
    "SaliencyMapMethod",
    "ScaleInvariance",
    "SigmaZero",
    "SinglePixelAttack",
    "SparseRandomSearch",
    "SquareAttack",
    "SubstituteTraining",
    "TransferAttack",
    "TranslationInvariance",
    "View",
    "ViewedAttack",
    "substitute_mlp",
    "train_substitute",
]
