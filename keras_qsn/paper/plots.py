"""One plot for each figure, from its results."""

import numpy as np
from matplotlib.figure import Figure

from keras_qsn.paper.figures.table1 import COLUMNS
from keras_qsn.report.plots import plot_images

_COLORS = ("#0b5cad", "#c2410c", "#0f766e", "#7c3aed", "#92650a", "#475569")
_MARKERS = "osD^vP"


def plot(results, name, pictures=None):
    """Draw a figure from its results.

    Args:
        results: What `reproduce` or `load_results` returned.
        name: Name of the figure.
        pictures: Optional function of a cell's key, in the results of each
            row, that returns the arrays kept of it, or `None`; figures that
            show images are drawn as bars without it.

    Returns:
        A matplotlib `Figure`.

    Example:

    >>> figure = plot(load_results("digits"), "fig9")
    """
    figure = results["figures"][name]
    title = f"{figure['title']}: {results['description'] or results['data']}"
    rows, kind = figure["rows"], figure["kind"]
    rows = [row for row in rows if _mean(row["measured"]) is not None]
    if not rows:
        figure, axis = _axis(f"{title}: nothing was measured", 1)
        axis.remove()
        return figure
    if kind == "images" and pictures is not None:
        return _images(rows, title, pictures)
    kinds = {
        "curves": _curves,
        "epochs": _epochs,
        "table": _table,
        "copies": _copies,
    }
    draw = kinds.get(kind, _bars)
    return draw(rows, title)


def _bars(rows, title):
    """A bar for each row, its worst case in it, the printed figure across."""
    rows = [row for row in rows if row["field"] in ("accuracy", "gain")]
    figure, axis = _axis(title, 1.1 + 0.3 * len(rows))
    for place, row in enumerate(rows):
        value, color = 100 * _mean(row["measured"]), _color(row["setting"])
        axis.barh(place, value, 0.72, color=color, alpha=0.55)
        values = [100 * v for v in row["measured"].values() if v is not None]
        axis.plot([min(values), max(values)], [place] * 2, color="black")
        clean = _mean(row["clean"])
        if clean is not None and row["field"] == "accuracy":
            ends = [place - 0.36, place + 0.36]
            axis.plot([100 * clean] * 2, ends, color="gray")
        worst = _mean(row["worst"])
        if worst is not None and row["worst_field"] == "accuracy":
            # Nothing left is to be seen, too.
            axis.barh(place, max(100 * worst, 0.7), 0.3, color="#1b1f24")
        if row["printed"] is not None:
            axis.plot(
                row["printed"], place, marker="*", color="#c2410c", markersize=9
            )
        end = max(*values, 0)
        if row["printed"] is not None and end - 3 < row["printed"] < end + 9:
            end = max(end, row["printed"] + 1.5)
        axis.text(end + 1, place, f"{value:.1f}", va="center", fontsize=7)
    axis.set_yticks(
        range(len(rows)),
        [f"{row['defence']}: {row['setting']}" for row in rows],
        fontsize=8,
    )
    axis.invert_yaxis()
    axis.set_xlim(min(0, axis.get_xlim()[0]), 111)
    gains = any(row["field"] == "gain" for row in rows)
    axis.set_xlabel(
        "points gained"
        if gains
        else "accuracy [%]; grey: clean; black: worst case; star: paper; "
        "line: seeds"
    )
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    return figure


def _table(rows, title):
    """A square for each defence and attack: the darker, the more is left."""
    rows = [row for row in rows if row["field"] == "accuracy"]
    measured = {row["setting"] for row in rows}
    settings = [column for column in COLUMNS if column in measured]
    return _squares(rows, settings, title, "clean", "accuracy [%]")


def _copies(rows, title):
    """A square for each victim and thief: the darker, the better copied."""
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    return _squares(rows, settings, title, "victim right", "agreement [%]")


