"""Folders that keep finished work, so that a killed run can go on.

A folder belongs to one piece of work, told by its settings, and to one process
at a time. Every file in it ends in, or holds, a checksum of its content: a
damaged one is refused, never read as something else.
"""

import contextlib
import hashlib
import io
import json
import pathlib
import platform

import filelock
import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.files import parts_in
from keras_qsn._core.files import write_bytes
from keras_qsn._core.files import write_json
from keras_qsn.version import __version__

_LOCK = ".lock"


def versions():
    """What results depend on beside their settings, as plain values."""
    return {
        "keras_qsn": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


@contextlib.contextmanager
def work_folder(folder, settings):
    """A folder for work with these settings, new or of an earlier run.

    It is this process's alone until the context ends, or the process.

    Args:
        folder: Where; created if need be. `None` keeps nothing.
        settings: What decides the results, plain values.

    Yields:
        Its path, or `None`.

    Raises:
        ValueError: If the folder holds something else, or another process
            works in it.
    """
    if folder is None:
        yield None
        return
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Before the lock, which would leave a file among someone else's.
    _refuse_others(folder)
    path = folder / "settings.json"
    with locked(folder):
        if path.exists():
            _compare(path, settings)
        else:
            keep_json(path, settings)
        yield folder


@contextlib.contextmanager
def locked(folder):
    """A folder no other process works in meanwhile; ends with the process.

    What a killed one had begun to write is removed. Another process at work
    is a `ValueError`.
    """
    lock = filelock.FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise ValueError(
            f"Another run is at work in {folder}: both would do the same. "
            "Wait for it, stop it, or name another folder."
        ) from error
    try:
        for part in parts_in(folder):
            part.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


class Folder:
    """Finished parts of a piece of work, each in a file that its name tells.

    `.json` holds plain values, `.npz` a dictionary of arrays, and any other
    file bytes.

    Args:
        path: The folder; `None` keeps nothing.
    """

    def __init__(self, path):
        self.path = path

    def get(self, name):
        """What is kept under a name, or `None` if nothing is."""
        if self.path is None or not (self.path / name).exists():
            return None
        read = {".json": kept_json, ".npz": kept_arrays}
        path = self.path / name
        return read.get(path.suffix, kept_bytes)(path)

    def put(self, name, value):
        """Keep a value under a name, whole or not at all."""
        if self.path is None:
            return
        path = self.path / name
        if path.suffix == ".json":
            keep_json(path, value)
        elif path.suffix == ".npz":
            keep_arrays(path, **value)
        else:
            keep_bytes(path, value)

    def drop(self, pattern):
        """Delete what is kept under names of a pattern, such as `part-*`."""
        if self.path is not None:
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)


def keep_bytes(path, content):
    """Write a file that ends in its checksum, atomically."""
    write_bytes(path, content + _seal(content))


def kept_bytes(path):
    """What `keep_bytes` wrote; a damaged file is refused."""
    whole = path.read_bytes()
    length = len(_seal(b""))
    content, seal = whole[:-length], whole[-length:]
    if seal != _seal(content):
        raise _damaged(path)
    return content


def keep_arrays(path, **arrays):
    """Write NumPy arrays as one compressed file with its checksum."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    keep_bytes(path, file.getvalue())


def kept_arrays(path):
    """What `keep_arrays` wrote, as a dictionary."""
    with np.load(io.BytesIO(kept_bytes(path)), allow_pickle=False) as file:
        return dict(file)


def keep_json(path, data):
    """Write plain values as JSON with their checksum."""
    write_json(path, {"sha256": _digest_of(data), "data": data})


def kept_json(path):
    """What `keep_json` wrote; a damaged file is refused."""
    try:
        kept = json.loads(path.read_bytes())
        sealed = kept["sha256"] == _digest_of(kept["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if not sealed:
        raise _damaged(path)
    return kept["data"]


def _seal(content):
    return f"\nsha256 {hashlib.sha256(content).hexdigest()}\n".encode()


def _digest_of(data):
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def _damaged(path):
    return ValueError(
        f"{path} is damaged, or was kept by an earlier version of this "
        "library: it does not match its checksum. Delete it: it is made again."
    )


def _refuse_others(folder):
    """Refuse a folder with files in it, none of which says whose they are."""
    names = {path.name for path in folder.iterdir()}
    own = {_LOCK, *(path.name for path in parts_in(folder))}
    if "settings.json" not in names and names - own:
        raise ValueError(
            "`folder` must be new, empty or that of the same work. "
            f"Received: {folder}, which holds other files, or work of an "
            "earlier version of this library. Name another folder."
        )


def _compare(path, settings):
    try:
        kept = kept_json(path)
    except ValueError as error:
        raise ValueError(
            f"{path} was kept by an earlier version of this library, or is "
            f"damaged. Name another folder, or delete {path.parent}."
        ) from error
    kept, wanted = map(_flat, (kept, json.loads(json.dumps(settings))))
    if kept != wanted:
        different = sorted(
            key for key in {*kept, *wanted} if kept.get(key) != wanted.get(key)
        )
        of_model = "fingerprint" in different
        raise ValueError(
            f"`folder` {path.parent} holds other work: it differs in "
            f"{', '.join(different)}"
            + (
                " (a fingerprint tells the model by what it computes)"
                * of_model
            )
            + ". Name another folder, or delete that one."
        )


def _flat(settings):
    """With `versions.keras` for `{"versions": {"keras": ...}}`."""
    flat = {}
    for key, value in settings.items():
        inner = value if isinstance(value, dict) else {}
        flat |= {f"{key}.{name}": v for name, v in inner.items()}
        if not inner:
            flat[key] = value
    return flat
