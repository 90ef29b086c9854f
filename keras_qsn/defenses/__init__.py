"""Defences that QuSecNets compares itself with, for any Keras model."""

from keras_qsn.classifier.detector import Detector
from keras_qsn.defenses.answers.adaptive_misinformation import (
    AdaptiveMisinformation,
)
from keras_qsn.defenses.answers.defended import undefended
from keras_qsn.defenses.answers.defended import with_defended_answers
from keras_qsn.defenses.answers.noise import NoisyAnswers
from keras_qsn.defenses.answers.prediction_poisoning import MAD
from keras_qsn.defenses.answers.reverse_sigmoid import ReverseSigmoid
from keras_qsn.defenses.answers.rounding import RoundedAnswers
from keras_qsn.defenses.answers.top_classes import LabelsOnly
from keras_qsn.defenses.answers.top_classes import TopAnswers
from keras_qsn.defenses.ape_gan import APEGAN
from keras_qsn.defenses.bounded_relu import gaussian_augmentation
from keras_qsn.defenses.bounded_relu import with_bounded_relu
from keras_qsn.defenses.defense_gan import DefenseGANProjection
from keras_qsn.defenses.defensive_hashing import defensive_hashing
from keras_qsn.defenses.defensive_hashing import with_hashed_layers
from keras_qsn.defenses.dynamic_quantization import (
    DynamicQuantizationActivation,
)
from keras_qsn.defenses.feature_squeezing import FeatureSqueezingDetector
from keras_qsn.defenses.feature_squeezing import recommended_squeezers
from keras_qsn.defenses.feature_squeezing import squeezed
from keras_qsn.defenses.gan_networks import ape_gan_networks
from keras_qsn.defenses.gan_networks import defense_gan_networks
from keras_qsn.defenses.gradient_inhibition import InhibitedDense
from keras_qsn.defenses.gradient_inhibition import inhibit_gradients
from keras_qsn.defenses.hashing import HashedConv2D
from keras_qsn.defenses.hashing import HashedDense
from keras_qsn.defenses.largest_tau import largest_tau
from keras_qsn.defenses.model_detector import ModelDetector
from keras_qsn.defenses.non_local_means import NonLocalMeans
from keras_qsn.defenses.reconstruction import ReconstructionDetector
from keras_qsn.defenses.reconstruction import check_reconstruction
from keras_qsn.defenses.squeezers import BitDepthReduction
from keras_qsn.defenses.squeezers import MedianSmoothing
from keras_qsn.defenses.wasserstein_gan import WassersteinGAN

__all__ = [
    "APEGAN",
    "AdaptiveMisinformation",
    "BitDepthReduction",
    "DefenseGANProjection",
    "Detector",
    "DynamicQuantizationActivation",
    "FeatureSqueezingDetector",
    "HashedConv2D",
    "HashedDense",
    "InhibitedDense",
    "LabelsOnly",
    "MAD",
    "MedianSmoothing",
    "ModelDetector",
    "NoisyAnswers",
    "NonLocalMeans",
    "ReconstructionDetector",
    "ReverseSigmoid",
    "RoundedAnswers",
    "TopAnswers",
    "WassersteinGAN",
    "ape_gan_networks",
    "check_reconstruction",
    "defense_gan_networks",
    "defensive_hashing",
    "gaussian_augmentation",
    "inhibit_gradients",
    "largest_tau",
    "recommended_squeezers",
    "squeezed",
    "undefended",
    "with_bounded_relu",
    "with_defended_answers",
    "with_hashed_layers",
]
