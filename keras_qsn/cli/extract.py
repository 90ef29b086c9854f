"""`keras-qsn extract`: copy a saved model by asking it."""

import functools
import pathlib

import numpy as np

from keras_qsn import datasets
from keras_qsn import extraction
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.attacks import substitute_mlp
from keras_qsn.classifier.rebuilt import CannotRebuild
from keras_qsn.cli.inputs import load_file
from keras_qsn.cli.inputs import load_images
from keras_qsn.cli.inputs import load_model
from keras_qsn.cli.inputs import out_of_model
from keras_qsn.cli.printing import bar
from keras_qsn.cli.printing import print_table
from keras_qsn.cli.printing import with_interval
from keras_qsn.cli.printing import written
from keras_qsn.defenses import undefended
from keras_qsn.evaluation.untrained import untrained
from keras_qsn.models import QueryError
from keras_qsn.report import extraction as report

# By the names of `parser.THEFTS`.
ATTACKS = {
    "knockoff": extraction.KnockoffNets,
    "knockoff-adaptive": functools.partial(
        extraction.KnockoffNets, sampling="adaptive"
    ),
    "copycat": extraction.CopyCat,
    "active-thief": extraction.ActiveThief,
    "jacobian": extraction.JacobianAugmentation,
    "dfme": extraction.DFME,
    "maze": extraction.MAZE,
}


def run(options, console):
    """Run the command; returns the exit status."""
    out = out_of_model(options)
    wrapper = load_model(options)
    images = load_images(options, wrapper)
    low, high = images.value_range
    pixels = {"clip_min": low, "clip_max": high, "seed": options.seed}
    # What is not said is as each attack has it.
    told = {name: getattr(options, name) for name in ("answers", "rounds")}
    attack = ATTACKS[options.attack](
        options.budget,
        **{name: value for name, value in told.items() if value},
        epochs=options.epochs,
        repeats=options.repeats,
        **pixels,
    )
    clean = undefended(wrapper.model)
    copy = _copy(options, wrapper, clean, images.x)
    with bar(console) as progress:
        try:
            result = attack.run(
                wrapper,
                copy,
                _pool(options, images, attack),
                images.x,
                images.y,
                clean=None if clean is wrapper.model else clean,
                adversary=ProjectedGradientDescent(images.eps, **pixels),
                folder=out / "finished",
                progress=progress,
            )
        except QueryError as error:
            raise ValueError(str(error)) from error
    result.settings.update(
        victim=pathlib.Path(options.model).name, data_name=images.words
    )
    _print_result(result, console)
    paths = result.write(out)
    copy.save(out / "copy.keras")
    written(paths[-1], console, options.open)
    return 0


def _copy(options, wrapper, clean, x):
    """The model to teach."""
    if options.copy:
        return load_file(pathlib.Path(options.copy), "copy")
    seed = options.seed + 1
    if wrapper.answers_only:
        return substitute_mlp(x.shape[1:], wrapper.num_classes, seed=seed)
    try:
        return untrained(clean, x[:1], seed)
    except CannotRebuild as error:
        raise ValueError(f"{error}. Name a model to teach: --copy") from error


def _pool(options, images, attack):
    """Images to ask about, and their classes, if any are needed."""
    if not attack.needs_images:
        if options.pool is not None:
            raise ValueError(
                f"{options.attack} makes its own images: leave out --pool"
            )
        return None
    if options.pool is None:
        if images.train is None:
            raise ValueError(
                f"{options.data} has no training images to ask about. Name "
                "other images: --pool"
            )
        return images.train
    data = datasets.load(
        options.pool,
        options.data_dir,
        images.value_range,
        image_shape=images.x.shape[1:] if images.x.ndim == 4 else None,
    )
    x, y = (
        np.concatenate(parts) if len(parts[0]) else parts[1]
        for parts in (
            (data.x_train, data.x_test),
            (data.y_train, data.y_test),
        )
    )
    return x, y


def _print_result(result, console):
    (header,), rows = report.table({result.settings["attack"]: result})
    # The interval stands below.
    lines = [[*line[:4], *line[5:]] for line in (header, *rows)]
    print_table(console, lines[0], lines[1:], texts=2)
    console.print(
        f"Agreement {with_interval(result.agreement, len(result.victim))} "
        f"after {result.queries:,} queries: a lower bound of what can be "
        f"copied. Of {result.settings['data_name']}.",
        markup=False,
    )
