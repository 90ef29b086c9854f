"""Results as tables of text."""

import numpy as np

from keras_qsn.paper.figures.table1 import COLUMNS
from keras_qsn.paper.figures.table1 import ENTRIES
from keras_qsn.report.markdown import markdown_table

# A limitation holds where less than this part of the clean accuracy is left.
_HALF = 0.5

# What seeds need not change has no range where they don't.
_COUNTS = ("parameters", "queries")

# What an attack without a radius is judged by, beside what it leaves.
_DISTANCES = {"CW-L2": "L2", "CW-L2, full search": "L2", "JSMA": "L0"}


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
        found to hide their gradient. Of `"extraction"` a row for each copy:
        the victim, with the defence of its answers; the thief, which answers
        it saw, to which images; how many it asked for; agreement with the
        victim on the test set; accuracy of copy and victim; how often the
        victim falls for adversarial images of the copy; the mean L1 distance
        of the answers from those of the undefended float network.

    Example:

    >>> header, rows = table(load_results("digits"), "fig9")
    >>> rows[0][:4]
    ['none', 'white-box', '94.0 %', '1.48 %']
    """
    by_line = {"table": _lines, "copies": _copies}
    kind = results["figures"][name]["kind"]
    if kind in by_line:
        return by_line[kind](results["figures"][name]["rows"])
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
        copies = figure["kind"] == "copies"
        align = ("llrrrrrr",) if copies else ()
        parts.append(markdown_table(*table(results, name), *align) + "\n")
        if figure["kind"] == "table":
            parts.append(
                f"Worst case: {scale['table_plan']} plan, up to "
                f"{scale['table_images']} images. * reconstructions.\n"
            )
            parts.append("Which of the published limitations hold?\n")
            parts.append(markdown_table(*limitations(results), "lllr") + "\n")
        if copies:
            parts.append(_on_copies(results) + "\n")
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
        "agreement": ("", 100, ".1f", " %"),
        "gain": ("", 100, "+.1f", " points"),
        "training": ("", 1, ".1f", " ×"),
        "inference": ("", 1, ".1f", " ×"),
        "parameters": ("", 1, ",.0f", ""),
        "queries": ("", 1, ",.0f", ""),
        "l1": ("", 1, ".3f", ""),
    }.get(field, (f"{field} ", 1, ".2f", ""))

    def number(value):
        return format(scale * value, digits)

    text = before + number(float(np.mean(values))) + unit
    alike = field in _COUNTS and min(values) == max(values)
    if len(values) > 1 and not alike:
        text += f" ({number(min(values))} to {number(max(values))})"
    return text


def limitations(results):
    """Which limitations that Table 1 of the paper names hold, as measured.

    One holds if, of the images that are right as they are, an attack of that
    kind leaves fewer than half: each is read off the columns of `table1` that
    show it, the lowest where there are several. Attacks on a GAN, which go
    through it, are its worst case; unknown attacks are those not trained on.

    Args:
        results: What `reproduce` or `load_results` returned.

    Returns:
        Header and rows, as text: defence, limitation, `"yes"` or `"no"`, and
        the figure behind it. Of attacks without a radius, which go as far as
        they must, it has the median distance, and the undefended network's.

    Raises:
        ValueError: If `results` does not hold that figure.

    Example:

    >>> header, rows = limitations(load_results("digits"))
    >>> header
    ['defence', 'limitation', 'holds', 'measured']

    Limitations:
        But for the worst case, attacks are those that the papers ran: they do
        not know of a detector, and a `"no"` is no robustness.

    Reference:
        - Ali et al., 2018, Table 1: https://arxiv.org/abs/1811.01437
    """
    if "table1" not in results["figures"]:
        raise ValueError(
            "`results` must hold the figure 'table1', which "
            '`reproduce(only=["table1"])` measures. Received: results of '
            f"{', '.join(results['figures'])}"
        )
    by_defence = _by_defence(results["figures"]["table1"]["rows"])
    plain, rows = by_defence["undefended"], []
    for defence, line in by_defence.items():
        for limitation, columns in ENTRIES[defence].limitations.items():
            there = [c for c in columns if c in line]
            left = {c: _mean(line[c]["measured"].values()) for c in there}
            left = {c: share for c, share in left.items() if share is not None}
            if not left:
                rows.append([defence, limitation, "not measured", "–"])
                continue
            column = min(left, key=left.get)
            clean = _mean(line[column]["clean"].values())
            holds = "yes" if left[column] < _HALF * clean else "no"
            text = f"{column} leaves {100 * left[column]:.1f} % of "
            text += f"{100 * clean:.1f} %"
            if column in _DISTANCES:
                norm = _DISTANCES[column]
                far = _distance(line[column], norm)
                other = _distance(plain.get(column), norm)
                text += f", at a median {norm} of {far:.2f}" if far else ""
                text += f" (undefended {other:.2f})" if far and other else ""
            rows.append([defence, limitation, holds, text])
    return ["defence", "limitation", "holds", "measured"], rows


def _by_defence(rows):
    """Rows by defence and by setting."""
    found = {}
    for row in rows:
        found.setdefault(row["defence"], {})[row["setting"]] = row
    return found


def _lines(rows):
    """Header and rows of a table with one line for each defence."""
    measured = {row["setting"] for row in rows}
    settings = [column for column in COLUMNS if column in measured]
    lines = []
    for defence, line in _by_defence(rows).items():
        cells = {s: spread(r["measured"], r["field"]) for s, r in line.items()}
        row = line["worst case"]
        cells["worst case"] += " †" if _failed(row) else ""
        masks = {m for found in row["masks"].values() for m in found or ()}
        lines.append(
            [
                defence,
                spread(row["clean"], "accuracy"),
                *(cells.get(setting, "–") for setting in settings),
                row["claim"] or "–",
                ", ".join(sorted(masks)) or "–",
            ]
        )
    return ["defence", "clean", *settings, "its own paper", "masks"], lines


# Of copies: the title of a column, what is in it, and how it is printed.
_OF_COPIES = {
    "queries": ("queries", "queries"),
    "agreement": ("measured", "agreement"),
    "copy right": ("copy", "accuracy"),
    "victim right": ("clean", "accuracy"),
    "victim fooled": ("fooled", "accuracy"),
    "answers moved": ("l1", "l1"),
}


def _copies(rows):
    """Header and rows of a table with one line for each copy."""
    lines = [
        [row["defence"], row["setting"]]
        + [spread(row[name], field) for name, field in _OF_COPIES.values()]
        for row in rows
    ]
    return ["victim", "thief, answers, images", *_OF_COPIES], lines


def _on_copies(results):
    """What the table of copies leaves out."""
    scale, rows = results["scale"], results["figures"]["extraction"]["rows"]
    outside = {
        words
        for row in rows
        if row["setting"].endswith("outside")
        for words in row["asked"].values()
        if words
    }
    weights = {
        seed: chosen["weight"]
        for row in rows
        for seed, chosen in row["chosen"].items()
        if chosen and "weight" in chosen
    }
    told = [f"{weight:g} (seed {seed})" for seed, weight in weights.items()]
    return (
        f"Victims are trained on {scale['victim_images']:,} images, copies of "
        "their architecture on the answers; agreement is on all test images. "
        "Fooled: PGD with 10 steps, on up to 1,000 of them. Moved: mean L1 "
        "distance to the answers of the undefended float network. Images "
        f"outside: {', '.join(sorted(outside)) or 'not measured'}. Weight of "
        f"DivQAT, chosen on held-out images: {', '.join(told) or 'none'}."
    )


def _distance(row, norm):
    """The median over images of a distance, its mean over seeds."""
    if row is None:
        return None
    found = [each[norm] for each in row["distortion"].values() if each]
    return _mean(found)


def _mean(values):
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None
