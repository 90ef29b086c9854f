"""What several commands are given: a model and data."""

import pathlib
import typing

import keras
import numpy as np

from keras_qsn import datasets
from keras_qsn.cli.numbers import whole


class Images(typing.NamedTuple):
    """The test images a command works on.

    Attributes:
        x: Images.
        y: Their classes.
        rows: Where each stands in the data.
        words: What the data are, and how the images were chosen.
        train: Images and classes for training, or `None`.
    """

    x: np.ndarray
    y: np.ndarray
    rows: list
    words: str
    train: tuple | None


def add_inputs(command, images):
    """Add the options, `images` being the default number of test images."""
    command.add_argument("model", help="a saved Keras classifier, .keras")
    command.add_argument(
        "--data",
        required=True,
        help=f"{', '.join(datasets.NAMES)}, or an .npz file with x_test and "
        "y_test, and perhaps x_train and y_train",
    )
    command.add_argument(
        "--data-dir", help="folder with mnist.npz or cifar10.npz"
    )
    command.add_argument(
        "--images",
        type=whole(1),
        default=images,
        metavar="N",
        help="test images, drawn by --seed, the same share of each class"
        + ("" if images else " (default: all)"),
    )
    command.add_argument("--seed", type=whole(0), default=0)
    command.add_argument(
        "--batch-size",
        type=whole(1),
        default=128,
        metavar="N",
        help="images computed at once",
    )


def load_model(path):
    """The model in a file."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.")
    try:
        # In Keras' safe mode: a model file may not run code.
        return keras.models.load_model(path)
    except Exception as error:
        # A damaged file shows as anything.
        raise ValueError(
            f"The model {path} cannot be loaded: {error} Expected: a "
            "classifier kept by `model.save`, of layers of Keras and of this "
            "package."
        ) from error


def load_images(options):
    """The `Images` of the data that the options ask for.

    They come in the order they are drawn in, so that any number of first
    ones is a fair sample: the data may be sorted by class.
    """
    data = datasets.load(options.data, options.data_dir)
    total = len(data.y_test)
    rows, y = datasets.stratified_subset(
        np.arange(total), data.y_test, options.images, options.seed
    )
    chosen = f"all {total:,} test images"
    if len(rows) < total:
        chosen = (
            f"{len(rows):,} of {total:,} test images, drawn by seed "
            f"{options.seed}, the same share of each class"
        )
    train = (data.x_train, data.y_train) if len(data.y_train) else None
    words = f"{data.description}: {chosen}"
    return Images(data.x_test[rows], y, rows.tolist(), words, train)
