"""`keras-qsn reproduce`: the paper's experiments."""

import socket
import urllib.parse

from keras_qsn import paper
from keras_qsn.cli.inputs import out_of
from keras_qsn.cli.printing import parts
from keras_qsn.cli.printing import print_table
from keras_qsn.cli.printing import written
from keras_qsn.cli.status import FAILED


def run(options, console):
    """Run the command; returns the exit status."""
    quick = "-quick" if options.quick else ""
    out = out_of(options, f"results/paper{quick}")
    executor = None
    if options.ray is not None:
        executor = paper.ray_cluster(_address(options.ray))
    elif options.workers != 1:
        executor = paper.processes(options.workers)
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


def _address(text):
    """An address as Ray takes it; Ray would knock there for minutes."""
    if text == "local":
        return None
    if text == "auto":
        return text
    try:
        url = urllib.parse.urlsplit(text if "://" in text else f"//{text}")
        if not url.hostname:
            raise ValueError("it names no host")
        socket.create_connection((url.hostname, url.port or 6379), 5).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"There is no Ray cluster at {text} ({error}). Expected: auto, "
            "HOST:6379 or ray://HOST:10001, started there by `ray start "
            "--head`; or --ray alone, for this machine."
        ) from error
    return text
