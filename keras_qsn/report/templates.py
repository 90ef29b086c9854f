"""Pages out of templates: nothing in them but what is given, escaped."""

import io

import jinja2
import matplotlib

from keras_qsn._core.display import data_source
from keras_qsn._core.display import png_source
from keras_qsn._core.shares import percent
from keras_qsn._core.shares import percent_range
from keras_qsn.report import drawing
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
        "png": png_source,
    }
    template = environment.get_template(name)
    return template.render(style=resource("page.css"), **values)


def on_each_ground(plot, *arguments):
    """A chart for light and one for dark ground, each as a source."""
    return {
        ground: _svg(plot(*arguments, theme))
        for ground, theme in drawing.THEMES.items()
    }


def _svg(figure):
    """A figure as the source of an image."""
    buffer = io.BytesIO()
    # Same figure, same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "keras_qsn"}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None}
        )
    return data_source("image/svg+xml", buffer.getvalue())


def _with_its_sign(value):
    """A number keeps to its percent sign."""
    if isinstance(value, str):
        return value.replace(" %", "\u00a0%")
    return value
