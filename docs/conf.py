"""The API reference, built from the docstrings: `sphinx-build docs site`."""

import keras_qsn

project = "keras_qsn"
release = keras_qsn.__version__
html_title = f"keras_qsn {release}"
html_theme = "furo"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
templates_path = ["templates"]
# One backtick is code, as in Keras.
default_role = "literal"
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
# What a subclass inherits is told of its base class.
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_numpy_docstring = False
napoleon_custom_sections = [
    "Call arguments",
    "Input shape",
    "Output shape",
    ("Limitations", "Notes"),
    ("Reference", "References"),
]
napoleon_use_ivar = True


def formulas(app, what, name, obj, options, lines):
    """A block that is set in, after an empty line, is a formula or code."""
    for i in range(len(lines) - 1, 1, -1):
        set_in = lines[i].startswith("    ") and not lines[i - 1]
        if set_in and lines[i - 2] and not lines[i - 2].startswith(" "):
            lines[i:i] = ["::", ""]


def setup(app):
    # Before napoleon reads the sections.
    app.connect("autodoc-process-docstring", formulas, priority=100)
