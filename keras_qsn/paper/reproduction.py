"""`reproduce`: run the grid, write the results."""

import pathlib

from keras_qsn import datasets
from keras_qsn import report
from keras_qsn.paper import cells
from keras_qsn.paper import grid
from keras_qsn.paper import plots
from keras_qsn.paper import results
from keras_qsn.paper import runner
from keras_qsn.paper import tables
from keras_qsn.paper.figures import FIGURES


def reproduce(
    only=None,
    quick=False,
    data=None,
    seeds=(0,),
    out="results/paper",
    data_dir=None,
    executor=None,
    progress=None,
    run=True,
):
    """Runs the paper's experiments, or goes on where a run stopped.

    Every training and every measurement is a cell, run once and kept in
    `out/cells`; figures that share one share its result.

    Args:
        only: Optional list of figures, such as `["fig7"]`. Defaults to
            `None`: all.
        quick: Whether to run on the embedded digits, with few images.
        data: Optional list of data sets, `"mnist"` and `"cifar10"`.
            Defaults to `None`: both.
        seeds: Integers; each is a whole grid. Defaults to `(0,)`.
        out: Results folder. Receives a folder for each data set with
            `results.json`, `results.md` and a plot for each figure.
        data_dir: Optional folder with `mnist.npz` and `cifar10.npz`, and with
            `omniglot_small.npz` if thieves of digits are to ask about
            Omniglot characters (`x`, uint8 of 28x28, and `y`).
        executor: Where cells run: `paper.here()`, `paper.processes(workers)`
            or `paper.ray_cluster(address)`. Defaults to `None`: here.
        progress: Optional function called with a line of text for each
            finished cell, the work done, and all of it.
        run: `False` runs nothing: tables and plots of what has finished in
            `out` so far, whatever the figures and seeds of those runs.

    Returns:
        A pair of dictionaries: the results of each data set, as
        `load_results` describes them, and a text for each cell that failed.

    Raises:
        ValueError: If a figure or a data set is unknown, a figure is not
            drawn for the data sets named, or another run is at work in `out`.
        OSError: If a data set is not to be had.

    Example:

    >>> reproduce(only=["fig12"])
    Traceback (most recent call last):
    ...
    ValueError: `only` must name figures of fig1, fig5, fig6, z, fig7, fig8, \
fig9, fig10, fig11, ranges, readings, demo, demo-eps, table1, extraction. \
Received: only=['fig12']

    Limitations:
        The paper leaves much unsaid (eps of some figures, which gradient,
        how black-box examples were made, most values, shown as images only);
        the figure `readings` tries the readings one by one. Another number
        of threads, and so of processes, rounds sums in another order: the
        same seed then gives networks that differ by a few images.

    Reference:
        - Ali et al., 2018: https://arxiv.org/abs/1811.01437
    """
    only = list(FIGURES) if only is None else list(only)
    if not only or not set(only) <= set(FIGURES):
        raise ValueError(
            f"`only` must name figures of {', '.join(FIGURES)}. "
            f"Received: only={only}"
        )
    scale = grid.QUICK if quick else grid.FULL
    figures = _figures_by_data(only, scale, data)
    if run:
        for name in figures:
            datasets.load(name, data_dir)
    wanted = []
    for seed in seeds:
        for name, names in figures.items():
            for figure in names:
                rows = FIGURES[figure].rows(grid.Grid(scale, name, seed))
                for row in rows:
                    wanted += [c for c in (row.cell, row.worst) if c]
    out = pathlib.Path(out)
    folder = out / "cells"
    if run:
        finished = runner.run(wanted, folder, data_dir, executor, progress)
    else:
        finished = runner.finished(wanted, folder)
    by_data = {}
    for name, names in figures.items():
        by_data[name] = results.collect(names, scale, name, seeds, finished)
        _write(by_data[name], out / name, finished.kept)
    failures = {
        cells.key(cell): text for cell, text in finished.failures.items()
    }
    return by_data, failures


def _figures_by_data(only, scale, data):
    """Which figures are drawn for which data set."""
    if len(scale.data) == 1:
        if data:
            raise ValueError(
                "`data` must not be given with `quick`, which runs on "
                f"{scale.data[0]}. Received: data={list(data)}"
            )
        return {scale.data[0]: only}
    data = list(data or scale.data)
    if not set(data) <= set(scale.data):
        raise ValueError(
            f"`data` must be of {', '.join(scale.data)}. Received: data={data}"
        )
    figures = {
        name: [f for f in only if name in FIGURES[f].data] for name in data
    }
    figures = {name: names for name, names in figures.items() if names}
    if not figures:
        raise ValueError(
            f"`only` must name a figure drawn for {', '.join(data)}. "
            f"Received: only={only}"
        )
    return figures


def _write(measured, folder, kept):
    folder.mkdir(parents=True, exist_ok=True)
    report.write_json(folder / "results.json", measured)
    report.write_text(folder / "results.md", tables.to_markdown(measured))
    for name in measured["figures"]:
        figure = plots.plot(measured, name, kept.arrays)
        report.write_figure(folder / f"{name}.png", figure)
