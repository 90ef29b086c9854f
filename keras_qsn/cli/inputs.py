"""What several commands are given: a model and data."""

import argparse
import pathlib
import typing

import keras
import numpy as np

from keras_qsn import datasets
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.cli.numbers import above_zero
from keras_qsn.cli.numbers import finite
from keras_qsn.cli.numbers import share
from keras_qsn.cli.numbers import whole

# Radius where none is given, as a share of the range of pixels.
_EPS = 0.3


class Images(typing.NamedTuple):
    """The test images a command works on.

    Attributes:
        x: Images.
        y: Their classes.
        rows: Where each stands in the data.
        words: What the data are, and how the images were chosen.
        train: Images and classes for training, or `None`.
        value_range: The smallest and the largest pixel value.
        eps: The radius, in units of the pixels.
    """

    x: np.ndarray
    y: np.ndarray
    rows: list
    words: str
    train: tuple | None
    value_range: tuple
    eps: float


def add_command(commands, name, help, status, images):
    """A command for a model and data, and its options.

    Args:
        commands: The parser's subparsers.
        name: Of the command.
        help: What it does.
        status: What its exit status says, beside 0.
        images: Default number of test images; `None` is all.

    Returns:
        The parser of the command.
    """
    command = commands.add_parser(
        name,
        help=help,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog=f"Exit status: 0; {status}; 130 interrupted. The same command "
        "goes on where it was.",
    )
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
        "--value-range",
        type=finite,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="pixels the model takes; images of bytes are scaled to it, others "
        "left alone (default: what a quantizer or a Rescaling in it says, "
        "else 0 to 1)",
    )
    command.add_argument(
        "--eps",
        type=above_zero,
        help=f"radius, in units of the pixels (default: {_EPS} of their range)",
    )
    command.add_argument(
        "--batch-size",
        type=whole(1),
        default=128,
        metavar="N",
        help="images computed at once",
    )
    command.add_argument(
        "--out", help=f"results folder (default: results/{name}-MODEL)"
    )
    command.add_argument(
        "--at-least",
        type=share,
        metavar="SHARE",
        help="accuracy left, from 0 to 1, below which to exit with 1",
    )
    return command


def out_of(options, name):
    """The results folder."""
    model = pathlib.Path(options.model).stem
    return pathlib.Path(options.out or f"results/{name}-{model}")


def load_model(path):
    """The model in a file, in its `KerasModelWrapper`."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.")
    try:
        # In Keras' safe mode: a model file may not run code.
        model = keras.models.load_model(path)
    except Exception as error:
        # A damaged file shows as anything.
        raise ValueError(
            f"The model {path} cannot be loaded: {error} Expected: a "
            "classifier kept by `model.save`, of layers of Keras and of this "
            "package."
        ) from error
    return KerasModelWrapper.of(model)


def load_images(options, wrapper):
    """The `Images` that the options ask for, in the units of the model.

    They come in the order they are drawn in, so that any number of first
    ones is a fair sample: the data may be sorted by class.
    """
    low, high = options.value_range or wrapper.value_range or (0.0, 1.0)
    data = datasets.load(options.data, options.data_dir, (low, high))
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
    train = None
    if len(data.y_train):
        train = (_fitting(data.x_train, wrapper), data.y_train)
    return Images(
        x=_fitting(data.x_test[rows], wrapper),
        y=y,
        rows=rows.tolist(),
        words=f"{data.description}: {chosen}",
        train=train,
        value_range=(low, high),
        eps=options.eps or _EPS * (high - low),
    )


def _fitting(x, wrapper):
    """Sequences as the model takes them: `load` saw images of one colour."""
    if x.ndim == len(wrapper.input_shape) + 2:
        return x[..., 0]
    return x
