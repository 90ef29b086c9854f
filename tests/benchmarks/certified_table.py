"""The results of `certified.py` on the test set, as a Markdown table.

python3 tests/benchmarks/certified_table.py
"""

import collections
import json
import pathlib

from keras_qsn.report import markdown_table

RESULTS = pathlib.Path(__file__).parent / "certified"

MEASURED = ("clean", "interval", "certified", "worst case")

TRAININGS = {
    "mixed": "attacked images and intervals",
    "interval": "intervals",
    "attacked": "attacked images",
    "clean": "clean images",
}


def table():
    """Mean and range over seeds; one row for each training and eps."""
    found = [json.loads(p.read_text()) for p in sorted(RESULTS.glob("*.json"))]
    runs = collections.defaultdict(list)
    for each in found:
        runs[_row(each)].append(each)
    return markdown_table(
        [
            *("eps", "network", "trained on", "network sees", "epochs"),
            *("images", "seeds"),
            *("clean", "by intervals", "certified", "worst case", "minutes"),
        ],
        [
            [
                *row,
                len(seeds),
                *(_over(seeds, column) for column in MEASURED),
                _minutes(seeds),
            ]
            for row, seeds in sorted(runs.items(), key=_best_first)
        ],
        "llll" + "r" * 8,
    )


def _row(found):
    options = found["options"]
    thresholds = ", ".join(f"{t:g}" for t in options["thresholds"])
    trained = TRAININGS[options["method"]]
    if options["shift"]:
        trained += f", moved by up to {options['shift']} pixel"
    # Options that came later: files from before lack them.
    if options.get("warp"):
        trained += ", warped"
    if options.get("ema"):
        trained += ", weights averaged"
    return (
        f"{options['eps']:g}",
        options.get("network", "paper"),
        trained,
        f"bits, at {thresholds}" if thresholds else "raw pixels",
        options["epochs"],
        f"{found['images']:,}",
    )


def _best_first(item):
    row, seeds = item
    return -float(row[0]), -_mean(seeds, "certified")


def _mean(seeds, column):
    return sum(each[column] for each in seeds) / len(seeds)


def _over(seeds, column):
    text = f"{100 * _mean(seeds, column):.2f} %"
    if len(seeds) > 1:
        values = [100 * each[column] for each in seeds]
        text += f" ({min(values):.2f}–{max(values):.2f})"
    return text


def _minutes(seeds):
    return f"{_mean(seeds, 'training seconds') / 60:.0f}"


if __name__ == "__main__":
    print(table())
