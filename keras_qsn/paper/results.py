"""Results: measured beside printed, as plain values."""

import dataclasses
import json
import pathlib

from keras_qsn._core.kept import versions
from keras_qsn.paper import cells
from keras_qsn.paper.figures import FIGURES
from keras_qsn.paper.grid import Grid

SCHEMA_VERSION = 1

# Of networks that are copied.
_OF_COPIES = ("copy", "fooled", "l1", "queries", "asked")

_MEASURED = pathlib.Path(__file__).parent / "measured"


def load_results(data):
    """The results that come with the package.

    Args:
        data: A data set: `"mnist"`, `"cifar10"` (a JPEG-recompressed copy),
            or `"digits"`, what `reproduce(quick=True)` finds.

    Returns:
        What `reproduce` writes as `results.json`, as a dictionary: the scale
        of the runs, the seeds, and for each figure its rows, each with what
        the paper prints, what was measured for each seed, and the worst case
        over adaptive attacks. Shares are from 0 to 1; `printed` is in percent.

    Raises:
        ValueError: If there are no results of that name.

    Example:

    >>> results = load_results("digits")
    >>> results["figures"]["fig9"]["rows"][0]["printed"]
    1.48
    """
    path = _MEASURED / f"{data}.json"
    if not path.is_file():
        known = sorted(p.stem for p in _MEASURED.glob("*.json"))
        raise ValueError(
            f"`data` must be one of {', '.join(known)}. Received: data={data!r}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def collect(names, scale, data, seeds, finished):
    """The rows of figures, filled in from a `runner.Finished`.

    Plain values; `load_results` says which.
    """
    descriptions = {
        values["data"]
        for cell, values in finished.values.items()
        if "data" in values and cells.network_of(cell).data == data
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "data": data,
        "description": ", ".join(sorted(descriptions)),
        "scale": {
            # As JSON gives it back.
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(scale).items()
        },
        "seeds": list(seeds),
        "versions": versions(),
        "figures": {
            name: _figure(FIGURES[name], scale, data, seeds, finished)
            for name in names
        },
    }


def _figure(figure, scale, data, seeds, finished):
    by_seed = {seed: figure.rows(Grid(scale, data, seed)) for seed in seeds}
    return {
        "title": figure.title,
        "paper": figure.paper,
        "kind": figure.kind,
        "rows": [
            _row(dict(zip(seeds, rows)), finished)
            for rows in zip(*by_seed.values())
        ],
    }


def _row(rows, finished):
    """One row from those of all seeds, `{seed: Row}`."""
    first = next(iter(rows.values()))

    def each(value):
        return {str(seed): value(row) for seed, row in rows.items()}

    def of(cell, what):
        return None if cell is None else finished.values.get(cell, {}).get(what)

    # An attack without a radius is judged by the distance it needs.
    distance = isinstance(first.worst, cells.Attacked)
    worst_field = first.worst.attack[-2:] if distance else "accuracy"
    kept = {
        "measured": lambda row: _value(
            row.cell, row.field, row.baseline, finished
        ),
        "worst": lambda row: (
            row.worst and _value(row.worst, worst_field, None, finished)
        ),
        "cell": lambda row: cells.key(row.cell),
        "thresholds": lambda row: of(cells.network_of(row.cell), "thresholds"),
    }
    names = ("clean", "blind", "distortion", "history")
    if isinstance(first.cell, cells.Extracted):
        kept["chosen"] = lambda row: of(row.cell.network, "chosen")
        names += _OF_COPIES
    return {
        "defence": first.defence,
        "setting": first.setting,
        "at": first.at,
        "printed": first.printed,
        "field": first.field,
        "claim": first.claim,
        "worst_field": worst_field,
        **{name: each(value) for name, value in kept.items()},
        **{
            name: each(lambda row, name=name: of(row.cell, name))
            for name in names
        },
        **{
            name: each(lambda row, name=name: of(row.worst, name))
            for name in ("broken", "failed_checks", "masks", "left")
        },
    }


def _value(cell, field, baseline, finished):
    """The figure a cell holds, or `None` if it failed."""
    values = finished.values.get(cell)
    if values is None:
        return None
    if field in ("agreement", "inference", "parameters"):
        return values.get("ratio" if field == "inference" else field)
    if field == "training":
        own, other = (_trained_in(c, finished) for c in (cell, baseline))
        return own / other if own and other else None
    if field == "gain":
        without = _value(baseline, "accuracy", None, finished)
        return None if without is None else values["accuracy"] - without
    if field != "accuracy":
        return values["distortion"] and values["distortion"][field]
    if isinstance(cell, cells.Network):
        return values["history"]["val_adv_accuracy"][-1]
    return values["accuracy"]


def _trained_in(network, finished):
    """Processor time of a network and of all it needs; `None`: unknown."""
    needed = cells.with_needs([network])
    found = [finished.values.get(c, {}) for c in needed]
    found = [values.get("processor_seconds") for values in found]
    return None if None in found else sum(found)
