"""`keras-qsn evaluate`: attack a saved model."""

import dataclasses
import pathlib

from keras_qsn.classifier.opened import OpenedModel
from keras_qsn.cli.detector import load_detector
from keras_qsn.cli.inputs import load_images
from keras_qsn.cli.inputs import load_model
from keras_qsn.cli.inputs import out_of_model
from keras_qsn.cli.printing import bar
from keras_qsn.cli.printing import print_table
from keras_qsn.cli.printing import with_interval
from keras_qsn.cli.printing import written
from keras_qsn.cli.status import BELOW
from keras_qsn.cli.status import UNTRUSTED
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.report import percent
from keras_qsn.report import summary
from keras_qsn.report import tables


def run(options, console):
    """Run the command; returns the exit status."""
    if options.norm in ("0", "1") and options.eps is None:
        raise ValueError(
            f"--norm {options.norm} needs a radius, --eps: "
            + (
                "how many pixels may change."
                if options.norm == "0"
                else "the sum of the changes of all pixels."
            )
        )
    out = out_of_model(options)
    wrapper = load_model(options)
    images = load_images(options, wrapper)
    detector = load_detector(options, wrapper, images)
    with bar(console) as progress:
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
            workers=options.ray or options.workers,
            detector=detector,
            attack_dtype=options.attack_dtype,
        )
    evaluation = dataclasses.replace(
        evaluation,
        settings={
            **evaluation.settings,
            "model_file": pathlib.Path(options.model).name,
            "data_name": images.words,
            "data_rows": images.rows,
            "class_names": images.class_names,
        },
    )
    _print_evaluation(evaluation, console)
    paths = evaluation.write(out, _quantize(wrapper, images.value_range))
    written(paths[-1], console, options.open)
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
    beside = dict(summary.facts(evaluation)).get("Detector")
    if beside:
        console.print(f"Detector: {beside}.", markup=False)
    share = evaluation.robust_accuracy
    console.print(
        f"Robust accuracy {with_interval(share, len(evaluation.y))}, clean "
        f"{percent(evaluation.clean_accuracy)}: an upper bound. Of "
        f"{evaluation.settings['data_name']}.",
        markup=False,
    )
