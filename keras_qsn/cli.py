"""The command line: `keras-qsn`, or `python -m keras_qsn`."""

import argparse
import sys

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeRemainingColumn
from rich.table import Table

import keras_qsn
from keras_qsn import datasets
from keras_qsn import demo

INTERRUPTED = 130


def main(arguments=None):
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        return options.command(options, console)
    except KeyboardInterrupt:
        console.print(
            "Interrupted. What was finished is kept: the same command goes on "
            "from there."
        )
        return INTERRUPTED
    except (OSError, ValueError, ImportError) as error:
        Console(stderr=True).print(f"keras-qsn: {error}", markup=False)
        return 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-qsn",
        description="Trainable input quantization for Keras, and what it is "
        "worth.",
    )
    parser.add_argument(
        "--version", action="version", version=keras_qsn.__version__
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "demo",
        help="train the paper's defences, attack them, show what is left",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.set_defaults(command=_demo)
    command.add_argument(
        "--data",
        choices=datasets.NAMES,
        default="digits",
        help="digits: 5,000 embedded MNIST images",
    )
    command.add_argument(
        "--data-dir",
        help="folder with mnist.npz or cifar10.npz (else KERAS_QSN_DATA, else "
        "Keras' own cache or download)",
    )
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--quick", action="store_true", help="few images, weak attacks"
    )
    command.add_argument(
        "--out", help="results folder (default: results/demo-DATA-seedSEED)"
    )
    return parser


def _demo(options, console):
    quick = "-quick" if options.quick else ""
    out = options.out or (
        f"results/demo-{options.data}{quick}-seed{options.seed}"
    )
    settings = demo.settings_for(options.data, options.quick, options.seed)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bars:
        tasks = {}

        def progress(name, done, total):
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        results = demo.run(settings, out, options.data_dir, progress)
    header, rows = demo.table(results)
    table = Table(*header, title="keras-qsn demo")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(demo.caption(results), markup=False)
    for note in results["notes"]:
        console.print(f"! {note}", markup=False)
    console.print(f"Written to {out}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
