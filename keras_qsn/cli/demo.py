"""`keras-qsn demo`: the main job."""

from keras_qsn import demo
from keras_qsn.cli.inputs import out_of
from keras_qsn.cli.printing import parts
from keras_qsn.cli.printing import print_table
from keras_qsn.cli.printing import written


def run(options, console):
    """Run the command; returns the exit status."""
    quick = "-quick" if options.quick else ""
    out = out_of(
        options, f"results/demo-{options.data}{quick}-seed{options.seed}"
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
    written(out / demo.PAGE, console, options.open)
    return 0


def _print_results(results, console):
    header, rows = demo.table(results)
    print_table(console, header, rows, title="keras-qsn demo")
    console.print(demo.caption(results), markup=False)
    for note in results["notes"]:
        console.print(f"! {note}", markup=False)
    for number, line in enumerate(results["conclusions"], 1):
        console.print(f"{number}. {line}", markup=False)
