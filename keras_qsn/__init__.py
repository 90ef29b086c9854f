"""Trainable input quantization for Keras, and what it is worth.

Importing the package registers its layers with Keras, so that saved models
load without `custom_objects`. `paper` loads when it is used.
"""

import importlib

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_qsn needs Keras on TensorFlow. Received: the Keras backend "
        f"'{keras.backend.backend()}'. Set KERAS_BACKEND=tensorflow."
    )

from keras_qsn import attacks
from keras_qsn import callbacks
from keras_qsn import certification
from keras_qsn import constraints
from keras_qsn import datasets
from keras_qsn import defenses
from keras_qsn import evaluation
from keras_qsn import initializers
from keras_qsn import layers
from keras_qsn import losses
from keras_qsn import models
from keras_qsn import optimizers
from keras_qsn import quantization
from keras_qsn import training
from keras_qsn.version import __version__ as __version__

__all__ = [
    "attacks",
    "callbacks",
    "certification",
    "constraints",
    "datasets",
    "defenses",
    "evaluation",
    "initializers",
    "layers",
    "losses",
    "models",
    "optimizers",
    "paper",
    "quantization",
    "training",
]


def __getattr__(name):
    # It draws, and matplotlib takes as long to load as the rest.
    if name == "paper":
        return importlib.import_module("keras_qsn.paper")
    raise AttributeError(f"module 'keras_qsn' has no attribute {name!r}")
