"""`keras-qsn certify`: prove a saved model robust."""

import functools
import pathlib
import warnings

import numpy as np

from keras_qsn import report
from keras_qsn.certification import certify
from keras_qsn.classifier.memory import images_at_once
from keras_qsn.cli.inputs import load_images
from keras_qsn.cli.inputs import load_model
from keras_qsn.cli.inputs import out_of_model
from keras_qsn.cli.printing import bar
from keras_qsn.cli.printing import print_table
from keras_qsn.cli.printing import with_interval
from keras_qsn.cli.printing import written
from keras_qsn.cli.status import BELOW
from keras_qsn.evaluation.checks.conditions import beats_chance
from keras_qsn.report import percent


def run(options, console):
    """Run the command; returns the exit status."""
    out = out_of_model(options)
    wrapper = load_model(options)
    images = load_images(options, wrapper)
    guess = functools.cache(
        lambda: _warn_of_a_guess(wrapper, images, options.batch_size)
    )
    with bar(console) as shown:

        def progress(*done):
            # Of the first image: by then nothing can be refused any more.
            guess()
            shown(*done)

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
            workers=options.ray or options.workers,
        )
    _print_certificate(certificate, images.words, console)
    report.write_json(
        out / "certificate.json",
        {
            "model": pathlib.Path(options.model).name,
            "data": images.words,
            "rows": images.rows,
            "class_names": images.class_names,
            **certificate.to_json(),
        },
    )
    written(out, console)
    if (options.at_least or 0) > certificate.certified_accuracy:
        return BELOW
    return 0


def _warn_of_a_guess(wrapper, images, batch_size):
    """Say that there is hardly anything to prove."""
    batch_size = images_at_once(batch_size, wrapper, images.x.shape[1:])
    right = wrapper.predict(images.x, batch_size) == images.y
    status, value, meaning = beats_chance(
        float(right.mean()), len(right), wrapper.num_classes
    )
    if status == "fail":
        warnings.warn(f"{value}. {meaning}", RuntimeWarning, stacklevel=2)


def _print_certificate(certificate, words, console):
    rows = []
    for status, method in sorted(
        {*zip(certificate.status, certificate.method)}
    ):
        same = (certificate.status == status) & (certificate.method == method)
        seconds = np.median(certificate.seconds[same])
        rows.append(
            [
                str(status),
                str(method) or "–",
                str(same.sum()),
                percent(same.mean()),
                f"{seconds:.3g}",
            ]
        )
    header = ["status", "by", "images", "share", "median seconds"]
    print_table(console, header, rows, texts=2)
    share = certificate.certified_accuracy
    console.print(
        f"Certified accuracy {with_interval(share, len(certificate))} at "
        f"L-infinity eps {certificate.eps:g}, at most "
        f"{percent(certificate.possible_accuracy)} possible, clean "
        f"{percent(certificate.clean_accuracy)}. Of {words}.",
        markup=False,
    )
