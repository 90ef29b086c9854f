"""What charts are drawn with: grounds, lines, legends, names."""

import dataclasses

from matplotlib.figure import Figure

# Inches: as wide as a phone, so that letters are legible there.
_WIDTH = 4.0


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a chart.

    Args:
        ground: Behind everything.
        ink: Of text.
        line: Of axes and grid.
        broke: Of images an attack broke.
        held: Of images it did not break.
        lines: Of one curve after the other.
    """

    ground: str
    ink: str
    line: str
    broke: str
    held: str
    lines: tuple


LIGHT = Theme(
    ground="#ffffff",
    ink="#3d4650",
    line="#d5dae0",
    broke="#c2410c",
    held="#8fb3d9",
    lines=("#0b5cad", "#c2410c", "#0f766e", "#7c3aed", "#92650a", "#475569"),
)
DARK = Theme(
    ground="#1b1f24",
    ink="#c3cbd3",
    line="#3a424b",
    broke="#ff9d6b",
    held="#4d7299",
    lines=("#6cb6ff", "#ff9d6b", "#4fd1c0", "#c4a7ff", "#e3b341", "#a8b3bf"),
)

THEMES = {"light": LIGHT, "dark": DARK}

# Told apart without colours, too.
_MARKERS = "osD^vP"
_DASHES = ("-", "--", "-.", ":")


def chart(height, theme):
    """A figure of so many inches, and its axis."""
    figure = Figure(
        figsize=(_WIDTH, height), layout="constrained", facecolor=theme.ground
    )
    axis = figure.subplots()
    axis.set_facecolor("none")
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(theme.line)
    axis.tick_params(color=theme.line, labelcolor=theme.ink, labelsize=8.5)
    axis.xaxis.label.set(color=theme.ink, fontsize=9)
    axis.yaxis.label.set(color=theme.ink, fontsize=9)
    axis.grid(color=theme.line, linewidth=0.6)
    axis.set_axisbelow(True)
    return figure, axis


def styles(theme, count):
    """Colour, marker and dashes of each of `count` lines."""
    return [
        {
            "color": theme.lines[i % len(theme.lines)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "linestyle": _DASHES[i % len(_DASHES)],
            "markersize": 4,
            "linewidth": 1.6,
        }
        for i in range(count)
    ]


def legend(figure, theme):
    """Names of the lines, above the axis."""
    figure.legend(
        loc="outside upper left",
        ncols=2,
        frameon=False,
        fontsize=8.5,
        labelcolor=theme.ink,
    )


def plain_label(name, length=30):
    """A name as matplotlib shows it: no formula, not hidden, not too long."""
    name = shortened(name, length).replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def shortened(text, length):
    """A text of at most so many letters."""
    return text if len(text) <= length else text[: length - 1] + "…"
