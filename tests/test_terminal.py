"""What a user of a terminal sees: quick help, no log, tables that fit."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from conftest import small_cnn
from keras_qsn import cli
from keras_qsn import datasets
from keras_qsn.certification.certifying import METHODS
from keras_qsn.cli import extract
from keras_qsn.cli import parser
from keras_qsn.cli import printing
from keras_qsn.cli.status import NO_READER
from keras_qsn.evaluation import plans
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = ("demo", "evaluate", "extract", "certify", "reproduce")


def python(*arguments, **kwargs):
    """A new Python, with nothing said about TensorFlow's log."""
    quiet = {k: v for k, v in os.environ.items() if "TF_CPP" not in k}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**quiet, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        text=True,
        **kwargs,
    )


def test_help_waits_for_nothing(tmp_path):
    script = (
        "import sys\n"
        "from keras_qsn.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print(sorted({'keras', 'tensorflow'} & {*sys.modules}))"
    )
    (tmp_path / "keras-qsn").write_text(script)
    done = python(tmp_path / "keras-qsn", "evaluate", "--help")
    assert done.stdout.splitlines()[-1] == "[]"
    assert python("-m", "keras_qsn", "--version").stdout.count(".") == 2


def test_modules_of_a_command_are_not_searched_for_garbage(tmp_path):
    script = (
        "import gc, sys\n"
        "from keras_qsn.cli.parser import parser\n"
        "main = sys.modules['keras_qsn.cli.main']\n"
        "options = parser().parse_args(['demo'])\n"
        "main._loaded(options)\n"
        "frozen = gc.get_freeze_count()\n"
        "main._loaded(options)\n"
        "print(gc.isenabled(), frozen > 1e5, gc.get_freeze_count() == frozen)"
    )
    (tmp_path / "keras-qsn").write_text(script)
    done = python(tmp_path / "keras-qsn")
    assert done.stdout == "True True True\n"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_and_says_what_is_so(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    said = capsys.readouterr().out
    assert "None" not in said and "False" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_parser_knows_the_names():
    assert parser.DATA == datasets.NAMES
    assert parser.PLANS == plans.NAMES
    assert parser.METHODS == METHODS
    assert parser.THEFTS == tuple(extract.ATTACKS)


def test_an_import_says_nothing_and_registers_the_layers(tmp_path):
    small_cnn(QuantLayer(2, 50.0)).save(tmp_path / "model.keras")
    script = (
        "import os, keras_qsn, keras\n"
        "assert 'TF_CPP_MIN_LOG_LEVEL' not in os.environ\n"
        "model = keras.models.load_model('model.keras')\n"
        "print(model.layers[0].num_levels)"
    )
    done = python("-c", script, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_the_processes_of_a_command(tmp_path):
    """They say nothing either, and know the layers of saved models."""
    script = (
        "import multiprocessing, sys, keras_qsn\n"
        "def known():\n"
        "    import keras\n"
        "    name = 'keras_qsn>QuantLayer'\n"
        "    print(keras.saving.get_registered_object(name) is not None)\n"
        "if __name__ == '__main__':\n"
        "    assert 'keras' not in sys.modules\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        "    process = spawn.Process(target=known)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    (tmp_path / "keras-qsn").write_text(script)
    done = python(tmp_path / "keras-qsn")
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    "level, said",
    [
        (None, "news\n"),
        ("3", "news\n"),
        ("1", "W0000 00:00:1 9 x.cc:1] slow\nnews\n"),
        (
            "0",
            "I0000 00:00:1 9 x.cc:1] no device\n"
            "W0000 00:00:1 9 x.cc:1] slow\nnews\n",
        ),
    ],
)
def test_the_log_is_as_quiet_as_is_wished(level, said):
    """And what others say is passed on."""
    script = (
        "import os, sys\n"
        "from keras_qsn._core import backend\n"
        "del sys.modules['tensorflow']\n"
        f"level = {level!r}\n"
        "if level:\n"
        "    os.environ['TF_CPP_MIN_LOG_LEVEL'] = level\n"
        "with backend._native_log_silenced():\n"
        "    os.write(2, b'I0000 00:00:1 9 x.cc:1] no device\\n')\n"
        "    os.write(2, b'W0000 00:00:1 9 x.cc:1] slow\\nnews\\n')\n"
        "assert os.environ.get('TF_CPP_MIN_LOG_LEVEL') == level"
    )
    assert python("-c", script).stderr == said


def test_a_reader_who_goes_is_no_error(tmp_path):
    """As of `keras-qsn ... | head -1`: nothing on stderr, its own status."""
    script = (
        "import os, sys\n"
        "import keras_qsn.cli.main\n"
        "main = sys.modules['keras_qsn.cli.main']\n"
        "def run(options, console):\n"
        "    for line in range(9999):\n"
        "        console.print(80 * 'x')\n"
        "main._loaded = lambda options: sys.modules['__main__']\n"
        "sys.exit(main.main(['demo']))\n"
    )
    (tmp_path / "keras-qsn").write_text(script)
    piped = f"{sys.executable} keras-qsn | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", piped],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == NO_READER and done.stderr == ""
    assert done.stdout == 80 * "x" + "\n"


def test_a_command_in_a_file(tmp_path, digits):
    """No log, no bars; tables with whole names in 80 columns."""
    model = small_cnn(ConstantQuantization(2, hard=True))
    x = digits.x_test[:20]
    y = model.predict(x, verbose=0).argmax(1)
    np.savez(tmp_path / "own.npz", x_test=x, y_test=y)
    model.save(tmp_path / "m.keras")
    words = "m.keras --data own.npz --eps 0.1".split()
    done = python("-m", "keras_qsn", "certify", *words, cwd=tmp_path)
    assert done.stderr == ""
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.splitlines()[-1].startswith("Written to results")


def test_long_names_are_broken_not_cut(capsys):
    name = "a-source-of-" + 60 * "x"
    console = Console(width=80)
    printing.print_table(console, ["attack", "left"], [[name, "100.0 %"]])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said and said.count("x") == 60


def test_words_stay_whole_where_there_is_room(capsys):
    header = ["defence", "black-box FGSM", *(f"attack {i}" for i in range(5))]
    rows = [["adversarial TQ", "33.5 %", *["100.0 %"] * 5]]
    printing.print_table(Console(width=80), header, rows)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    for word in ("adversarial", "black-box", "attack", "100.0 %"):
        assert word in said


def test_what_is_too_wide_becomes_several_tables(capsys):
    """Which name their lines alike, and no word is broken or lost."""
    words = ["victim", "thief", "queries", "agreement", "copy right"]
    header = [*words, "victim right", "victim fooled", "answers moved"]
    rows = [["float", "KnockoffNets, soft", "10,000", *["100.0 %"] * 5]]
    printing.print_table(Console(width=60), header, rows, texts=2, title="new")
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 60
    cells = [cell.strip() for cell in re.split("[│┃\n]", said)]
    counts = {"KnockoffNets,": 2, "float": 2, "100.0 %": 5, "agreement": 1}
    for word, count in {**counts, "new": 1, "moved": 1}.items():
        assert cells.count(word) == count, word


def test_one_bar_that_is_gone_in_the_end(capsys):
    console = Console(width=80, force_terminal=True)
    with printing.bar(console) as progress:
        for name in ("FGSM", "PGD"):
            for done in range(3):
                progress(name, done, 2)
    lines = capsys.readouterr().out
    assert "FGSM" not in lines.rsplit("\r", 1)[-1]
    with printing.bar(Console(width=80, force_terminal=False)) as progress:
        progress("FGSM", 1, 2)
    assert capsys.readouterr().out.strip() == ""
