"""Pages out of templates: nothing in them but what is given, escaped."""

import base64
import io

import jinja2
import matplotlib
from matplotlib import image as mpl_image

from keras_qsn._core.shares import percent
from keras_qsn._core.shares import percent_range
from keras_qsn.report.summary import resource


def render(name, **values):
    """The page of a template beside this file, as text."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(resource),
        autoescape=True,
        finalize=_with_its_sign,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": percent,
        "percent_range": percent_range,
        "png": _png,
    }
    template = environment.get_template(name)
    return template.render(style=resource("page.css"), **values)


def svg(figure):
    """A figure as the source of an image."""
    buffer = io.BytesIO()
    # Same figure, same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "keras_qsn"}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None}
        )
    return _data_uri("image/svg+xml", buffer)


def _with_its_sign(value):
    """A number keeps to its percent sign."""
    if isinstance(value, str):
        return value.replace(" %", "\u00a0%")
    return value


def _png(image):
    """An image in `[0, 1]` of one or three channels, as the source of one."""
    buffer = io.BytesIO()
    if image.shape[-1] == 1:
        image = image[..., 0]
    mpl_image.imsave(buffer, image, cmap="gray", vmin=0, vmax=1, format="png")
    return _data_uri("image/png", buffer)


def _data_uri(kind, buffer):
    content = base64.b64encode(buffer.getvalue()).decode()
    return f"data:{kind};base64,{content}"
