"""The command line: `keras-qsn`, or `python -m keras_qsn`."""

import argparse
import contextlib
import pathlib
import sys

import keras
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeRemainingColumn
from rich.table import Table

import keras_qsn
from keras_qsn import datasets
from keras_qsn import demo
from keras_qsn import paper
from keras_qsn.attacks.quantizers import OpenedModel
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import plans
from keras_qsn.evaluation.outcome import interval
from keras_qsn.models import KerasModelWrapper
from keras_qsn.paper.figures import FIGURES
from keras_qsn.report import percent

# Exit statuses, beside 0 for success.
BELOW, FAILED, BAD_INPUT, UNTRUSTED, INTERRUPTED = 1, 1, 2, 3, 130


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
        return BAD_INPUT


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
    _add_evaluate(commands)
    _add_reproduce(commands)
    return parser


def _add_evaluate(commands):
    command = commands.add_parser(
        "evaluate",
        help="attack a saved model in every way, and say what is left",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit status: 0; 1 accuracy below --at-least; 2 wrong input; 3 "
        "a check failed, with --strict; 130 interrupted.",
    )
    command.set_defaults(command=_evaluate)
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
    command.add_argument("--plan", choices=plans.NAMES, default="standard")
    command.add_argument("--norm", choices=("inf", "2"), default="inf")
    command.add_argument(
        "--eps", type=float, default=0.3, help="radius, in units of 0 to 1"
    )
    command.add_argument(
        "--images", type=int, default=1000, help="test images, from the first"
    )
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--out", help="results folder (default: results/evaluate-MODEL)"
    )
    command.add_argument(
        "--at-least",
        type=float,
        metavar="SHARE",
        help="robust accuracy, from 0 to 1, below which to exit with 1",
    )
    command.add_argument(
        "--strict", action="store_true", help="exit with 3 if a check fails"
    )


def _add_reproduce(commands):
    command = commands.add_parser(
        "reproduce",
        help="run the paper's experiments, set them beside its figures",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit status: 0; 1 a cell failed; 2 wrong input; 130 "
        "interrupted. The same command goes on where it was.",
    )
    command.set_defaults(command=_reproduce)
    command.add_argument(
        "--only",
        nargs="+",
        metavar="FIGURE",
        help=f"some of {', '.join(FIGURES)}",
    )
    command.add_argument(
        "--quick",
        action="store_true",
        help="all figures on the embedded digits, with few images",
    )
    command.add_argument(
        "--data", nargs="+", metavar="DATA", help="mnist, cifar10 or both"
    )
    command.add_argument("--data-dir", help="folder with the data sets")
    command.add_argument("--seeds", nargs="+", type=int, default=[0])
    where = command.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=int, default=1, help="processes on this machine"
    )
    where.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="run on Ray: on this machine, or on the cluster named",
    )
    command.add_argument(
        "--out", help="results folder (default: results/paper, or -quick)"
    )


def _reproduce(options, console):
    executor = None
    if options.ray is not None:
        address = None if options.ray == "local" else options.ray
        executor = paper.ray_cluster(address)
    elif options.workers != 1:
        executor = paper.processes(options.workers)
    quick = "-quick" if options.quick else ""
    out = pathlib.Path(options.out or f"results/paper{quick}")
    with _bars(console) as progress:
        found, failures = paper.reproduce(
            only=options.only,
            quick=options.quick,
            data=options.data,
            seeds=options.seeds,
            out=out,
            data_dir=options.data_dir,
            executor=executor,
            progress=progress,
            say=lambda line: console.print(line, markup=False),
        )
    for name, results in found.items():
        for figure, content in results["figures"].items():
            header, rows = paper.table(results, figure)
            table = Table(*header, title=f"{figure}: {content['title']}")
            for row in rows:
                table.add_row(*map(escape, row))
            console.print(table)
        console.print(f"Written to {out / name}", markup=False)
    for key, text in failures.items():
        console.print(f"Failed: {key}\n{text}", markup=False)
    return FAILED if failures else 0


def _evaluate(options, console):
    path = pathlib.Path(options.model)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.")
    # In Keras' safe mode: a model file may not run code.
    model = keras.models.load_model(path)
    data = datasets.load(options.data, options.data_dir)
    out = pathlib.Path(options.out or f"results/evaluate-{path.stem}")
    count = options.images
    train = (data.x_train, data.y_train) if len(data.x_train) else None
    with _bars(console) as progress:
        evaluation = evaluate_robustness(
            model,
            data.x_test[:count],
            data.y_test[:count],
            eps=options.eps,
            norm=options.norm,
            plan=options.plan,
            train_data=train,
            seed=options.seed,
            folder=out / "finished",
            progress=progress,
        )
    wrapper = KerasModelWrapper.of(model)
    quantize = None
    if plans.is_quantized(model):
        quantize = OpenedModel(wrapper, 0.0, 1.0).quantize
    paths = evaluation.write(out, quantize)
    _print_evaluation(evaluation, console)
    console.print(f"Written to {paths[-1]}", markup=False)
    if options.strict and evaluation.failed:
        return UNTRUSTED
    if (options.at_least or 0) > evaluation.robust_accuracy:
        return BELOW
    return 0


def _print_evaluation(evaluation, console):
    table = Table("attack", "attacker", "tried", "broken", "left")
    for column in table.columns[2:]:
        column.justify = "right"
    for outcome, left in zip(evaluation.outcomes, evaluation.accuracy_after()):
        table.add_row(
            escape(outcome.step.name),
            outcome.step.threat,
            str(len(outcome.tried)),
            str(len(outcome.broken)),
            percent(left),
        )
    console.print(table)
    for check in evaluation.checks:
        if check.status in ("warn", "fail"):
            console.print(
                f"{check.status}: {check.name}: {check.value}. {check.meaning}",
                markup=False,
            )
    count = len(evaluation.y)
    low, high = interval(evaluation.robust_accuracy, count)
    console.print(
        f"Robust accuracy {percent(evaluation.robust_accuracy)} (95 %: "
        f"{percent(low)} to {percent(high)}), clean "
        f"{percent(evaluation.clean_accuracy)}, {count} images; an upper "
        "bound.",
        markup=False,
    )


@contextlib.contextmanager
def _bars(console):
    """A function that draws a progress bar for each name it is told of."""
    with Progress(
        TextColumn("{task.description}", markup=False),
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

        yield progress


def _demo(options, console):
    quick = "-quick" if options.quick else ""
    out = options.out or (
        f"results/demo-{options.data}{quick}-seed{options.seed}"
    )
    settings = demo.settings_for(options.data, options.quick, options.seed)
    with _bars(console) as progress:
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
