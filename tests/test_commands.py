"""Every command line that the texts print runs as printed."""

import json
import pathlib
import re
import shlex

import pytest

from keras_qsn import cli
from keras_qsn.cli.main import parser

ROOT = pathlib.Path(__file__).parents[1]
TEXTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "notebooks").glob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted((ROOT / "docs").glob("*.rst")),
]
# What hours, or a cluster, are needed for is read by the parser, and not run:
# CI runs the first of these from the README, `test_paper.py` the second.
LONG = ("keras-qsn demo", "keras-qsn reproduce")


def words_of(path):
    """The text of a file; of a notebook, what is not code."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join(
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "markdown"
    )


def commands_of(text):
    """Lines of shell blocks, and commands set as code in a sentence."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`{1,2}([^`]+)`{1,2}", re.sub(r"```.*?```", "", text))
    lines += [" ".join(code.split()) for code in inline]
    return [
        part.strip()
        for line in lines
        for part in re.sub(r"\s+#.*", "", line).split("&&")
    ]


COMMANDS = sorted(
    {command for path in TEXTS for command in commands_of(words_of(path))}
)
OURS = [command for command in COMMANDS if command.startswith("keras-qsn ")]
SCRIPTS = {
    (path.name, script)
    for path in TEXTS
    for script in re.findall(r"tests/\w+/\w+\.\w+", words_of(path))
}


def test_they_are_found():
    assert "keras-qsn demo" in OURS
    assert any(command.startswith("keras-qsn evaluate") for command in OURS)
    assert any(command.startswith("keras-qsn certify") for command in OURS)
    assert "python3 -m pytest -n auto" in COMMANDS


@pytest.mark.parametrize("command", OURS)
def test_options_are_known(command):
    parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize(
    "command", [c for c in OURS if not c.startswith(LONG) and "--data" in c]
)
def test_runs_as_printed(command, tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    trained["none"].save("model.keras")
    trained["hard"].save("proved.keras")
    # Less than `--at-least` is an answer too.
    assert cli.main(shlex.split(command)[1:]) in (0, 1)


@pytest.mark.parametrize(("text", "script"), sorted(SCRIPTS))
def test_scripts_are_there(text, script):
    assert (ROOT / script).is_file()


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
