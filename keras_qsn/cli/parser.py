"""What the commands take. Nothing here needs TensorFlow: help is quick."""

import argparse
import os

from keras_qsn.cli.numbers import above_zero
from keras_qsn.cli.numbers import at_once
from keras_qsn.cli.numbers import finite
from keras_qsn.cli.numbers import share
from keras_qsn.cli.numbers import whole
from keras_qsn.cli.status import BAD_INPUT
from keras_qsn.version import __version__

# As in `datasets.NAMES`, `evaluation.plans.NAMES`, `certifying.METHODS`.
DATA = ("digits", "mnist", "cifar10")
PLANS = ("quick", "standard", "full")
METHODS = ("interval", "crown", "crown-full", "branching")

# What `--detector` may name beside a file.
SQUEEZING = "feature-squeezing"

# Radius where none is given, as a share of the range of pixels.
EPS = 0.3


def parser():
    """The parser; its options have the name of their `command`."""
    whole_program = _Parser(
        prog="keras-qsn",
        description="Trainable input quantization for Keras, and what it is "
        "worth.",
    )
    whole_program.add_argument(
        "--version", action="version", version=__version__
    )
    commands = whole_program.add_subparsers(
        required=True, metavar="COMMAND", dest="command"
    )
    for add in (_demo, _evaluate, _certify, _reproduce):
        command = add(commands)
        command.add_argument(
            "--verbose",
            action="store_true",
            help="with the messages of TensorFlow",
        )
    return whole_program


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all options."""

    def error(self, message):
        self.exit(BAD_INPUT, f"{self.prog}: {message}\n")


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Says the defaults that say something."""

    def _get_help_string(self, action):
        if action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def _demo(commands):
    command = _add(
        commands,
        "demo",
        "train the paper's defences, attack them, show what is left",
        "2 wrong input",
    )
    command.add_argument(
        "--data",
        choices=DATA,
        default="digits",
        help="digits: 5,000 embedded MNIST images",
    )
    command.add_argument(
        "--data-dir",
        help="folder with mnist.npz or cifar10.npz (else KERAS_QSN_DATA, else "
        "Keras' own cache or download)",
    )
    _add_seed(command)
    command.add_argument(
        "--quick", action="store_true", help="few images, weak attacks"
    )
    command.add_argument(
        "--out", help="results folder (default: results/demo-DATA-seedSEED)"
    )
    _add_open(command)
    return command


def _add_open(command):
    command.add_argument(
        "--open", action="store_true", help="show the page in a browser"
    )


def _evaluate(commands):
    command = _of_a_model(
        commands,
        "evaluate",
        "attack a saved model in every way, and say what is left",
        "1 accuracy below --at-least; 2 wrong input; 3 a check failed, with "
        "--strict",
        images=1000,
    )
    command.add_argument(
        "--plan", choices=PLANS, default="standard", help="which attacks"
    )
    command.add_argument(
        "--norm",
        choices=("inf", "2", "1", "0"),
        default="inf",
        help="of the radius; 0 counts the pixels that change",
    )
    command.add_argument(
        "--detector",
        metavar="FILE",
        help="what stands beside the model and rejects images: a saved Keras "
        "model of one score an image, .keras, larger where more suspicious; or "
        f"{SQUEEZING}. Its threshold rejects 5 percent of the training images",
    )
    command.add_argument(
        "--strict", action="store_true", help="exit with 3 if a check fails"
    )
    _add_open(command)
    return command


def _certify(commands):
    command = _of_a_model(
        commands,
        "certify",
        "prove, image by image, that a saved model is robust",
        "1 certified accuracy below --at-least; 2 wrong input",
        images=None,
    )
    command.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        help=f"some of {', '.join(METHODS)} (default: the first two, the "
        "others by cost)",
    )
    command.add_argument(
        "--time-limit",
        type=above_zero,
        default=60.0,
        metavar="SECONDS",
        help="of branching, for one image",
    )
    return command


def _reproduce(commands):
    command = _add(
        commands,
        "reproduce",
        "run the paper's experiments, set them beside its figures",
        "1 a cell failed; 2 wrong input",
    )
    command.add_argument(
        "--only",
        nargs="+",
        metavar="FIGURE",
        help="some figures, such as fig7 or z (default: all)",
    )
    command.add_argument(
        "--quick",
        action="store_true",
        help="all figures on the embedded digits, with few images",
    )
    command.add_argument(
        "--data",
        nargs="+",
        metavar="DATA",
        help="mnist, cifar10 or both (default: both)",
    )
    command.add_argument("--data-dir", help="folder with the data sets")
    command.add_argument(
        "--seeds",
        nargs="+",
        type=whole(0),
        default=[0],
        help="of trainings and attacks",
    )
    command.add_argument(
        "--no-run",
        action="store_true",
        help="run nothing: tables and plots of what has finished in OUT",
    )
    _add_workers(command, min(2, os.cpu_count() or 1))
    command.add_argument(
        "--out", help="results folder (default: results/paper, or -quick)"
    )
    return command


def _of_a_model(commands, name, help, status, images):
    """A command for a model and data; `images` of them where none are said."""
    command = _add(commands, name, help, status)
    command.add_argument(
        "model",
        help="a saved Keras classifier, .keras"
        + (", or a LiteRT file, .tflite" if name == "evaluate" else ""),
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
    _add_seed(command)
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
        "--batch-size",
        type=at_once,
        metavar="N",
        help="images computed at once, or the memory that they may take, such "
        "as 500MB (default: 2GB, 128 images at most)",
    )
    _add_workers(command, 1)
    command.add_argument(
        "--class-names",
        metavar="FILE",
        help="text file with a name for each class, one a line (default: "
        "those of the folders, else numbers)",
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


def _add(commands, name, help, status):
    return commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        formatter_class=_Defaults,
        epilog=f"Exit status: 0; {status}; 130 interrupted. The same command "
        "goes on where it was.",
    )


def _add_workers(command, default):
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


def _add_seed(command):
    command.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="N",
        help="same seed, same result",
    )
