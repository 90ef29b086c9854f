"""Attacks that copy a model by asking it, and how good the copy is."""

from keras_qsn.extraction.active_thief import ActiveThief
from keras_qsn.extraction.base import ExtractionAttack
from keras_qsn.extraction.comparison import ExtractionComparison
from keras_qsn.extraction.comparison import compare_extractions
from keras_qsn.extraction.copycat import CopyCat
from keras_qsn.extraction.dfme import DFME
from keras_qsn.extraction.jacobian import JacobianAugmentation
from keras_qsn.extraction.knockoff import KnockoffNets
from keras_qsn.extraction.maze import MAZE
from keras_qsn.extraction.result import ExtractionResult

__all__ = [
    "ActiveThief",
    "CopyCat",
    "DFME",
    "ExtractionAttack",
    "ExtractionComparison",
    "ExtractionResult",
    "JacobianAugmentation",
    "KnockoffNets",
    "MAZE",
    "compare_extractions",
]
