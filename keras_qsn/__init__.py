"""Trainable input quantization for Keras, and what it is worth.

Importing the package registers its layers with Keras, so that saved models
load without `custom_objects`. `paper` loads when it is used.
"""

import importlib
import pathlib
import sys

from keras_qsn._core.backend import load_backend
from keras_qsn.version import __version__ as __version__

__all__ = [
    "attacks",
    "callbacks",
    "certification",
    "constraints",
    "datasets",
    "defenses",
    "deployment",
    "evaluation",
    "extraction",
    "initializers",
    "layers",
    "losses",
    "models",
    "optimizers",
    "paper",
    "quantization",
    "training",
]


def _by_command_line():
    """Whether this is imported to run a command, by script or by `-m`.

    The processes that a command starts have its `sys.argv`, and are none.
    """
    script = pathlib.Path(*sys.argv[:1])
    if script.name in ("keras-qsn", "keras-qsn.exe"):
        return str(script) in sys.orig_argv
    return sys.orig_argv[1:3] == ["-m", "keras_qsn"]


# A command loads what it needs once it runs: `--help` need not wait.
if not _by_command_line():
    load_backend()
    from keras_qsn import attacks
    from keras_qsn import callbacks
    from keras_qsn import certification
    from keras_qsn import constraints
    from keras_qsn import datasets
    from keras_qsn import defenses
    from keras_qsn import deployment
    from keras_qsn import evaluation
    from keras_qsn import extraction
    from keras_qsn import initializers
    from keras_qsn import layers
    from keras_qsn import losses
    from keras_qsn import models
    from keras_qsn import optimizers
    from keras_qsn import quantization
    from keras_qsn import training


def __getattr__(name):
    # `paper` draws, and matplotlib takes as long to load as the rest.
    if name in __all__:
        return importlib.import_module(f"keras_qsn.{name}")
    raise AttributeError(f"module 'keras_qsn' has no attribute {name!r}")
