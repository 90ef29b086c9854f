"""Pieces of an HTML page. What they are given as text, they escape."""

import base64
import html
import io

import matplotlib
from matplotlib import image as mpl_image

from keras_qsn.report import charts

_ICONS = {"pass": "✓", "warn": "!", "fail": "✕", "none": "–"}


def escape(text):
    """Text as HTML; a number keeps to its percent sign."""
    return html.escape(str(text)).replace(" %", "&nbsp;%")


def section(title, *parts):
    """HTML under a heading."""
    name = title.lower().replace(" ", "-")
    return (
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n'
        + "\n".join(parts)
        + "\n</section>"
    )


def paragraph(text):
    """Text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def bullets(lines):
    """Lines of text as a list."""
    return "<ul>{}</ul>".format(
        "".join(f"<li>{escape(line)}</li>" for line in lines)
    )


def table(header, rows, kind):
    """A table of text."""
    return html_table(header, [map(escape, row) for row in rows], kind)


def html_table(header, rows, kind):
    """A table of cells of HTML; on a phone the labels stand in the rows."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td data-label="{escape(label)}">{cell}</td>'
            for label, cell in zip(header, row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<table class="{kind}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def chart(plot, evaluation, title, caption):
    """A chart for light and one for dark ground; paper gets the light one."""
    light, dark = (
        _svg(plot(evaluation, theme)) for theme in (charts.LIGHT, charts.DARK)
    )
    return (
        '<figure class="chart"><picture>'
        '<source media="screen and (prefers-color-scheme: dark)" '
        f'srcset="{dark}"><img alt="{escape(title)}" src="{light}">'
        f"</picture><figcaption>{escape(caption)}</figcaption></figure>"
    )


def icon(status):
    """A sign for a status, which the word beside it repeats."""
    return f'<i class="icon" aria-hidden="true">{_ICONS[status]}</i>'


def png(image):
    """An image in `[0, 1]` of one or three channels, as the source of one."""
    buffer = io.BytesIO()
    if image.shape[-1] == 1:
        image = image[..., 0]
    mpl_image.imsave(buffer, image, cmap="gray", vmin=0, vmax=1, format="png")
    return _data_uri("image/png", buffer.getvalue())


def _svg(figure):
    buffer = io.BytesIO()
    # Same figure, same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "keras_qsn"}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None}
        )
    return _data_uri("image/svg+xml", buffer.getvalue())


def _data_uri(kind, data):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
