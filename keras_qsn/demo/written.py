"""The demo's results as files: Markdown, plots, a page."""

from keras_qsn import report
from keras_qsn._core.files import write_bytes
from keras_qsn.demo.results import COLUMNS
from keras_qsn.paper.figures import showcase
from keras_qsn.paper.plots import image_row

PAGE = "demo.html"
_SEEN = (
    " with the predicted class; as seen: what the network gets behind its "
    "quantizer"
)


def write(results, grid, columns, finished, out):
    """Write all files of the demo to a folder."""
    for name, network in showcase.defences(grid).items():
        path = out / f"{name.replace(' ', '-')}.keras"
        write_bytes(path, finished.kept.content(network))
    report.write_text(out / "results.md", _markdown(results))
    report.write_figure(out / "accuracy.png", _accuracy_figure(results))
    images = _images(columns, finished)
    figure = report.plot_images(images, f"Clean and PGD images{_SEEN}")
    report.write_figure(out / "images.png", figure)
    report.write_json(out / "results.json", results)
    report.write_text(out / PAGE, _page(results, images))


def table(results):
    """Header and rows of the demo's table, as text."""
    header = ["defence", *COLUMNS.values()]
    rows = [
        [name, *(_number(measured[column]) for column in COLUMNS)]
        for name, measured in results["defences"].items()
    ]
    return header, rows


def _number(share):
    """A share in percent: with a sign in each cell, 80 columns are too few."""
    return report.percent(share).removesuffix(" %")


def caption(results):
    """What the table's figures were measured on."""
    s, images = results["settings"], results["images"]
    return (
        f"Accuracy in percent, of {images['test']} test images of "
        f"{results['data']}, drawn by seed {s['seed']}; L-infinity, eps "
        f"{s['eps']}. PGD: "
        f"{s['nb_iter']} steps, one random start, through the exact gradient. "
        "Transfer: FGSM and PGD examples of the undefended network. Adaptive: "
        "PGD through the quantizer as if it were the identity (BPDA), and "
        "CubeAttack, on the levels behind it. Worst case: per image, over all "
        f"of these. Proved: for the first {images['proved']} of the images, "
        f"with at most {s['proof_seconds']} s of search for each; the truth "
        "lies between it and the worst case."
    )


def _markdown(results):
    notes, read = (
        "".join(f"- {line}\n" for line in results[key])
        for key in ("notes", "conclusions")
    )
    return (
        "# keras-qsn demo\n\n"
        f"{report.markdown_table(*table(results))}\n\n"
        f"{caption(results)}\n\n"
        + (f"Where PGD says too much:\n\n{notes}\n" if notes else "")
        + f"What to read off:\n\n{read}\n"
        + "![accuracy against eps](accuracy.png)\n\n"
        "![clean and adversarial images](images.png)\n"
    )


def _page(results, images):
    curves = {
        f"White-box {attack}": (lines, {}, "L∞")
        for attack, lines in _curves(results).items()
    }
    return report.comparison_page(
        caption(results),
        table(results),
        {
            "What to read off": results["conclusions"],
            "Where PGD says too much": results["notes"],
        },
        curves,
        f"White-box attacks alone, on {_swept(results)} of the images; the "
        "table has the worst case.",
        kind="keras-qsn demo",
        title="What is quantization worth?",
        lines=[results["data"], report.made()],
        pictures=images,
    )


def _accuracy_figure(results):
    return report.plot_accuracy(
        _curves(results),
        0.1,
        f"White-box, {_swept(results)} test images, {results['data']}",
    )


def _curves(results):
    """Of each attack the points of each defence."""
    return {
        attack: {
            name: measured["curves"][attack]
            for name, measured in results["defences"].items()
        }
        for attack in ("FGSM", "PGD")
    }


def _swept(results):
    return min(results["settings"]["sweep_images"], results["images"]["test"])


def _images(columns, finished):
    """Of each defence images with their captions."""
    return {
        name: image_row(finished.kept.content(cells["pgd"]), "PGD")
        for name, cells in columns.items()
    }
