"""What several commands take. Nothing here needs TensorFlow: help is quick."""

import argparse

from keras_qsn.cli.numbers import above_zero
from keras_qsn.cli.numbers import at_once
from keras_qsn.cli.numbers import finite
from keras_qsn.cli.numbers import share
from keras_qsn.cli.numbers import whole
from keras_qsn.cli.status import BAD_INPUT

# As in `datasets.NAMES`.
DATA = ("digits", "mnist", "cifar10")

# Commands that need no more than answers of a model.
LITERT = ("evaluate", "extract")

# Radius where none is given, as a share of the range of pixels.
EPS = 0.3


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all options."""

    def error(self, message):
        self.exit(BAD_INPUT, f"{self.prog}: {message}\n")


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Says the defaults that say something."""

    def _get_help_string(self, action):
        if action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def add_command(commands, name, help, status):
    return commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        formatter_class=Defaults,
        epilog=f"Exit status: 0; {status}; 130 interrupted. The same command "
        "goes on where it was.",
    )


def of_a_model(commands, name, help, status, images):
    """A command for a model and data; `images` of them where none are said."""
    command = add_command(commands, name, help, status)
    command.add_argument(
        "model",
        help="a saved Keras classifier, .keras"
        + (", or a LiteRT file, .tflite" if name in LITERT else ""),
    )
    command.add_argument(
        "--data",
        required=True,
        help=f"{', '.join(DATA)}; an .npz file with x_test and y_test, and "
        "perhaps x_train and y_train; or a folder of images, CLASS/*.png",
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
    add_seed(command)
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
        help=f"radius, in units of the pixels (default: {EPS} of their range)",
    )
    command.add_argument(
        "--class-names",
        metavar="FILE",
        help="text file with a name for each class, one a line (default: "
        "those of the folders, else numbers)",
    )
    command.add_argument(
        "--out", help=f"results folder (default: results/{name}-MODEL)"
    )
    return command


def add_at_least(command):
    command.add_argument(
        "--at-least",
        type=share,
        metavar="SHARE",
        help="accuracy left, from 0 to 1, below which to exit with 1",
    )


def add_batch_size(command):
    command.add_argument(
        "--batch-size",
        type=at_once,
        metavar="N",
        help="images computed at once, or the memory that they may take, such "
        "as 500MB (default: 2GB, 128 images at most)",
    )


def add_workers(command, default):
    where = command.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=whole(1),
        default=default,
        metavar="N",
        help="processes on this machine",
    )
    where.add_argument(
        "--ray",
        nargs="?",
        const="ray",
        metavar="ADDRESS",
        help="run on Ray: on this machine, or on the cluster named",
    )


def add_seed(command):
    command.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="N",
        help="same seed, same result",
    )


def add_open(command):
    command.add_argument(
        "--open", action="store_true", help="show the page in a browser"
    )
