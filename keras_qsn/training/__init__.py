"""Training: `QuSecNet.fit` is (adversarial, certified) training."""

from keras_qsn.training.objectives.adversarial import AdversarialTraining
from keras_qsn.training.objectives.base import Batch
from keras_qsn.training.objectives.base import Objective
from keras_qsn.training.objectives.consistency import ConsistencyTraining
from keras_qsn.training.objectives.distillation import DefensiveDistillation
from keras_qsn.training.objectives.divqat import DivQAT
from keras_qsn.training.objectives.intervals import IntervalTraining
from keras_qsn.training.objectives.mart import MART
from keras_qsn.training.objectives.thresholds import ThresholdTraining
from keras_qsn.training.objectives.trades import TRADES
from keras_qsn.training.qusecnet import QuSecNet

__all__ = [
    "AdversarialTraining",
    "Batch",
    "ConsistencyTraining",
    "DefensiveDistillation",
    "DivQAT",
    "IntervalTraining",
    "MART",
    "Objective",
    "QuSecNet",
    "TRADES",
    "ThresholdTraining",
]
