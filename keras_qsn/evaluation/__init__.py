"""What a defence is worth: attacks, checks and the worst case per image."""

from keras_qsn._core.shares import wilson_interval
from keras_qsn.evaluation.answers import Answers
from keras_qsn.evaluation.comparison import Comparison
from keras_qsn.evaluation.comparison import compare
from keras_qsn.evaluation.detection import Detection
from keras_qsn.evaluation.distances import Found
from keras_qsn.evaluation.distances import MinimalDistances
from keras_qsn.evaluation.minimal import minimal_distances
from keras_qsn.evaluation.outcomes import Check
from keras_qsn.evaluation.outcomes import Outcome
from keras_qsn.evaluation.outcomes import Step
from keras_qsn.evaluation.result import Evaluation
from keras_qsn.evaluation.result import UntrustedEvaluation
from keras_qsn.evaluation.robustness import evaluate_robustness
from keras_qsn.evaluation.transfer import transfer_matrix
from keras_qsn.evaluation.transferability import TransferMatrix

__all__ = [
    "Answers",
    "Check",
    "Comparison",
    "Detection",
    "Evaluation",
    "Found",
    "MinimalDistances",
    "Outcome",
    "Step",
    "TransferMatrix",
    "UntrustedEvaluation",
    "compare",
    "evaluate_robustness",
    "minimal_distances",
    "transfer_matrix",
    "wilson_interval",
]
