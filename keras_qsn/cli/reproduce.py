"""`keras-qsn reproduce`: the paper's experiments."""

import pathlib

from keras_qsn import paper
from keras_qsn.cli.printing import parts
from keras_qsn.cli.printing import print_table
from keras_qsn.cli.printing import written
from keras_qsn.cli.status import FAILED


def run(options, console):
    """Run the command; returns the exit status."""
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
        written(out / name, console)
    for key, text in failures.items():
        console.print(f"Failed: {key}\n{text}", markup=False)
    return FAILED if failures else 0
