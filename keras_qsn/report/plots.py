"""Plots of a comparison of defences."""

from matplotlib.figure import Figure

# Of Okabe and Ito, told apart by the colour-blind; by markers and dashes too.
_COLORS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7")
_MARKERS = "osD^vPX"
_DASHES = ("-", "--", "-.", ":")


def plot_accuracy(curves, chance, title):
    """Accuracy against eps: one panel per attack, one line per defence.

    Args:
        curves: `{attack: {defence: [(eps, accuracy), ...]}}`.
        chance: Accuracy of guessing, drawn as a dashed line.
        title: Text above the panels.

    Returns:
        A matplotlib `Figure`.
    """
    figure = Figure(figsize=(5.5 * len(curves), 4.2), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axis, (attack, lines) in zip(axes, curves.items()):
        for i, (defence, points) in enumerate(lines.items()):
            eps, accuracy = zip(*points)
            axis.plot(
                eps,
                [100 * a for a in accuracy],
                color=_COLORS[i % len(_COLORS)],
                linestyle=_DASHES[i % len(_DASHES)],
                marker=_MARKERS[i % len(_MARKERS)],
                markersize=4,
                label=defence,
            )
        axis.axhline(100 * chance, color="gray", linestyle="--", linewidth=1)
        axis.set_title(attack)
        axis.set_xlabel("eps (L-infinity)")
        axis.set_ylim(-3, 103)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy [%] (dashed: guessing)")
    axes[-1].legend(fontsize=8)
    return figure


def plot_images(rows, title):
    """A grid of images with a caption each.

    Args:
        rows: `{row title: [(caption, image), ...]}`, images in `[0, 1]`.
        title: Text above the grid.

    Returns:
        A matplotlib `Figure`.
    """
    num_columns = max(len(row) for row in rows.values())
    size = (1.25 * num_columns + 1.2, 1.5 * len(rows) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(rows), num_columns, squeeze=False)
    for axes, (name, row) in zip(grid, rows.items()):
        for axis in axes:
            axis.set_xticks([])
            axis.set_yticks([])
        for axis, (caption, image) in zip(axes, row):
            axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
            axis.set_title(caption, fontsize=7)
        axes[0].set_ylabel(
            name, fontsize=8, rotation=0, ha="right", va="center"
        )
    return figure
