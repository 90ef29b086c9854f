"""Certificates: proofs that no image of a ball changes the class."""

from keras_qsn.certification.certificate import Certificate
from keras_qsn.certification.certificate import CertificationInterrupted
from keras_qsn.certification.certifying import certify
from keras_qsn.certification.rules import Activation
from keras_qsn.certification.rules import Affine
from keras_qsn.certification.rules import Bounds
from keras_qsn.certification.rules import PiecewiseLinear
from keras_qsn.certification.rules import Rule
from keras_qsn.certification.rules import register_rule

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
