"""What a defence is worth: attacks, checks and the worst case per image."""

from keras_qsn._core.shares import wilson_interval
from keras_qsn.evaluation.answers import Answers
from keras_qsn.evaluation.result import Check
from keras_qsn.evaluation.result import Evaluation
from keras_qsn.evaluation.result import Outcome
from keras_qsn.evaluation.result import Step
from keras_qsn.evaluation.result import UntrustedEvaluation
from keras_qsn.evaluation.robustness import evaluate_robustness

__all__ = [
    "Answers",
    "Check",
    "Evaluation",
    "Outcome",
    "Step",
    "UntrustedEvaluation",
    "evaluate_robustness",
    "wilson_interval",
]
