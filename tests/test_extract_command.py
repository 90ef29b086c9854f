"""`keras-qsn extract`, and what it writes."""

import json

import keras
import numpy as np
import pytest

from conftest import small_cnn
from keras_qsn import cli
from keras_qsn.cli import extract
from keras_qsn.defenses import LabelsOnly
from keras_qsn.defenses import undefended
from keras_qsn.defenses import with_defended_answers
from keras_qsn.extraction import KnockoffNets
from keras_qsn.extraction import compare_extractions
from keras_qsn.models import KerasModelWrapper


@pytest.fixture
def files(digits, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(
        "own.npz",
        x_train=digits.x_train[:300],
        y_train=digits.y_train[:300],
        x_test=digits.x_test[::25],
        y_test=digits.y_test[::25],
    )
    trained["none"].save("model.keras")
    small_cnn().save("start.keras")


def call(*options):
    given = ["model.keras", "--data", "own.npz", "--budget", "60"]
    return cli.main(["extract", *given, "--epochs", "2", *options])


def test_a_model_is_copied(files, trained, capsys):
    assert call("--rounds", "2", "--copy", "start.keras") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "after 60 queries" in said.out and "60 │" in said.out
    folder = "results/extract-model"
    with open(f"{folder}/extraction.json") as file:
        (told,) = json.load(file)["results"]
    assert told["queries"] == 60 and told["settings"]["asked"] == 60
    assert [point["queries"] for point in told["curve"]] == [30, 60]
    assert told["settings"]["victim"] == "model.keras"
    assert told["fooled"]["attack"] == "ProjectedGradientDescent"
    # The copy that is kept is the one that was measured.
    with np.load("own.npz") as own:
        x, y = own["x_test"], own["y_test"]
    copy = KerasModelWrapper(keras.models.load_model(f"{folder}/copy.keras"))
    same = copy.predict(x) == KerasModelWrapper(trained["none"]).predict(x)
    assert told["agreement"]["share"] == same.mean()
    assert told["copy_accuracy"]["share"] == (copy.predict(x) == y).mean()
    with open(f"{folder}/extraction.html") as file:
        page = file.read()
    assert "<script" not in page and "60" in page
    # Once more: all is paid for, and the same.
    assert call("--rounds", "2", "--copy", "start.keras") == 0
    with open(f"{folder}/extraction.json") as file:
        (again,) = json.load(file)["results"]
    assert again["agreement"] == told["agreement"]


def test_each_attack_has_its_own_answers_and_rounds(files, monkeypatch):
    asked = []

    def run(self, *args, **kwargs):
        asked.append(self)
        raise ValueError("enough")

    for attack in {*map(_class_of, extract.ATTACKS.values())}:
        monkeypatch.setattr(attack, "run", run)
    for name in extract.ATTACKS:
        options = ["--attack", name, "--budget", "200"]
        if _class_of(extract.ATTACKS[name]).needs_images:
            options += ["--pool", "own.npz"]
        assert call(*options) == 2
    assert {
        name: (a.answers, a.rounds) for name, a in zip(extract.ATTACKS, asked)
    } == {
        "knockoff": ("soft", 1),
        "knockoff-adaptive": ("soft", 1),
        "copycat": ("hard", 1),
        "active-thief": ("soft", 10),
        "jacobian": ("soft", 1),
        "dfme": ("soft", 10),
        "maze": ("soft", 10),
    }
    assert [getattr(a, "sampling", "") for a in asked[:2]] == [
        "random",
        "adaptive",
    ]


def _class_of(attack):
    return getattr(attack, "func", attack)


def test_several_results_side_by_side(digits, trained, tmp_path):
    x = digits.x_test[:50]
    results = {
        f"<b>{answers}": KnockoffNets(20, answers, epochs=1).run(
            trained["none"],
            small_cnn(),
            digits.x_train[:40],
            x,
            clean=trained["none"] if answers == "hard" else None,
            verbose=0,
        )
        for answers in ("soft", "hard")
    }
    comparison = compare_extractions(results)
    header, soft, hard = repr(comparison).splitlines()[1:]
    assert soft.startswith("<b>soft") and soft.endswith("–")
    assert "answers moved" in header and "victim right" not in header
    assert hard.split()[-1] == f"{results['<b>hard'].l1:.3f}"
    paths = comparison.write(tmp_path / "new")
    assert [path.suffix for path in paths] == [".json", ".md", ".png", ".html"]
    assert json.loads(paths[0].read_text()) == comparison.to_json()
    for shown in (comparison._repr_html_(), paths[-1].read_text()):
        assert "<b>" not in shown and "&lt;b&gt;soft" in shown
    assert comparison.to_dataframe().agreement.between(0, 1).all()
    one = results["<b>soft"]
    assert "20 queries" in repr(one) and len(repr(one)) < 120
    assert "KnockoffNets" in one._repr_html_()
    assert one.to_json()["agreement"]["share"] == one.agreement
    for wrong, error in (([one], TypeError), ({}, ValueError)):
        with pytest.raises(error):
            compare_extractions(wrong)
    with pytest.raises(TypeError, match="must hold what"):
        compare_extractions({"a": 1})


def test_a_defended_model_without_images(files, trained, capsys):
    """The copy is of the network, without the defence."""
    defended = with_defended_answers(trained["none"], LabelsOnly())
    defended.save("model.keras")
    assert call("--attack", "maze", "--pool", "own.npz") == 2
    assert "maze makes its own images" in capsys.readouterr().err
    assert call("--attack", "maze") == 0
    assert "after 60 queries" in capsys.readouterr().out
    folder = "results/extract-model"
    copy = keras.models.load_model(f"{folder}/copy.keras")
    assert copy.count_params() == trained["none"].count_params()
    assert undefended(copy) is copy
    with open(f"{folder}/extraction.json") as file:
        (told,) = json.load(file)["results"]
    # Of no turn there was an image kept.
    assert told["settings"]["images"] is None
