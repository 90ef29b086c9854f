"""Run the demo, or go on with it."""

import dataclasses
import pathlib

from keras_qsn import datasets
from keras_qsn._core.kept import versions
from keras_qsn._core.kept import work_folder
from keras_qsn.demo.results import results_of
from keras_qsn.demo.results import settings_of
from keras_qsn.demo.written import write
from keras_qsn.paper import runner
from keras_qsn.paper.figures import showcase
from keras_qsn.paper.grid import FULL
from keras_qsn.paper.grid import Grid

_SCALE = dataclasses.replace(FULL, images=250, few_images=60, watched=False)
QUICK = dataclasses.replace(
    _SCALE,
    epochs=2,
    train_images=2000,
    images=100,
    few_images=30,
    pgd="PGD-10",
)


def grid_for(data="digits", quick=False, seed=0):
    """The `Grid` with the demo's cells; `quick` is a smoke test."""
    return Grid(QUICK if quick else _SCALE, data, seed)


def run(grid, out, data_dir=None, progress=None, show=None):
    """Run the demo, or go on where an earlier run of it stopped.

    Args:
        grid: A `Grid`.
        out: Results folder. Receives `results.json`, `results.md`,
            `accuracy.png`, `images.png`, the trained models, and `demo.html`,
            a page with all of it; keeps what is finished in `cells`.
        data_dir: Optional folder with the data set's file.
        progress: Optional function called with a line of text for each
            finished cell, the work done, and all of it.
        show: Optional function of the results, called before the tables and
            plots are written: a full disk does not keep them from being seen.

    Returns:
        The content of `results.json`.

    Raises:
        OSError: If the folder cannot be written.
        RuntimeError: If a network cannot be trained or attacked.
        ValueError: If the folder holds other files, a run with other
            settings, or one of another version.
    """
    columns, curves = showcase.columns(grid), showcase.curves(grid)
    proofs = showcase.proofs(grid)
    wanted = [*proofs.values()]
    for name in columns:
        wanted += columns[name].values()
        wanted += (c for line in curves[name].values() for c in line.values())
    settings = settings_of(grid)
    # Missing data are said before any work.
    datasets.load(grid.data, data_dir)
    with work_folder(out, {"demo": settings, "versions": versions()}):
        out = pathlib.Path(out)
        folder = out / "cells"
        finished = runner.run(wanted, folder, data_dir, progress=progress)
        if finished.failures:
            raise RuntimeError([*finished.failures.values()][0])
        results = results_of(grid, columns, curves, proofs, finished)
        if show is not None:
            show(results)
        write(results, grid, columns, finished, out)
    return results
