"""TensorFlow under Keras: imported without its log, or refused."""

import contextlib
import os
import re
import sys
import tempfile

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# A line of TensorFlow's native log, and what it says before the first.
_LOGGED = re.compile(rb"[IWEF]\d{4} |WARNING: All log messages before absl::")


def load_backend():
    """Import Keras, and refuse one that does not run on TensorFlow.

    TensorFlow's native log says what devices a machine has not. It is kept
    quiet from its import on, unless the user has set `TF_CPP_MIN_LOG_LEVEL`,
    or has imported TensorFlow before.
    """
    try:
        with _native_log_silenced():
            import keras
            import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "keras_qsn needs Keras on TensorFlow, which cannot be imported: "
            f"{error}. Install both, and set KERAS_BACKEND=tensorflow."
        ) from error
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "keras_qsn needs Keras on TensorFlow. Received: the Keras backend "
            f"'{keras.backend.backend()}'. Set KERAS_BACKEND=tensorflow."
        )


@contextlib.contextmanager
def _native_log_silenced():
    if _LEVEL in os.environ or "tensorflow" in sys.modules:
        yield
        return
    with contextlib.ExitStack() as stack:
        # Read once, at the import.
        os.environ[_LEVEL] = "3"
        stack.callback(os.environ.pop, _LEVEL)
        # A few lines are written before it is read.
        try:
            stderr = os.dup(2)
        except OSError:
            # A program without one.
            yield
            return
        written = stack.enter_context(tempfile.TemporaryFile())
        stack.callback(os.close, stderr)
        stack.callback(_pass_on, written, stderr)
        stack.callback(os.dup2, stderr, 2)
        os.dup2(written.fileno(), 2)
        yield


def _pass_on(written, descriptor):
    """What was not TensorFlow's to say, said after all."""
    written.seek(0)
    for line in written:
        if not _LOGGED.match(line):
            os.write(descriptor, line)
