"""What each layer computes, bounded: one file for each kind of rule."""

from keras_qsn.certification.rules import convolutional
from keras_qsn.certification.rules import linear
from keras_qsn.certification.rules import pooling
from keras_qsn.certification.rules import scaling
from keras_qsn.certification.rules import smooth
from keras_qsn.certification.rules.activation import Activation
from keras_qsn.certification.rules.affine import Affine
from keras_qsn.certification.rules.base import Rule
from keras_qsn.certification.rules.enclosures import Bounds
from keras_qsn.certification.rules.piecewise import PiecewiseLinear
from keras_qsn.certification.rules.registry import register_rule

__all__ = [
    "Activation",
    "Affine",
    "Bounds",
    "PiecewiseLinear",
    "Rule",
    "register_rule",
]

# Those of Keras' layers, registered by being imported.
_MODULES = (convolutional, linear, pooling, scaling, smooth)
