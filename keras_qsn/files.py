"""Files written whole or not at all, and folders that keep finished work."""

import contextlib
import hashlib
import io
import json
import os
import pathlib

import filelock
import numpy as np


def write_bytes(path, content):
    """Write a file atomically."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def write_text(path, text):
    """Write a text file atomically."""
    # A path may hold bytes that are no UTF-8.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path, data):
    """Write data as indented JSON, atomically."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_figure(path, figure):
    """Write a matplotlib figure as PNG, atomically."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png", dpi=150, bbox_inches="tight")
    os.replace(part, path)


def claim(folder, settings):
    """A folder for work with these settings, new or of an earlier run.

    Args:
        folder: Where; created if need be.
        settings: What decides the results, plain values.

    Returns:
        Its path.

    Raises:
        ValueError: If the folder holds something else.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    if path.exists():
        _compare(path, settings)
    elif any(folder.iterdir()):
        raise ValueError(
            "`folder` must be new, empty or that of the same work. "
            f"Received: {folder}, which holds other files."
        )
    else:
        write_json(path, settings)
    return folder


@contextlib.contextmanager
def alone(folder):
    """While no other process works in the folder; ends with the process.

    Raises:
        ValueError: If one does.
    """
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise ValueError(
            f"Another run is at work in {folder}: both would do the same. "
            "Wait for it, stop it, or name another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def write_arrays(path, **arrays):
    """Write NumPy arrays as one compressed file, atomically."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_bytes(path, file.getvalue())


def fingerprint(*arrays):
    """A short text that differs for other arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _compare(path, settings):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}). Name another folder."
        ) from error
    wanted = json.loads(json.dumps(settings))
    if found != wanted:
        different = sorted(
            key
            for key in {*found, *wanted}
            if found.get(key) != wanted.get(key)
        )
        raise ValueError(
            f"`folder` {path.parent} holds other work: it differs in "
            f"{', '.join(different)}. Name another folder, or delete that one."
        )
