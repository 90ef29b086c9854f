"""The parser, and what becomes of errors and interrupts."""

import argparse
import warnings

from rich.console import Console

from keras_qsn.cli import certify
from keras_qsn.cli import demo
from keras_qsn.cli import evaluate
from keras_qsn.cli import reproduce
from keras_qsn.cli.status import BAD_INPUT
from keras_qsn.cli.status import INTERRUPTED
from keras_qsn.version import __version__


def main(arguments=None):
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console, errors = Console(), Console(stderr=True)

    def show(message, *where, **more):
        errors.print(f"keras-qsn: warning: {message}", markup=False)

    try:
        with warnings.catch_warnings():
            # Without the line of our source that Python would add.
            warnings.showwarning = show
            return options.command(options, console)
    except KeyboardInterrupt:
        console.print(
            "Interrupted. What was finished is kept: the same command goes on "
            "from there."
        )
        return INTERRUPTED
    except (OSError, ValueError, ImportError) as error:
        errors.print(f"keras-qsn: {error}", markup=False)
        return BAD_INPUT


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all options."""

    def error(self, message):
        self.exit(BAD_INPUT, f"{self.prog}: {message}\n")


def _parser():
    parser = _Parser(
        prog="keras-qsn",
        description="Trainable input quantization for Keras, and what it is "
        "worth.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (demo, evaluate, certify, reproduce):
        command.add(commands)
    return parser
