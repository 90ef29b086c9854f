"""Charts of an evaluation, on light and on dark ground.

Each is as wide as a phone, so that its letters are legible there.
"""

import numpy as np

from keras_qsn._core.shares import wilson_interval
from keras_qsn.report import drawing
from keras_qsn.report.summary import norm_name


def of(evaluation):
    """The charts that there is something to show in, `{title: function}`."""
    shown = {
        "Which attack broke which image": (plot_broken, _broke(evaluation)),
        "Accuracy against eps": (plot_curve, evaluation.curve),
        "Accepted against rejected": (
            plot_rejection,
            evaluation.rejection_curve(),
        ),
        "Loss along the attack": (plot_trace, evaluation.trace),
    }
    return {title: plot for title, (plot, data) in shown.items() if data}


def plot_curve(evaluation, theme=drawing.LIGHT):
    """Accuracy against eps, a line for each attack, with 95 % intervals.

    The worst case over all attacks stands beside them, at its eps: of all
    images, and of the few that the lines are of.
    """
    settings = evaluation.settings
    figure, axis = drawing.chart(3.1, theme)
    count = settings.get("curve_images")
    for style, (name, points) in zip(
        drawing.styles(theme, len(evaluation.curve)), evaluation.curve.items()
    ):
        eps, share = np.array(sorted(map(tuple, points))).T
        axis.plot(eps, 100 * share, label=drawing.plain_label(name), **style)
        if count:
            low, high = np.array([wilson_interval(s, count) for s in share]).T
            axis.fill_between(
                eps,
                100 * low,
                100 * high,
                color=style["color"],
                alpha=0.14,
                linewidth=0,
            )
    worst = evaluation.robust_accuracy
    low, high = wilson_interval(worst, len(evaluation.y))
    axis.errorbar(
        settings["eps"],
        100 * worst,
        100 * np.array([[max(worst - low, 0)], [max(high - worst, 0)]]),
        color=theme.ink,
        marker="*",
        markersize=10,
        capsize=3,
        zorder=3,
        linestyle="none",
        label="worst case",
    )
    of_few = worst_of_curve(evaluation)
    if of_few is not None:
        axis.plot(
            settings["eps"],
            100 * of_few,
            color=theme.ink,
            marker="*",
            markersize=10,
            markerfacecolor="none",
            zorder=3,
            linestyle="none",
            label=f"worst case, {count} images",
        )
    _spread(axis, evaluation)
    axis.set_xlabel(f"eps ({norm_name(settings['norm'])})")
    axis.set_ylabel("accuracy [%]")
    axis.set_ylim(-3, 103)
    drawing.legend(figure, theme)
    return figure


def plot_rejection(evaluation, theme=drawing.LIGHT):
    """Accuracy of accepted attacked images against the share of the images
    that are rejected as they are, for other thresholds of the detector."""
    figure, axis = drawing.chart(2.7, theme)
    points = [p for p in evaluation.rejection_curve() if p["accepted"]]
    for style, (key, label) in zip(
        drawing.styles(theme, 2),
        (("accuracy", "accepted ones that are right"), ("share", "accepted")),
    ):
        count = len(evaluation.y)
        axis.plot(
            [100 * p["clean_rejected"] for p in points],
            [100 * {**p, "share": p["accepted"] / count}[key] for p in points],
            label=label,
            **{**style, "marker": None},
        )
    rejected = 100 * evaluation.detection.rejected.mean()
    axis.axvline(rejected, color=theme.ink, linewidth=0.8, label="threshold")
    axis.set_xlabel("images rejected as they are [%]")
    axis.set_ylabel("attacked images [%]")
    axis.set_ylim(-3, 103)
    drawing.legend(figure, theme)
    return figure


