"""Results as people look at them: in a notebook, a browser, a data frame.

What is shown is escaped: a name may hold any text.
"""

import base64
import io
import tempfile
import webbrowser

import markupsafe
import numpy as np
from PIL import Image

_CELL = markupsafe.Markup("<{0} style='text-align:left'>{1}</{0}>")
_ROW = markupsafe.Markup("<tr>{}</tr>")
_SIDE = 84
_FIGURE = markupsafe.Markup(
    f"<figure style='display:inline-block;margin:4px;width:{_SIDE}px'>"
    f"<img src='{{}}' alt='{{}}' width='{_SIDE}' "
    "style='image-rendering:pixelated'>"
    "<figcaption style='font-size:11px'>{}</figcaption></figure>"
)


def html_paragraph(text):
    """Text as a paragraph."""
    return markupsafe.Markup("<p>{}</p>").format(text)


def html_table(header, rows):
    """Rows of text as a table; a notebook gives it its look."""
    lines = [
        _ROW.format(_join(_CELL.format(tag, cell) for cell in row))
        for tag, row in [("th", header), *(("td", row) for row in rows)]
    ]
    return markupsafe.Markup("<table>{}</table>").format(_join(lines))


def html_images(images):
    """Pairs of caption and image in `[0, 1]`, side by side.

    Images of other than one or three channels are left out; of large ones
    every so many rows and columns are shown.
    """
    return _join(
        _FIGURE.format(png_source(_small(image)), caption, caption)
        for caption, image in images
        if is_picture(image)
    )


def in_unit_range(images):
    """Images of whatever range, drawn from black to white in `[0, 1]`."""
    images = np.asarray(images, "float32")
    low, high = min(0.0, images.min()), max(1.0, images.max())
    return (images - low) / (high - low)


def is_picture(image):
    """Whether an array is an image of one or three channels."""
    return np.ndim(image) == 3 and np.shape(image)[-1] in (1, 3)


def png_source(image):
    """An image in `[0, 1]` of one or three channels, as the source of one."""
    pixels = np.round(255 * np.clip(image, 0, 1)).astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if image.shape[-1] == 1 else pixels).save(
        buffer, format="png"
    )
    return data_source("image/png", buffer.getvalue())


def data_source(kind, content):
    """Bytes as the source of an image, inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def data_frame(columns):
    """A pandas `DataFrame`; pandas is asked for when it is wanted."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "`to_dataframe` needs pandas, which is not installed: "
            "`pip install pandas`."
        ) from error
    return pandas.DataFrame(columns)


def open_page(path):
    """Open a page in the browser; returns whether there is one."""
    return webbrowser.open(path.resolve().as_uri())


def show(write, folder=None):
    """Write files, of which the last is a page, and open that; its path.

    Without a folder they are in a temporary one, which stays until the system
    clears it.
    """
    *_, page = write(folder or tempfile.mkdtemp(prefix="keras_qsn-"))
    open_page(page)
    return page


def _small(image):
    """At most twice as many pixels as it is shown with, on a side."""
    step = -(-max(image.shape[:2]) // (2 * _SIDE))
    return image[::step, ::step]


def _join(parts):
    return markupsafe.Markup("").join(parts)
