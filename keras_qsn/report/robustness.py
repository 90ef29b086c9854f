"""The report of an evaluation: JSON, Markdown, plots and a page."""

import pathlib

from keras_qsn._core.files import write_figure
from keras_qsn._core.files import write_json
from keras_qsn._core.files import write_text
from keras_qsn.report import charts
from keras_qsn.report import summary
from keras_qsn.report.markdown import to_markdown
from keras_qsn.report.page import html_page
from keras_qsn.report.pictures import pictures
from keras_qsn.report.plots import plot_images
from keras_qsn.report.schema import to_json


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
    plots = {
        title: name
        for name, (title, figure) in figures.items()
        if figure is not None
    }
    data = to_json(evaluation)
    texts = {
        "robustness.md": to_markdown(evaluation, plots),
        "report.html": html_page(evaluation, shown),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, figure) in figures.items():
        if figure is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_figure(folder / name, figure)
    write_json(folder / "robustness.json", data)
    for name, text in texts.items():
        write_text(folder / name, text)
    names = ["robustness.json", "robustness.md", *plots.values(), "report.html"]
    return [folder / name for name in names]


def _figures(evaluation, shown):
    """File name of each plot, its title, and the figure or `None`."""
    return {
        "robustness_broken.png": (
            "Which attack broke which image",
            charts.plot_broken(evaluation) if evaluation.outcomes else None,
        ),
        "robustness_curve.png": (
            "Accuracy against eps",
            charts.plot_curve(evaluation) if evaluation.curve else None,
        ),
        "robustness_loss.png": (
            "Loss along the attack",
            charts.plot_trace(evaluation) if evaluation.trace else None,
        ),
        "robustness_images.png": (
            "Broken images",
            _image_figure(evaluation, shown) if shown else None,
        ),
    }


def _image_figure(evaluation, shown):
    norm = summary.norm_name(evaluation.settings["norm"])
    rows = {title: [] for title in shown[0].views}
    for picture in shown:
        for title, view in picture.views.items():
            caption = {
                "clean": f"class {picture.label}",
                "adversarial": f"{charts.plain_label(picture.attack, 20)}\n"
                f"{norm} {picture.distance:.3g}",
            }.get(title, "")
            rows[title].append((caption, view))
    return plot_images(
        rows, "Broken images; in the difference, grey is no change"
    )
