"""Certificates: proofs that no image of a ball changes the class."""

from keras_qsn.certification.certificate import Certificate
from keras_qsn.certification.certificate import CertificationInterrupted
from keras_qsn.certification.certifying import certify
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
    "Certificate",
    "CertificationInterrupted",
    "PiecewiseLinear",
    "Rule",
    "certify",
    "register_rule",
]
