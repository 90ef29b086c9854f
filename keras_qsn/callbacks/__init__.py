"""Callbacks of `fit`: accuracy under attack, its radius, exact backups."""

from keras_qsn.callbacks.attack_accuracy import AttackAccuracy
from keras_qsn.callbacks.eps_scheduler import EpsScheduler
from keras_qsn.callbacks.exact_backup import ExactBackup

__all__ = ["AttackAccuracy", "EpsScheduler", "ExactBackup"]
