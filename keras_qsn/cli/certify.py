"""`keras-qsn certify`: prove a saved model robust."""

import argparse
import pathlib

import numpy as np
from rich.table import Table

from keras_qsn import report
from keras_qsn._core.shares import wilson_interval
from keras_qsn.certification import certify
from keras_qsn.certification.certifying import METHODS
from keras_qsn.cli.inputs import add_inputs
from keras_qsn.cli.inputs import load_images
from keras_qsn.cli.inputs import load_model
from keras_qsn.cli.numbers import above_zero
from keras_qsn.cli.numbers import share
from keras_qsn.cli.progress import bars
from keras_qsn.cli.status import BELOW
from keras_qsn.report import percent


def add(commands):
    """Add the command to the parser."""
    command = commands.add_parser(
        "certify",
        help="prove, image by image, that a saved model is robust",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit status: 0; 1 certified accuracy below --at-least; 2 wrong "
        "input; 130 interrupted. The same command goes on where it was.",
    )
    command.set_defaults(command=_run)
    add_inputs(command, images=None)
    command.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        help="(default: interval, crown, and the others by cost)",
    )
    command.add_argument(
        "--time-limit",
        type=above_zero,
        default=60.0,
        help="seconds of branching for one image",
    )
    command.add_argument(
        "--out", help="results folder (default: results/certify-MODEL)"
    )
    command.add_argument(
        "--at-least",
        type=share,
        metavar="SHARE",
        help="certified accuracy, from 0 to 1, below which to exit with 1",
    )


def _run(options, console):
    wrapper = load_model(options.model)
    images = load_images(options, wrapper)
    path = pathlib.Path(options.model)
    out = pathlib.Path(options.out or f"results/certify-{path.stem}")
    with bars(console) as progress:
        certificate = certify(
            wrapper,
            images.x,
            images.y,
            eps=images.eps,
            methods=options.methods,
            time_limit=options.time_limit,
            batch_size=options.batch_size,
            value_range=images.value_range,
            folder=out / "finished",
            progress=progress,
        )
    _print_certificate(certificate, images.words, console)
    report.write_json(
        out / "certificate.json",
        {
            "model": path.name,
            "data": images.words,
            "rows": images.rows,
            **certificate.to_json(),
        },
    )
    console.print(f"Written to {out}", markup=False)
    if (options.at_least or 0) > certificate.certified_accuracy:
        return BELOW
    return 0


def _print_certificate(certificate, words, console):
    count = len(certificate)
    table = Table("status", "by", "images", "share", "median seconds")
    for column in table.columns[2:]:
        column.justify = "right"
    pairs = sorted({*zip(certificate.status, certificate.method)})
    for status, method in pairs:
        rows = (certificate.status == status) & (certificate.method == method)
        seconds = np.median(certificate.seconds[rows])
        table.add_row(
            str(status),
            str(method) or "–",
            str(rows.sum()),
            percent(rows.mean()),
            f"{seconds:.3g}",
        )
    console.print(table)
    low, high = wilson_interval(certificate.certified_accuracy, count)
    console.print(
        f"Certified accuracy {percent(certificate.certified_accuracy)} (95 %: "
        f"{percent(low)} to {percent(high)}) at L-infinity eps "
        f"{certificate.eps:g}, at most "
        f"{percent(certificate.possible_accuracy)} possible, clean "
        f"{percent(certificate.clean_accuracy)}. Of {words}.",
        markup=False,
    )
