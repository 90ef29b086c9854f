"""What several commands are given: a model and data."""

import os
import pathlib
import re
import textwrap
import typing

import keras
import numpy as np

from keras_qsn import datasets
from keras_qsn.classifier.memory import MOST
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.cli.arguments import EPS
from keras_qsn.cli.arguments import LITERT
from keras_qsn.deployment import load_litert
from keras_qsn.models import QueryModel

_WANTED = {
    "model": "classifier",
    "copy": "classifier",
    "detector": "Keras model",
}
# Images that tell probabilities from other scores, and how near to 1 they sum.
_PROBES, _ABOUT = 8, 0.05
# Of what Keras says of a file it cannot load.
_LONGEST = 400


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


def out_of(options, default):
    """The results folder, refused before any work where none can be."""
    path = pathlib.Path(options.out or default)
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        why = "may not be written to" if there.is_dir() else "is a file"
        raise ValueError(
            f"No results can be kept in {path}: {there} {why}. Name another "
            "folder: --out"
        )
    return path


def out_of_model(options):
    """The results folder of a command for a model."""
    stem = pathlib.Path(options.model).stem
    return out_of(options, f"results/{options.command}-{stem}")


def load_model(options):
    """The model in a file, in its `KerasModelWrapper`."""
    path = pathlib.Path(options.model)
    if path.suffix == ".tflite" and options.command in LITERT:
        return KerasModelWrapper.of(
            _deployed(path, vars(options).get("batch_size"))
        )
    return KerasModelWrapper.of(load_file(path, "model"))


def _deployed(path, batch_size):
    """The network in a LiteRT file, by its answers: what they are shows."""
    at_once = batch_size if isinstance(batch_size, int) else MOST
    network = load_litert(path, at_once)
    if len(network.output_shape) != 1 or network.output_shape[0] < 2:
        raise ValueError(
            "A LiteRT network must return one vector of class scores for each "
            f"image. Received: {path}, with an output of shape "
            f"{network.output_shape}"
        )
    shape = (_PROBES, *network.input_shape)
    told = network(np.random.default_rng(0).random(shape, "float32"))
    # Int8 probabilities sum to one within a few of their steps.
    sums_to_one = np.abs(told.sum(-1) - 1).max() < _ABOUT
    probabilities = sums_to_one and told.min() >= 0
    return QueryModel(
        network,
        network.output_shape[-1],
        network.input_shape,
        answers="probabilities" if probabilities else "scores",
        batch_size=at_once,
        name=network.name,
    )


def load_file(path, what):
    """The Keras model in a file, a `"model"`, a `"copy"` or a `"detector"`."""
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder: a SavedModel cannot be looked into. "
            'Expected: a file kept by `model.save("NAME.keras")`.'
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no {what} file {path}.")
    try:
        # In Keras' safe mode: a model file may not run code. Its loss and
        # optimizer are not asked for, and may be anybody's.
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        # A damaged file shows as anything.
        raise ValueError(
            f"The {what} {path} cannot be loaded: {_reason(error)} Expected: a "
            f"{_WANTED[what]} kept by `model.save`, of layers of Keras and of "
            "this package."
        ) from error


def _reason(error):
    """Why a model cannot be loaded, without the whole of its settings."""
    text = str(error)
    unknown = re.search("Could not locate (?:class|function) '[^']+'", text)
    if unknown:
        return (
            f"{unknown.group()}. A model of classes of your own is evaluated "
            "in Python, where they are defined: `evaluate_robustness`."
        )
    return textwrap.shorten(text, _LONGEST, placeholder=" ...")


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
    drawn = {}

    def choose(y):
        rows, _ = datasets.stratified_subset(
            np.arange(len(y)), y, options.images, options.seed
        )
        drawn.update(rows=rows, total=len(y))
        return rows

    data = datasets.load(
        options.data,
        options.data_dir,
        (low, high),
        image_shape=shape if len(shape) == 3 and None not in shape else None,
        class_names=names,
        choose=choose,
    )
    if data.class_names and len(data.class_names) != wrapper.num_classes:
        raise ValueError(
            f"{options.data} has folders of {len(data.class_names)} classes, "
            f"the model tells {wrapper.num_classes} apart. Name all of them, "
            "in the order of the model's scores: --class-names FILE"
        )
    rows, total = drawn["rows"], drawn["total"]
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
        x=_fitting(data.x_test, wrapper),
        y=data.y_test,
        rows=rows.tolist(),
        words=f"{data.description}: {chosen}",
        train=train,
        class_names=data.class_names,
        value_range=(low, high),
        eps=options.eps or EPS * (high - low),
    )


def _fitting(x, wrapper):
    """Sequences as the model takes them: `load` saw images of one colour."""
    if x.ndim == len(wrapper.input_shape) + 2:
        return x[..., 0]
    return x


def _class_names(path, wrapper):
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} of class names.")
    try:
        names = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text file in UTF-8.") from error
    names = [name.strip() for name in names if name.strip()]
    if not len(names) == len({*names}) == wrapper.num_classes:
        raise ValueError(
            f"{path} must name each of the model's {wrapper.num_classes} "
            f"classes, one a line. Received: {len(names)} names, "
            f"{len({*names})} of them different."
        )
    return names