def plot_models(curves, worst, norm, theme=drawing.LIGHT):
    """Accuracy against eps, a line for each model.

    Args:
        curves: `{name: [(eps, accuracy), ...]}`, some or none.
        worst: `{name: (eps, accuracy, low, high)}`: points with an interval.
        norm: Of eps, as people write it.
        theme: A `Theme`. Defaults to that of light ground.

    Returns:
        A matplotlib `Figure`.
    """
    names = [*dict.fromkeys([*curves, *worst])]
    # A legend has a line for two names.
    figure, axis = drawing.chart(2.5 + 0.2 * ((len(names) + 1) // 2), theme)
    for style, name in zip(drawing.styles(theme, len(names)), names):
        label = {"label": drawing.plain_label(name, 22)}
        if curves.get(name):
            eps, share = np.array(curves[name]).T
            axis.plot(eps, 100 * share, **style, **label)
            label = {}
        if name in worst:
            eps, share, low, high = worst[name]
            axis.errorbar(
                eps,
                100 * share,
                100 * np.array([[max(share - low, 0)], [max(high - share, 0)]]),
                **{**style, "linestyle": "none", "markersize": 7},
                capsize=3,
                zorder=3,
                **label,
            )
    axis.set_xlabel(f"eps ({norm})")
    axis.set_ylabel("accuracy [%]")
    axis.set_ylim(-3, 103)
    drawing.legend(figure, theme)
    return figure


def worst_of_curve(evaluation):
    """The worst case of the images that the curves are of, as they count.

    These are the first of the right ones, of which the curves take the share
    of all right ones; `None` where that are all, or their number is unknown.
    """
    count = evaluation.settings.get("curve_images")
    if not count or count >= evaluation.correct.sum():
        return None
    few = np.flatnonzero(evaluation.correct)[:count]
    return evaluation.clean_accuracy * float(evaluation.robust[few].mean())


def _spread(axis, evaluation):
    """Give the radii up to eps as much room as those above, if few have it."""
    eps = evaluation.settings["eps"]
    radii = sorted(
        {radius for points in evaluation.curve.values() for radius, _ in points}
    )
    if radii[-1] <= 5 * eps:
        return
    axis.set_xscale("symlog", linthresh=eps)
    ticks = [r for r in radii if not 0 < r < eps / 3]
    axis.set_xticks(ticks, [f"{radius:.2g}" for radius in ticks])
    axis.set_xticks([], minor=True)


def plot_trace(evaluation, theme=drawing.LIGHT):
    """Mean loss along each attack that was traced; arguments as above."""
    figure, axis = drawing.chart(2.7, theme)
    for style, (name, loss) in zip(
        drawing.styles(theme, len(evaluation.trace)), evaluation.trace.items()
    ):
        axis.plot(
            loss, label=drawing.plain_label(name), **{**style, "marker": None}
        )
    axis.set_xlabel("step")
    axis.set_ylabel("mean loss")
    drawing.legend(figure, theme)
    return figure


def plot_broken(evaluation, theme=drawing.LIGHT):
    """Which attack broke which image; arguments as for `plot_curve`.

    A row for each attack that broke any, a column for each image, in the
    order in which images fell: a thick bar where the attack broke it, a thin
    one where it was run and did not, nothing where it was not run.
    """
    outcomes = _broke(evaluation)
    column = _columns(evaluation)
    figure, axis = drawing.chart(0.9 + 0.36 * len(outcomes), theme)
    for row, outcome in enumerate(outcomes):
        for numbers, height, color in (
            (np.setdiff1d(outcome.tried, outcome.broken), 0.12, theme.held),
            (outcome.broken, 0.44, theme.broke),
        ):
            axis.broken_barh(
                _runs(column[numbers]),
                (row - height / 2, height),
                facecolor=color,
                # Keeps one image among thousands visible.
                edgecolor=color,
                linewidth=0.4,
            )
        text = f"broke {len(outcome.broken)} of {len(outcome.tried)}"
        for place, side, words in (
            (0, "left", drawing.plain_label(outcome.step.name)),
            (1, "right", text),
        ):
            axis.text(
                place,
                row - 0.3,
                words,
                transform=axis.get_yaxis_transform(),
                ha=side,
                va="bottom",
                fontsize=8.5,
                color=theme.ink,
            )
    axis.set_xlim(0, len(evaluation.y))
    axis.set_ylim(len(outcomes) - 0.5, -0.75)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.grid(False)
    axis.set_xlabel("images, in the order in which they fell")
    return figure


def _broke(evaluation):
    return [o for o in evaluation.outcomes if len(o.broken)]


def _columns(evaluation):
    """The place of each image: wrong ones, broken ones, robust ones."""
    fell = np.where(evaluation.correct, len(evaluation.outcomes), -1)
    for i, outcome in enumerate(evaluation.outcomes):
        fell[outcome.broken] = i
    column = np.empty(len(fell), int)
    column[np.argsort(fell, kind="stable")] = np.arange(len(fell))
    return column


def _runs(columns):
    """Start and length of each run of columns side by side."""
    columns = np.sort(columns)
    if not len(columns):
        return []
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    return [(run[0], len(run)) for run in runs]
