"""The README's Python runs as it stands there, on less data."""

import pathlib
import re

from keras_qsn import datasets

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)

# What takes long, and what takes its place here.
SHORTER = {
    r"\bepochs=\d+": "epochs=2",
    r"\btime_limit=[\d.]+": "time_limit=0.1",
}


def test_python_blocks_run(tmp_path, monkeypatch):
    data = datasets.load("digits")
    few = data._replace(
        x_train=data.x_train[::4],
        y_train=data.y_train[::4],
        x_test=data.x_test[::100],
        y_test=data.y_test[::100],
    )
    monkeypatch.setattr(datasets, "load", {"digits": few}.__getitem__)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        for long, short in SHORTER.items():
            block = re.sub(long, short, block)
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "model.keras").exists()
    assert (tmp_path / "results" / "report.html").exists()
    certificate, evaluation = names["certificate"], names["evaluation"]
    assert 0 <= certificate.certified_accuracy <= certificate.clean_accuracy
    assert 0 <= evaluation.robust_accuracy <= evaluation.clean_accuracy
