"""The notebooks: short, clean, of public names, and they run."""

import ast
import pathlib
import re

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from keras_qsn import report
from test_public import NAMES

ROOT = pathlib.Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"/(work|home|tmp|root|Users)\b")

IMPORTS = {
    "import keras",
    "import keras_qsn as qsn",
    "import matplotlib.pyplot as plt",
    "import numpy as np",
    "import pathlib",
    "import tensorflow as tf",
    "from IPython.display import Markdown",
    "from keras_qsn import report",
}
PUBLIC = {
    *(f"qsn.{module}" for module in NAMES),
    *(f"qsn.{module}.{name}" for module in NAMES for name in NAMES[module]),
    *(f"report.{name}" for name in report.__all__),
}

every_notebook = pytest.mark.parametrize(
    "path", PATHS, ids=[path.stem for path in PATHS]
)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters_cell(notebook):
    (cell,) = (
        cell
        for cell in notebook.cells
        if "parameters" in cell.metadata.get("tags", ())
    )
    return cell


def parse(source):
    """The syntax tree of a cell, its magics turned into calls."""
    return ast.parse(TransformerManager().transform_cell(source))


def not_public(source):
    """Imports and names in a cell that a notebook must not use."""
    found = []
    for node in ast.walk(parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            if ast.unparse(node) not in IMPORTS:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute):
            if re.match("_[^_]", node.attr):
                found.append(node.attr)
            chain = ast.unparse(node).split(".")
            depth = {"qsn": 3, "report": 2}.get(chain[0], 0)
            if depth and ".".join(chain[:depth]) not in PUBLIC:
                found.append(ast.unparse(node))
    return found


def shows(source):
    """Whether a cell prints, plots or ends in a value."""
    tree = parse(source)
    prints = any(
        isinstance(node, ast.Name) and node.id == "print"
        for node in ast.walk(tree)
    )
    return prints or isinstance(tree.body[-1], ast.Expr)


def complaints(notebook):
    """Errors and what was written to stderr."""
    return [
        output
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def text_of(notebook):
    """All that is written in a notebook; images are base64, not text."""
    outputs = [
        value
        for cell in code_cells(notebook)
        for output in cell.outputs
        for kind, value in [
            ("text/plain", output.get("text", "")),
            *output.get("data", {}).items(),
        ]
        if kind.startswith("text/")
    ]
    return "\n".join([*(cell.source for cell in notebook.cells), *outputs])


def assigned(source):
    return [
        target.id
        for statement in ast.parse(source).body
        for target in statement.targets
    ]


def test_they_are_numbered():
    numbers = [int(path.stem[:2]) for path in PATHS]
    assert numbers == [*range(10)]


@every_notebook
def test_form(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 16
    assert path.stat().st_size < 400_000
    assert notebook.cells[0].cell_type == "markdown"
    assert re.match(r"# \S.*\n\n\S", notebook.cells[0].source)
    assert "\n\n**After it you can** " in notebook.cells[0].source
    assert notebook.cells[-1].source.startswith(
        ("## To remember", "## What to")
    )
    for link in re.findall(r"\]\(([^)]+\.ipynb)\)", text_of(notebook)):
        assert (path.parent / link).is_file()


@every_notebook
def test_committed_outputs(path):
    notebook = read(path)
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    assert counts == [*range(1, len(cells) + 1)]
    for cell in cells:
        assert bool(cell.outputs) == shows(cell.source), cell.source
    assert not complaints(notebook)
    assert not MACHINE_PATH.search(text_of(notebook))


@every_notebook
def test_only_public_names(path):
    for cell in code_cells(read(path)):
        assert not not_public(cell.source)


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import keras_qsn",
        "from keras_qsn.layers import QuantLayer",
        "from keras_qsn import tracing",
        "qsn.convolution.FastConv2D(4, 3)",
        "qsn.attacks.norms.project(x, 0.3, 2)",
        "qsn.report.percent(0.5)",
        "report.charts",
        "model._wrapper",
    ],
)
def test_other_names_are_found(source):
    assert not_public(source)


@every_notebook
def test_runs_without_a_word_on_stderr(path, tmp_path, monkeypatch):
    """With its tiny sizes, in an empty folder.

    TensorFlow's native log is not looked at: under pytest, ipykernel takes
    Python's stderr alone.
    """
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    # The package beside the notebooks, not one that is installed.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read(path)
    cell = parameters_cell(notebook)
    assert cell in notebook.cells[:4]
    fast = cell.metadata["fast"]
    assert assigned(fast) == assigned(cell.source)
    cell.source = fast
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    assert not complaints(notebook)
