"""The report of an evaluation: JSON, Markdown, plots and a page."""

import pathlib

from keras_qsn._core.files import write_figure
from keras_qsn._core.files import write_json
from keras_qsn._core.files import write_text
from keras_qsn.report import charts
from keras_qsn.report import drawing
from keras_qsn.report import summary
from keras_qsn.report.markdown import to_markdown
from keras_qsn.report.page import html_page
from keras_qsn.report.pictures import pictures
from keras_qsn.report.plots import plot_images
from keras_qsn.report.schema import to_json

# By title.
_PLOTS = {
    "Which attack broke which image": "robustness_broken.png",
    "Accuracy against eps": "robustness_curve.png",
    "Accepted against rejected": "robustness_rejection.png",
    "Loss along the attack": "robustness_loss.png",
    "Broken images": "robustness_images.png",
}


def write_report(evaluation, folder, quantize=None):
    """Write an evaluation as files that a person reads and a program reads.

    Each is written whole or not at all. Plots that there is nothing for are
    left out, and removed where an earlier report left one.

    Args:
        evaluation: The `Evaluation`.
        folder: Where to, created if need be.
        quantize: Optional function from images to what the network behind
            its quantizer sees of them, for the pictures. Defaults to `None`.

    Returns:
        The paths: `robustness.json`, whose keys `to_json` documents;
        `robustness.md`; its plots; and `report.html`, one page with all of
        it that needs no other file.
    """
    folder = pathlib.Path(folder)
    shown = pictures(evaluation, quantize)
    figures = _figures(evaluation, shown)
    plots = {title: _PLOTS[title] for title in figures}
    data = to_json(evaluation)
    texts = {
        "robustness.md": to_markdown(evaluation, plots),
        "report.html": html_page(evaluation, shown),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for title, name in _PLOTS.items():
        if title in figures:
            write_figure(folder / name, figures[title])
        else:
            (folder / name).unlink(missing_ok=True)
    write_json(folder / "robustness.json", data)
    for name, text in texts.items():
        write_text(folder / name, text)
    names = ["robustness.json", "robustness.md", *plots.values(), "report.html"]
    return [folder / name for name in names]


def _figures(evaluation, shown):
    """Each plot's title and figure."""
    figures = {
        title: plot(evaluation) for title, plot in charts.of(evaluation).items()
    }
    if shown:
        figures["Broken images"] = _image_figure(evaluation, shown)
    return figures


def _image_figure(evaluation, shown):
    norm = summary.norm_name(evaluation.settings["norm"])
    rows = {title: [] for title in shown[0].views}
    for picture in shown:
        for title, view in picture.views.items():
            caption = {
                "clean": drawing.plain_label(
                    summary.class_name(evaluation, picture.label), 20
                ),
                "adversarial": drawing.plain_label(
                    f"now {summary.class_name(evaluation, picture.became)}", 20
                )
                + f"\n{drawing.plain_label(picture.attack, 20)}\n"
                f"{norm} {picture.distance:.3g}",
            }.get(title, "")
            rows[title].append((caption, view))
    return plot_images(
        rows, "Broken images; in the difference, grey is no change"
    )
