"""An evaluation as a notebook shows it: the number, the table, the images."""

from keras_qsn._core.display import html_images
from keras_qsn._core.display import html_paragraph
from keras_qsn._core.display import html_table
from keras_qsn.report import summary
from keras_qsn.report import tables
from keras_qsn.report.pictures import pictures


def notebook_html(evaluation):
    """The evaluation in short, as HTML; the page has the rest."""
    header, rows = tables.attacks(evaluation)
    broke = [
        row[:6]
        for row, outcome in zip(rows, evaluation.outcomes)
        if len(outcome.broken)
    ]
    missed = len(rows) - len(broke)
    count = len(evaluation.y)
    lines = [
        f"Robust accuracy {summary.accuracy(evaluation.robust_accuracy, count)}"
        f", clean {summary.accuracy(evaluation.clean_accuracy, count)}: the "
        f"worst case of {len(rows)} attacks, "
        f"{summary.norm_name(evaluation.settings['norm'])} "
        f"{evaluation.settings['eps']:g}, on {count} images.",
        summary.verdict(evaluation)[1],
        f"{missed} of the attacks broke no further image.",
    ]
    shown = (
        (
            f"{summary.class_name(evaluation, picture.label)}, now "
            f"{summary.class_name(evaluation, picture.became)}",
            picture.views["adversarial"],
        )
        for picture in pictures(evaluation)
    )
    return (
        html_paragraph(lines[0])
        + html_paragraph(lines[1])
        + html_table(header[:6], broke)
        + html_paragraph(lines[2])
        + html_images(shown)
    )
