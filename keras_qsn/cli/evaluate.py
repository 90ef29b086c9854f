"""`keras-qsn evaluate`: attack a saved model."""

import dataclasses

from keras_qsn.classifier.opened import OpenedModel
from keras_qsn.cli.inputs import add_command
from keras_qsn.cli.inputs import load_images
from keras_qsn.cli.inputs import load_model
from keras_qsn.cli.inputs import out_of
from keras_qsn.cli.printing import bars
from keras_qsn.cli.printing import print_table
from keras_qsn.cli.printing import with_interval
from keras_qsn.cli.status import BELOW
from keras_qsn.cli.status import UNTRUSTED
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import plans
from keras_qsn.report import percent
from keras_qsn.report import tables


def add(commands):
    """Add the command to the parser."""
    command = add_command(
        commands,
        "evaluate",
        "attack a saved model in every way, and say what is left",
        "1 accuracy below --at-least; 2 wrong input; 3 a check failed, with "
        "--strict",
        images=1000,
    )
    command.set_defaults(command=_run)
    command.add_argument("--plan", choices=plans.NAMES, default="standard")
    command.add_argument("--norm", choices=("inf", "2"), default="inf")
    command.add_argument(
        "--strict", action="store_true", help="exit with 3 if a check fails"
    )


def _run(options, console):
    wrapper = load_model(options.model)
    images = load_images(options, wrapper)
    out = out_of(options, "evaluate")
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
    header, rows = tables.attacks(evaluation)
    # As far as the accuracy left.
    print_table(console, header[:5], [row[:5] for row in rows], texts=2)
    for check in evaluation.checks:
        if check.status in ("warn", "fail"):
            console.print(
                f"{check.status}: {check.name}: {check.value}. {check.meaning}",
                markup=False,
            )
    share = evaluation.robust_accuracy
    console.print(
        f"Robust accuracy {with_interval(share, len(evaluation.y))}, clean "
        f"{percent(evaluation.clean_accuracy)}: an upper bound. Of "
        f"{evaluation.settings['data_name']}.",
        markup=False,
    )
