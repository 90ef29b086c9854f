"""Files written whole or not at all."""

import contextlib
import hashlib
import json
import os
import pathlib
import uuid

import numpy as np


def write_bytes(path, content):
    """Write a file atomically."""
    with _replacing(path) as part, open(part, "xb") as file:
        file.write(content)


def write_text(path, text):
    """Write a text file atomically."""
    # A path may hold bytes that are no UTF-8.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path, data):
    """Write data as indented JSON, atomically."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_figure(path, figure):
    """Write a matplotlib figure as PNG, atomically."""
    with _replacing(path) as part:
        figure.savefig(part, format="png", dpi=150)


def fingerprint(*arrays):
    """A short text that differs for other arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def parts_in(folder):
    """Files that a killed process had begun to write in a folder."""
    return folder.glob(".*.part")


@contextlib.contextmanager
def _replacing(path):
    """A new name beside `path`; what is written there takes its place.

    Every writer has a name of its own: two at work on one file do not meet.
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        part.unlink(missing_ok=True)
