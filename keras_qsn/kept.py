"""Folders that keep what is finished, so that killed work can go on."""

import hashlib
import io
import json
import pathlib

import numpy as np

from keras_qsn.report.files import write_bytes
from keras_qsn.report.files import write_json


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
