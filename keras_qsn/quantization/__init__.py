"""The maths of input quantization, as pure functions."""

from keras_qsn.quantization.staircase import equally_spaced_thresholds
from keras_qsn.quantization.staircase import in_pixels
from keras_qsn.quantization.staircase import make_staircase
from keras_qsn.quantization.staircase import reached

__all__ = [
    "equally_spaced_thresholds",
    "in_pixels",
    "make_staircase",
    "reached",
]
