"""Attacks that copy a model by asking it, and how good the copy is."""

from keras_qsn.extraction.base import ExtractionAttack
from keras_qsn.extraction.dfme import DFME
from keras_qsn.extraction.knockoff import KnockoffNets
from keras_qsn.extraction.maze import MAZE
from keras_qsn.extraction.result import ExtractionResult

__all__ = [
    "DFME",
    "MAZE",
    "ExtractionAttack",
    "ExtractionResult",
    "KnockoffNets",
]
