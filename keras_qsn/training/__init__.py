"""Training: `QuSecNet.fit` is (adversarial, certified) training."""

from keras_qsn.training.qusecnet import QuSecNet
from keras_qsn.training.schedules import EpsScheduler

__all__ = ["EpsScheduler", "QuSecNet"]
