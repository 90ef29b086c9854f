"""Certificates: proofs that no image of a ball changes the class."""

from keras_qsn.certification.certificate import Certificate
from keras_qsn.certification.certificate import CertificationInterrupted
from keras_qsn.certification.certifying import certify

__all__ = ["Certificate", "CertificationInterrupted", "certify"]
