"""`keras-qsn evaluate`: attack a saved model."""

import argparse
import dataclasses
import pathlib

from rich.markup import escape
from rich.table import Table

from keras_qsn._core.shares import wilson_interval
from keras_qsn.classifier.opened import OpenedModel
from keras_qsn.cli.inputs import add_inputs
from keras_qsn.cli.inputs import load_images
from keras_qsn.cli.inputs import load_model
from keras_qsn.cli.numbers import share
from keras_qsn.cli.progress import bars
from keras_qsn.cli.status import BELOW
from keras_qsn.cli.status import UNTRUSTED
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import plans
from keras_qsn.report import percent


def add(commands):
    """Add the command to the parser."""
    command = commands.add_parser(
        "evaluate",
        help="attack a saved model in every way, and say what is left",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit status: 0; 1 accuracy below --at-least; 2 wrong input; 3 "
        "a check failed, with --strict; 130 interrupted.",
    )
    command.set_defaults(command=_run)
    add_inputs(command, images=1000)
    command.add_argument("--plan", choices=plans.NAMES, default="standard")
    command.add_argument("--norm", choices=("inf", "2"), default="inf")
    command.add_argument(
        "--out", help="results folder (default: results/evaluate-MODEL)"
    )
    command.add_argument(
        "--at-least",
        type=share,
        metavar="SHARE",
        help="robust accuracy, from 0 to 1, below which to exit with 1",
    )
    command.add_argument(
        "--strict", action="store_true", help="exit with 3 if a check fails"
    )


def _run(options, console):
    wrapper = load_model(options.model)
    images = load_images(options, wrapper)
    path = pathlib.Path(options.model)
    out = pathlib.Path(options.out or f"results/evaluate-{path.stem}")
    with bars(console) as progress:
        evaluation = evaluate_robustness(
            wrapper,
            images.x,
            images.y,
            eps=images.eps,
            norm=options.norm,
            plan=options.plan,
            train_data=images.train,
            value_range=images.value_range,
            seed=options.seed,
            batch_size=options.batch_size,
            folder=out / "finished",
            progress=progress,
        )
    evaluation = dataclasses.replace(
        evaluation,
        settings={
            **evaluation.settings,
            "data_name": images.words,
            "data_rows": images.rows,
        },
    )
    _print_evaluation(evaluation, console)
    paths = evaluation.write(out, _quantize(wrapper, images.value_range))
    console.print(f"Written to {paths[-1]}", markup=False)
    if options.strict and evaluation.failed:
        return UNTRUSTED
    if (options.at_least or 0) > evaluation.robust_accuracy:
        return BELOW
    return 0


def _quantize(wrapper, value_range):
    """What the network behind a quantizer sees, where that is a picture."""
    try:
        return OpenedModel(wrapper, *value_range).quantize
    except ValueError:
        return None


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
    low, high = wilson_interval(evaluation.robust_accuracy, len(evaluation.y))
    console.print(
        f"Robust accuracy {percent(evaluation.robust_accuracy)} (95 %: "
        f"{percent(low)} to {percent(high)}), clean "
        f"{percent(evaluation.clean_accuracy)}: an upper bound. Of "
        f"{evaluation.settings['data_name']}.",
        markup=False,
    )
