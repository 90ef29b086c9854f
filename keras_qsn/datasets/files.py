"""Data files: NumPy archives of images and labels."""

import os
import pathlib

import numpy as np

from keras_qsn.classifier.inputs import check_labels

KEYS = ("x_train", "y_train", "x_test", "y_test")


def data_folder(data_dir=None):
    """The user's folder of data files: the one named, that of
    `KERAS_QSN_DATA`, or `None`."""
    folder = data_dir or os.environ.get("KERAS_QSN_DATA")
    return pathlib.Path(folder) if folder else None


def read(path, needed):
    """The arrays of a data file; those alone that are there and asked for."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path.name} in the data folder. Expected: {path}, "
            f"a NumPy file with the arrays {', '.join(needed)}."
        )
    try:
        # Opened here: NumPy would leave a damaged file open.
        with open(path, "rb") as file, np.load(file) as stored:
            arrays = {key: stored[key] for key in {*needed, *stored} & {*KEYS}}
    except Exception as error:
        # Damage shows as anything: zlib.error, TokenError, struct.error, ...
        raise ValueError(
            f"{path} is damaged or not a data file: {error}. Expected: a "
            f"NumPy .npz file with the arrays {', '.join(needed)}, of numbers. "
            "Fetch it again, or save it anew with `np.savez`."
        ) from error
    for x, y in (KEYS[:2], KEYS[2:]):
        if (x in arrays) != (y in arrays):
            raise ValueError(
                f"{path} must hold images and labels together. "
                f"Received: {', '.join(sorted(arrays))}"
            )
        if x in arrays and not (
            arrays[x].shape[:1] == arrays[y].shape[:1] != ()
        ):
            raise ValueError(
                f"{path} must hold one label for each image. Received: "
                f"shape {arrays[x].shape} in {x}, {arrays[y].shape} in {y}."
            )
    return arrays


def classes(y, what):
    """Class numbers out of labels; refuses what is no single class."""
    one_hot = y.ndim == 2 and y.shape[1] > 1
    num_classes = y.shape[1] if one_hot else np.iinfo("int32").max
    with np.errstate(invalid="ignore"):
        return check_labels(y, len(y), num_classes, what)
