"""`keras-qsn demo`: the main job."""

import argparse

from keras_qsn import datasets
from keras_qsn import demo
from keras_qsn.cli.numbers import whole
from keras_qsn.cli.printing import parts
from keras_qsn.cli.printing import print_table


def add(commands):
    """Add the command to the parser."""
    command = commands.add_parser(
        "demo",
        help="train the paper's defences, attack them, show what is left",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.set_defaults(command=_run)
    command.add_argument(
        "--data",
        choices=datasets.NAMES,
        default="digits",
        help="digits: 5,000 embedded MNIST images",
    )
    command.add_argument(
        "--data-dir",
        help="folder with mnist.npz or cifar10.npz (else KERAS_QSN_DATA, else "
        "Keras' own cache or download)",
    )
    command.add_argument("--seed", type=whole(0), default=0)
    command.add_argument(
        "--quick", action="store_true", help="few images, weak attacks"
    )
    command.add_argument(
        "--out", help="results folder (default: results/demo-DATA-seedSEED)"
    )


def _run(options, console):
    quick = "-quick" if options.quick else ""
    out = options.out or (
        f"results/demo-{options.data}{quick}-seed{options.seed}"
    )
    grid = demo.grid_for(options.data, options.quick, options.seed)
    with parts(console) as progress:
        demo.run(
            grid,
            out,
            options.data_dir,
            progress,
            lambda results: _print_results(results, console),
        )
    console.print(f"Written to {out}", markup=False)
    return 0


def _print_results(results, console):
    print_table(console, *demo.table(results), title="keras-qsn demo")
    console.print(demo.caption(results), markup=False)
    for note in results["notes"]:
        console.print(f"! {note}", markup=False)
