"""The command line: `keras-qsn`, or `python -m keras_qsn`."""

from keras_qsn.cli.main import main

__all__ = ["main"]
