"""TensorFlow under Keras: imported without its log, or refused."""

import contextlib
import os
import re
import sys
import tempfile

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# Lines of TensorFlow's native log: by their first letter, from what a level of
# 1 leaves out on; and what it says before the first.
_KINDS = "IWEF"
_LOGGED = rb"[%b]\d{4} |WARNING: All log messages before absl::"


def load_backend():
    """Import Keras, and refuse one that does not run on TensorFlow.

    TensorFlow's native log says what devices a machine has not. It is kept
    quiet from its import on, as `TF_CPP_MIN_LOG_LEVEL=3` would if it were
    read before the first line; a level that the user has set is obeyed.
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
    level = os.environ.get(_LEVEL, "3")
    if level not in ("1", "2", "3") or "tensorflow" in sys.modules:
        yield
        return
    with contextlib.ExitStack() as stack:
        if _LEVEL not in os.environ:
            # Read once, at the import.
            os.environ[_LEVEL] = level
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
        stack.callback(_pass_on, written, stderr, _KINDS[: int(level)])
        stack.callback(os.dup2, stderr, 2)
        os.dup2(written.fileno(), 2)
        yield


def _pass_on(written, descriptor, kinds):
    """What is none of these kinds of TensorFlow's log, said after all."""
    logged = re.compile(_LOGGED % kinds.encode())
    written.seek(0)
    for line in written:
        if not logged.match(line):
            os.write(descriptor, line)
