"""`keras-qsn reproduce`: the paper's experiments."""

from keras_qsn import paper
from keras_qsn._core.executors import executor_of
from keras_qsn.cli.inputs import out_of
from keras_qsn.cli.printing import parts
from keras_qsn.cli.printing import print_table
from keras_qsn.cli.printing import written
from keras_qsn.cli.status import FAILED


def run(options, console):
    """Run the command; returns the exit status."""
    quick = "-quick" if options.quick else ""
    out = out_of(options, f"results/paper{quick}")
    with parts(console) as progress:
        by_data, failures = paper.reproduce(
            only=options.only,
            quick=options.quick,
            data=options.data,
            seeds=options.seeds,
            out=out,
            data_dir=options.data_dir,
            executor=executor_of(options.ray or options.workers),
            progress=progress,
            run=not options.no_run,
        )
    for name, results in by_data.items():
        for figure, content in results["figures"].items():
            header, lines = paper.table(results, figure)
            # Of a table by defences a line has but one name.
            names = 1 if content["kind"] == "table" else 2
            title = f"{figure}: {content['title']}"
            print_table(console, header, lines, texts=names, title=title)
        written(out / name, console)
    for key, text in failures.items():
        console.print(f"Failed: {key}\n{text}", markup=False)
    return FAILED if failures else 0
