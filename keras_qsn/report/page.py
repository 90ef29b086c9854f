"""An evaluation as one HTML page that needs nothing else."""

import importlib.resources
import string

from keras_qsn.evaluation.masking import masking
from keras_qsn.evaluation.outcome import interval
from keras_qsn.report import charts
from keras_qsn.report import elements
from keras_qsn.report import rows
from keras_qsn.report import summary
from keras_qsn.report.elements import escape
from keras_qsn.report.pictures import drawable
from keras_qsn.report.tables import percent
from keras_qsn.report.tables import percent_range

# Nothing may be loaded and nothing may run, whatever the text says.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_PAGE = string.Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Robustness of $model</title>
<style>
$style</style>
</head>
<body>
<main>
$content
</main>
</body>
</html>
"""
)

_HEADLINE = string.Template(
    """<header>
<p class="kind">Robustness report</p>
<h1><bdi>$model</bdi></h1>
$data</header>
<section class="headline" aria-labelledby="result">
<h2 id="result">Robust accuracy</h2>
<p class="number">$robust <small>$robust_range</small></p>
<p>The worst case over all attacks, image by image: at most this is robust.
Clean accuracy is <strong>$clean</strong> <small>($clean_range)</small>.</p>
$scale
<dl class="facts">
$facts
</dl>
<p class="verdict $status">$icon<span>$verdict</span></p>
</section>"""
)


def html_page(evaluation, pictures):
    """The page as text.

    Args:
        evaluation: The `Evaluation`.
        pictures: A list of `Picture`.
    """
    section, paragraph = elements.section, elements.paragraph
    content = [
        _headline(evaluation),
        section(
            "Attacks",
            paragraph(masking(evaluation)),
            _attacks(evaluation),
        ),
        section("Checks", _checks(evaluation)),
        section("Which attack broke which image", _broken(evaluation)),
        section("Accuracy against eps", _curve(evaluation)),
        section("Loss along the attack", _trace(evaluation)),
        section("Broken images", _pictures(evaluation, pictures)),
        section(
            "Settings and versions",
            elements.table(*rows.settings(evaluation), "settings"),
        ),
        section("How to read this page", elements.bullets(summary.READING)),
    ]
    return _PAGE.substitute(
        policy=_POLICY,
        model=escape(evaluation.settings["model"]),
        style=_style(),
        content="\n".join(content),
    )


def _headline(evaluation):
    count = len(evaluation.y)
    clean, robust = evaluation.clean_accuracy, evaluation.robust_accuracy
    data = evaluation.settings.get("data_name")
    status, sentence = summary.verdict(evaluation)
    return _HEADLINE.substitute(
        model=escape(evaluation.settings["model"]),
        data=f'<p class="data"><bdi>{escape(data)}</bdi></p>\n' if data else "",
        robust=escape(percent(robust)),
        robust_range=_range(robust, count),
        clean=escape(percent(clean)),
        clean_range=_range(clean, count),
        scale=_scale({"robust": robust, "clean": clean}, count),
        facts="\n".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in summary.facts(evaluation)
        ),
        status=status,
        icon=elements.icon(status),
        verdict=escape(sentence),
    )


def _range(share, count):
    return escape(f"95 % interval {percent_range(*interval(share, count))}")


def _scale(shares, count):
    """Accuracies and their intervals on a line from 0 to 100 %."""
    marks = ""
    for name, share in shares.items():
        low, high = (100 * end for end in interval(share, count))
        place = f"left:{low:.2f}%;width:{high - low:.2f}%"
        marks += (
            f'<i class="{name}" style="{place}"></i>'
            f'<b class="{name}" style="left:{100 * share:.2f}%"></b>'
        )
    key = "".join(f'<span class="{name}">{name}</span>' for name in shares)
    return (
        f'<div class="scale" aria-hidden="true"><div>{marks}</div>'
        f"<p><span>0 %</span>{key}<span>100 %</span></p></div>"
    )


def _attacks(evaluation):
    if not evaluation.outcomes:
        return elements.paragraph("None was run.")
    header, lines = rows.attacks(evaluation)
    # The parameters are long: below the name they need no column.
    cells = [
        [
            f"<bdi>{escape(name)}</bdi><small>{escape(parameters)}</small>",
            *map(escape, rest),
        ]
        for name, *rest, parameters in lines
    ]
    return elements.html_table(header[:-1], cells, "attacks")


def _broken(evaluation):
    if not evaluation.outcomes:
        return elements.paragraph("No attack was run.")
    return elements.chart(
        charts.plot_broken,
        evaluation,
        "Which attack broke which image",
        "A row for each attack, a column for each image. Thick: broken. Thin: "
        "tried and not broken. Blank: not run, since the image was wrong or "
        "broken already, or beyond the attack's limit of images.",
    )


def _checks(evaluation):
    if not evaluation.checks:
        return elements.paragraph("None was run.")
    header, lines = rows.checks(evaluation)
    cells = []
    for check, row in zip(evaluation.checks, lines):
        number, name, status, value, meaning, attack = map(escape, row)
        name = f'<span id="check-{escape(check.key)}">{name}</span>'
        # The attack is long: below the name it needs no column.
        name += f"<small>{attack}</small>" if attack else ""
        status = (
            f'<span class="status {check.status}">{elements.icon(check.status)}'
            f"{status}</span>"
        )
        cells.append([number, name, status, value, meaning])
    return elements.html_table(header[:-1], cells, "checks")


def _curve(evaluation):
    if not evaluation.curve:
        return elements.paragraph("Not measured at other radii.")
    count = evaluation.settings.get("curve_images")
    measured = (
        f"Measured on {count} images; the bands are 95 % intervals."
        if count
        else "On how many images is not known, so without intervals."
    )
    chart = elements.chart(
        charts.plot_curve,
        evaluation,
        "Accuracy against eps",
        f"{measured} The star is the worst case over all attacks and its "
        "interval. Accuracy must fall to that of guessing as eps grows; "
        "where it does not, the attack is too weak.",
    )
    table = elements.table(*rows.curve(evaluation), "curve")
    return f'<div class="beside">{chart}{table}</div>'


def _trace(evaluation):
    if not evaluation.trace:
        return elements.paragraph("Not traced.")
    return elements.chart(
        charts.plot_trace,
        evaluation,
        "Loss along the attack",
        "Mean over the images. A loss still rising at the last step says "
        "that the attack needs more of them.",
    )


def _pictures(evaluation, pictures):
    if not drawable(evaluation):
        return elements.paragraph(
            "The inputs are no images of one or three channels."
        )
    if not pictures:
        return elements.paragraph("No image was broken.")
    norm = summary.norm_name(evaluation.settings["norm"])
    shown = []
    for picture in pictures:
        name = f"Image {picture.index}, class {picture.label}"
        views = "".join(
            f'<li><img alt="{escape(f"{name}, {title}")}" '
            f'src="{elements.png(view)}"><span>{escape(title)}</span></li>'
            for title, view in picture.views.items()
        )
        shown.append(
            f'<figure class="picture"><figcaption><strong>{name}</strong> '
            f"broken by <bdi>{escape(picture.attack)}</bdi>, "
            f"{norm}&nbsp;{picture.distance:.3g}</figcaption>"
            f"<ul>{views}</ul></figure>"
        )
    return elements.paragraph(
        "The first images of each attack. In the difference, grey is no "
        "change; its scale is the same in all."
    ) + '<div class="pictures">{}</div>'.format("".join(shown))


def _style():
    folder = importlib.resources.files("keras_qsn.report")
    return (folder / "page.css").read_text(encoding="utf-8")
