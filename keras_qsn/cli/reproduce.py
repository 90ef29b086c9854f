"""`keras-qsn reproduce`: the paper's experiments."""

import argparse
import os
import pathlib

from keras_qsn import paper
from keras_qsn.cli.numbers import whole
from keras_qsn.cli.printing import parts
from keras_qsn.cli.printing import print_table
from keras_qsn.cli.status import FAILED
from keras_qsn.paper.figures import FIGURES


def add(commands):
    """Add the command to the parser."""
    command = commands.add_parser(
        "reproduce",
        help="run the paper's experiments, set them beside its figures",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit status: 0; 1 a cell failed; 2 wrong input; 130 "
        "interrupted. The same command goes on where it was.",
    )
    command.set_defaults(command=_run)
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
    command.add_argument("--seeds", nargs="+", type=whole(0), default=[0])
    command.add_argument(
        "--no-run",
        action="store_true",
        help="run nothing: tables and plots of what has finished in OUT",
    )
    where = command.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=whole(1),
        default=min(2, os.cpu_count() or 1),
        help="processes on this machine",
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


def _run(options, console):
    executor = None
    if options.ray is not None:
        address = None if options.ray == "local" else options.ray
        executor = paper.ray_cluster(address)
    elif options.workers != 1:
        executor = paper.processes(options.workers)
    quick = "-quick" if options.quick else ""
    out = pathlib.Path(options.out or f"results/paper{quick}")
    with parts(console) as progress:
        by_data, failures = paper.reproduce(
            only=options.only,
            quick=options.quick,
            data=options.data,
            seeds=options.seeds,
            out=out,
            data_dir=options.data_dir,
            executor=executor,
            progress=progress,
            run=not options.no_run,
        )
    for name, results in by_data.items():
        for figure, content in results["figures"].items():
            table = paper.table(results, figure)
            title = f"{figure}: {content['title']}"
            print_table(console, *table, texts=6, title=title)
        console.print(f"Written to {out / name}", markup=False)
    for key, text in failures.items():
        console.print(f"Failed: {key}\n{text}", markup=False)
    return FAILED if failures else 0