def _squares(rows, settings, title, clean, label):
    """A line for each defence: the clean accuracy, and each setting."""
    defences = list(dict.fromkeys(row["defence"] for row in rows))
    left = np.full((len(defences), 1 + len(settings)), np.nan)
    for row in rows:
        place = defences.index(row["defence"])
        left[place, 1 + settings.index(row["setting"])] = _mean(row["measured"])
        left[place, 0] = _mean(row["clean"])
    figure, axis = _axis(title, 1.4 + 0.3 * len(defences))
    axis.imshow(left, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    for (line, column), share in np.ndenumerate(left):
        if np.isfinite(share):
            text = f"{100 * share:.0f}"
            axis.text(column, line, text, ha="center", va="center", fontsize=8)
    axis.set_yticks(range(len(defences)), defences, fontsize=8)
    axis.set_xticks(
        range(1 + len(settings)),
        [clean, *settings],
        fontsize=8,
        rotation=30,
        ha="left",
    )
    axis.xaxis.tick_top()
    axis.set_xlabel(label)
    return figure


def _curves(rows, title):
    """A line for each defence, dashed for its worst case."""
    figure, axis = _axis(title)
    names = list(dict.fromkeys(row["defence"] for row in rows))
    for i, name in enumerate(names):
        style = {
            "color": _COLORS[i % len(_COLORS)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "markersize": 4,
        }
        for column, line in (("measured", "-"), ("worst", "--")):
            points = [
                (row["at"], 100 * _mean(row[column]))
                for row in rows
                if row["defence"] == name and _mean(row[column]) is not None
            ]
            if len(points) < sum(row["defence"] == name for row in rows):
                # Nothing is known of what lies between.
                line = "none"
            if points:
                label = name if column == "measured" else f"{name}, worst case"
                if line == "none":
                    style |= {"markersize": 8, "markerfacecolor": "none"}
                axis.plot(*zip(*points), linestyle=line, label=label, **style)
    places = [row["at"] for row in rows]
    if max(places) > 50 * min(places):
        axis.set_xscale("log")
    axis.set_xlabel("z" if max(places) > 1 else "eps (L-infinity)")
    axis.set_ylabel("accuracy [%]")
    axis.set_ylim(-3, 103)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, ncols=2)
    return figure


def _epochs(rows, title):
    """Accuracy on adversarial and clean images after each epoch."""
    figure, axis = _axis(title)
    rows = [row for row in rows if any(row["history"].values())]
    for row, color in zip(rows, _COLORS):
        for column, line in (("val_adv_accuracy", "-"), ("val_accuracy", ":")):
            runs = [h[column] for h in row["history"].values() if h]
            runs = 100 * np.array(runs)
            epochs = np.arange(1, runs.shape[1] + 1)
            what = "FGSM" if column == "val_adv_accuracy" else "clean"
            label = f"{row['defence']}, {what}"
            axis.plot(epochs, runs.mean(0), line, color=color, label=label)
            axis.fill_between(
                epochs, runs.min(0), runs.max(0), color=color, alpha=0.15
            )
    axis.set_xlabel("epoch")
    axis.set_ylabel("test accuracy [%]")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def _images(rows, title, pictures):
    """Clean and adversarial images, and what the network gets of them."""
    shown = {}
    for row in rows:
        kept = pictures(next(iter(row["cell"].values())))
        if kept is None:
            continue
        name = f"{row['defence']}\n{row['setting']}"
        shown[name] = image_row(kept, "attacked")
    return plot_images(shown, title)


def image_row(kept, attack):
    """Images before and after an attack, as `report.plot_images` takes them.

    From the arrays kept of an `Attacked` cell; `attack` is a word for it.
    """
    row = []
    for i in range(len(kept["x"])):
        row += [
            (f"clean: {kept['clean'][i]}", kept["x"][i]),
            ("as seen", kept["seen"][i]),
            (f"{attack}: {kept['prediction'][i]}", kept["x_adv"][i]),
            ("as seen", kept["seen_adv"][i]),
        ]
    return row


def _axis(title, height=4.2):
    figure = Figure(figsize=(7, height), layout="constrained")
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots()


def _mean(by_seed):
    values = [value for value in by_seed.values() if value is not None]
    return float(np.mean(values)) if values else None


def _color(setting):
    """White-box and black-box are told apart."""
    return _COLORS[2] if "black-box" in setting else _COLORS[0]
