"""What a defence is worth: attacks, checks and the worst case per image."""

from keras_qsn.evaluation.outcome import Check
from keras_qsn.evaluation.outcome import Evaluation
from keras_qsn.evaluation.outcome import Outcome
from keras_qsn.evaluation.outcome import Step
from keras_qsn.evaluation.outcome import UntrustedEvaluation
from keras_qsn.evaluation.outcome import interval
from keras_qsn.evaluation.robustness import evaluate_robustness

__all__ = [
    "Check",
    "Evaluation",
    "Outcome",
    "Step",
    "UntrustedEvaluation",
    "evaluate_robustness",
    "interval",
]
