"""Data files: NumPy archives of images and labels."""

import numpy as np

KEYS = ("x_train", "y_train", "x_test", "y_test")


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
    if y.dtype.kind not in "biuf":
        raise ValueError(
            f"{what} must hold class numbers. Received: dtype {y.dtype}. "
            "Number the names: `names, y = np.unique(y, return_inverse=True)`, "
            "in the order of the model's outputs."
        )
    if y.ndim == 2 and y.shape[1] > 1:
        if not (np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all()):
            raise ValueError(
                f"{what} must hold one class for each image, as a number or "
                f"a one-hot row. Received: rows of shape {y.shape[1:]} that "
                "are not one-hot. Several classes for an image (multi-label) "
                "are not supported."
            )
        return y.argmax(1)
    flat = y.reshape(-1)
    if (
        len(flat) != len(y)
        or not ((flat >= 0) & (flat < 2**31)).all()
        or (flat % 1).any()
    ):
        raise ValueError(
            f"{what} must hold one whole number from 0 on for each image, or "
            f"one-hot rows. Received: shape {y.shape}, values such as "
            f"{np.unique(flat)[:3].tolist()}."
        )
    return flat
