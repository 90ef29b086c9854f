"""Defences that QuSecNets compares itself with, for any Keras model."""

from keras_qsn.classifier.detector import Detector
from keras_qsn.defenses.bounded_relu import gaussian_augmentation
from keras_qsn.defenses.bounded_relu import with_bounded_relu
from keras_qsn.defenses.feature_squeezing import FeatureSqueezingDetector
from keras_qsn.defenses.feature_squeezing import recommended_squeezers
from keras_qsn.defenses.feature_squeezing import squeezed
from keras_qsn.defenses.model_detector import ModelDetector
from keras_qsn.defenses.non_local_means import NonLocalMeans
from keras_qsn.defenses.squeezers import BitDepthReduction
from keras_qsn.defenses.squeezers import MedianSmoothing

__all__ = [
    "BitDepthReduction",
    "Detector",
    "FeatureSqueezingDetector",
    "MedianSmoothing",
    "ModelDetector",
    "NonLocalMeans",
    "gaussian_augmentation",
    "recommended_squeezers",
    "squeezed",
    "with_bounded_relu",
]
