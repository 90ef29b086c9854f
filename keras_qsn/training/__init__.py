"""Training: `QuSecNet.fit` is (adversarial, certified) training."""

from keras_qsn.training.intervals import IntervalTraining
from keras_qsn.training.intervals import initialize_for_intervals
from keras_qsn.training.muon import Muon
from keras_qsn.training.qusecnet import QuSecNet
from keras_qsn.training.schedules import EpsScheduler

__all__ = [
    "EpsScheduler",
    "IntervalTraining",
    "Muon",
    "QuSecNet",
    "initialize_for_intervals",
]
