"""What several commands are given: a model and data."""

import pathlib
import typing

import keras
import numpy as np

from keras_qsn import datasets
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.cli.parser import EPS


class Images(typing.NamedTuple):
    """The test images a command works on.

    Attributes:
        x: Images.
        y: Their classes.
        rows: Where each stands in the data.
        words: What the data are, and how the images were chosen.
        train: Images and classes for training, or `None`.
        class_names: A name for each class, or `None`.
        value_range: The smallest and the largest pixel value.
        eps: The radius, in units of the pixels.
    """

    x: np.ndarray
    y: np.ndarray
    rows: list
    words: str
    train: tuple | None
    class_names: list | None
    value_range: tuple
    eps: float


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
    names = None
    if options.class_names:
        names = _class_names(pathlib.Path(options.class_names), wrapper)
    shape = wrapper.input_shape
    data = datasets.load(
        options.data,
        options.data_dir,
        (low, high),
        image_shape=shape if len(shape) == 3 and None not in shape else None,
    )
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
        class_names=names or data.class_names,
        value_range=(low, high),
        eps=options.eps or EPS * (high - low),
    )


def _fitting(x, wrapper):
    """Sequences as the model takes them: `load` saw images of one colour."""
    if x.ndim == len(wrapper.input_shape) + 2:
        return x[..., 0]
    return x


def _class_names(path, wrapper):
    try:
        names = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text file in UTF-8.") from error
    names = [name.strip() for name in names if name.strip()]
    if len(names) != wrapper.num_classes:
        raise ValueError(
            f"{path} must name each of the model's {wrapper.num_classes} "
            f"classes, one a line. Received: {len(names)} names."
        )
    return names
