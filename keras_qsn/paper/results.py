"""Results: measured beside printed, as plain values and as tables."""

import dataclasses
import json
import pathlib

import numpy as np

from keras_qsn._core.kept import versions
from keras_qsn.paper import cells
from keras_qsn.paper.figures import FIGURES
from keras_qsn.paper.grid import Grid
from keras_qsn.report.markdown import markdown_table

SCHEMA_VERSION = 1

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
        "scale": {**dataclasses.asdict(scale), "data": list(scale.data)},
        "seeds": list(seeds),
        "versions": versions(),
        "figures": {
            name: _figure(FIGURES[name], scale, data, seeds, finished)
            for name in names
        },
    }


def table(results, name):
    """A figure's table.

    Args:
        results: What `reproduce` or `load_results` returned.
        name: Name of the figure.

    Returns:
        Header and rows, as text: defence, setting, accuracy on the images as
        they are, the paper's figure, what was measured (mean and range over
        seeds), the worst case, with a † where a check of that evaluation
        failed (see `failed_checks`). Of `"table1"` a row for each defence:
        accuracy as it is and under each attack; times of training and of an
        answer, as multiples of the undefended network's; trainable
        parameters; what its own paper claims; the layers that the evaluation
        found to hide their gradient.

    Example:

    >>> header, rows = table(load_results("digits"), "fig9")
    >>> rows[0][:4]
    ['none', 'white-box', '94.0 %', '1.48 %']
    """
    if results["figures"][name]["kind"] == "table":
        return lines(results["figures"][name]["rows"])
    header = [
        "defence",
        "setting",
        "clean",
        "paper",
        "measured",
        "worst case",
    ]
    rows = []
    for row in results["figures"][name]["rows"]:
        setting = row["setting"]
        if row["at"] is not None:
            setting += f", {row['at']:g}"
        printed = row["printed"]
        rows.append(
            [
                row["defence"],
                setting,
                spread(row["clean"], "accuracy"),
                "–" if printed is None else f"{printed:g} %",
                spread(row["measured"], row["field"]),
                spread(row["worst"], row["worst_field"])
                + (" †" if _failed(row) else ""),
            ]
        )
    return header, rows


def failed_checks(results, name):
    """Which checks of the worst cases in a figure's table failed.

    Args:
        results: What `reproduce` or `load_results` returned.
        name: Name of the figure.

    Returns:
        Sorted list of names of checks, over all rows and seeds. `"gradients
        are there"` says that white-box attacks on the network itself were
        blind: then the adaptive and the black-box ones count.

    Example:

    >>> failed_checks(load_results("digits"), "fig6")
    ['gradients are there']
    """
    rows = results["figures"][name]["rows"]
    return sorted({check for row in rows for check in _failed(row)})


def _failed(row):
    by_seed = row["failed_checks"].values()
    return {check for failed in by_seed for check in failed or ()}


def to_markdown(results):
    """All figures' tables as Markdown."""
    scale = results["scale"]
    parts = [
        f"# {results['description'] or results['data']}\n",
        f"Seeds {', '.join(map(str, results['seeds']))} (one of them where no "
        "range is given); one-step attacks on "
        f"up to {scale['images']} test images, worst case on up to "
        f"{scale['worst_images']}, slow attacks and sweeps on "
        f"{scale['few_images']}. Worst case: per image, over the quick plan "
        "(FGSM, PGD, APGD, transfer, cube, BPDA, soft surrogates, Square), or "
        "the attack on the levels themselves where there is no radius.\n",
    ]
    for name, figure in results["figures"].items():
        parts.append(f"## {name}: {figure['title']}\n")
        parts.append(f"Paper: {figure['paper']}\n")
        parts.append(markdown_table(*table(results, name)) + "\n")
        failed = failed_checks(results, name)
        if failed:
            parts.append(f"† Failed checks: {', '.join(failed)}.\n")
        parts.append(f"![{figure['title']}]({name}.png)\n")
    return "\n".join(parts)


def spread(by_seed, field):
    """Mean over seeds, and the range where there are several."""
    values = [value for value in by_seed.values() if value is not None]
    if not values:
        return "–"
    before, scale, digits, unit = {
        "accuracy": ("", 100, ".1f", " %"),
        "gain": ("", 100, "+.1f", " points"),
        "training": ("", 1, ".1f", " ×"),
        "inference": ("", 1, ".1f", " ×"),
        "parameters": ("", 1, ",.0f", ""),
    }.get(field, (f"{field} ", 1, ".2f", ""))

    def number(value):
        return format(scale * value, digits)

    text = before + number(float(np.mean(values))) + unit
    if len(values) > 1:
        text += f" ({number(min(values))} to {number(max(values))})"
    return text


def lines(rows):
    """Rows as a table of one line for each defence."""
    by_defence = {}
    for row in rows:
        by_defence.setdefault(row["defence"], {})[row["setting"]] = row
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    header = ["defence", "clean", *settings, "its own paper", "masks"]
    lines = []
    for defence, line in by_defence.items():
        cells = [spread(row["measured"], row["field"]) for row in line.values()]
        first, last = (next(iter(it)) for it in (
            line.values(), reversed(line.values())
        ))
        place = settings.index("worst case")
        cells[place] += " †" if _failed(first) else ""
        masks = {m for found in first["masks"].values() for m in found or ()}
        clean = spread(first["clean"], "accuracy")
        told = [last["claim"] or "–", ", ".join(sorted(masks)) or "–"]
        lines.append([defence, clean, *cells, *told])
    return header, lines


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
            for name in ("clean", "blind", "distortion", "history")
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
    if field in ("inference", "parameters"):
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
    """Seconds that a network took, and all that it needs; `None` unknown."""
    needed = cells.with_needs([network])
    found = [finished.values.get(c, {}).get("seconds") for c in needed]
    return None if None in found else sum(found)
