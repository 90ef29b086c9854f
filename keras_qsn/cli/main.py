"""From the command line to a command, and what becomes of errors."""

import contextlib
import gc
import importlib
import os
import sys
import warnings

from rich.console import Console

import keras_qsn
from keras_qsn._core.backend import load_backend
from keras_qsn.cli.parser import parser
from keras_qsn.cli.status import BAD_INPUT
from keras_qsn.cli.status import INTERRUPTED
from keras_qsn.cli.status import NO_READER


class _Console(Console):
    """A console whose reader may go, as of `keras-qsn ... | head -1`."""

    def on_broken_pipe(self):
        # It ends in a status of rich's own, which here is another's.
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()
        raise SystemExit(NO_READER)


def main(arguments=None):
    """Run one command; returns the exit status."""
    options = parser().parse_args(arguments)
    console, errors = _Console(), _Console(stderr=True)

    def show(message, *where, **more):
        line = " ".join(f"keras-qsn: warning: {message}".split())
        errors.print(line, markup=False, soft_wrap=True)

    try:
        with warnings.catch_warnings():
            # Without the line of our source that Python would add.
            warnings.showwarning = show
            return _loaded(options).run(options, console)
    except KeyboardInterrupt:
        console.print(
            "Interrupted. What was finished is kept: the same command goes on "
            "from there."
        )
        return INTERRUPTED
    except (OSError, ValueError, ImportError) as error:
        # One line, whatever is quoted in it.
        line = " ".join(f"keras-qsn: {error}".split())
        errors.print(line, markup=False, soft_wrap=True)
        return BAD_INPUT


def _loaded(options):
    """The module of a command, with all that a saved model may need."""
    if options.verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")
    # TensorFlow has them on by itself on newer processors alone. On one with
    # AVX2 an evaluation takes three quarters of the time with them.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with _nothing_collected():
        load_backend()
        for name in keras_qsn.__all__:
            if name != "paper":
                importlib.import_module(f"keras_qsn.{name}")
        return importlib.import_module(f"keras_qsn.cli.{options.command}")


@contextlib.contextmanager
def _nothing_collected():
    """Modules loaded within it are not searched for garbage, then or later.

    That takes a fifth of the time of their import.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        # Another's process, who may have garbage already.
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
