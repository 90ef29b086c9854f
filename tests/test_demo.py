"""The main job, tiny: same numbers twice, resumed, refused; what it says."""

import dataclasses
import json
import webbrowser

import keras
import markupsafe
import numpy as np
import pytest

from keras_qsn import cli
from keras_qsn import demo
from keras_qsn import report
from keras_qsn._core import kept
from keras_qsn.demo.results import COLUMNS
from keras_qsn.demo.results import notes_on
from keras_qsn.demo.results import settings_of
from keras_qsn.demo.running import QUICK
from keras_qsn.paper import runner
from keras_qsn.paper.cells import Proved
from keras_qsn.paper.figures import FIGURES
from keras_qsn.paper.grid import Grid

TINY = Grid(
    dataclasses.replace(
        QUICK, epochs=1, images=40, few_images=20, train_images=300
    ),
    "digits",
    seed=0,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    return out, demo.run(TINY, out)


def test_results_are_complete(finished):
    out, results = finished
    assert results == json.loads((out / "results.json").read_text())
    assert results["complete"] and results["images"]["test"] == 40
    assert "embedded MNIST digits" in results["data"]
    names = ["undefended", "CQ", "CQ, hard", "TQ", "adversarial"]
    names.append("adversarial TQ")
    assert list(results["defences"]) == names
    for name, measured in results["defences"].items():
        known = {c: measured[c] for c in COLUMNS}
        assert (known.pop("proved") is not None) == (name == "CQ, hard")
        missing = {c for c, value in known.items() if value is None}
        assert missing == {
            *({"transfer"} if name == "undefended" else ()),
            *(() if "Q" in name else {"adaptive"}),
        }
        shares = [value for value in known.values() if value is not None]
        assert all(0 <= value <= 1 for value in shares)
        assert measured["worst_case"] == min(shares)
        for points in measured["curves"].values():
            assert [eps for eps, _ in points] == [0, 0.1, 0.2, 0.3, 0.4]
    text = (out / "results.md").read_text()
    assert "adversarial TQ" in text and "L-infinity, eps 0.3" in text
    for name in names:
        keras.models.load_model(out / f"{name.replace(' ', '-')}.keras")
    for name in ("accuracy.png", "images.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    page = (out / demo.PAGE).read_text()
    for line in [*names, *results["conclusions"], demo.caption(results)]:
        assert markupsafe.escape(line.replace(" %", "\u00a0%")) in page


def test_an_interrupted_run_goes_on_to_the_same_numbers(
    finished, tmp_path, monkeypatch
):
    """A second run from the same seed, cut in the middle."""
    out, performed, perform = tmp_path / "run", [], runner.perform

    def interrupted(cell, *args):
        if len(performed) == 40:
            raise KeyboardInterrupt
        performed.append(cell)
        return perform(cell, *args)

    monkeypatch.setattr(runner, "perform", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run(TINY, out)
    assert not (out / "results.json").exists()

    def counted(cell, *args):
        performed.append(cell)
        return perform(cell, *args)

    monkeypatch.setattr(runner, "perform", counted)
    assert demo.run(TINY, out) == finished[1]
    assert len(set(performed)) == len(performed), "nothing is done twice"


def test_is_a_figure_of_the_grid(finished):
    """What `reproduce` draws of the same cells says the same."""
    out, results = finished
    kept = runner.finished([], out / "cells").kept
    for row in FIGURES["demo"].rows(TINY):
        column = {"certified": "proved"}.get(row.setting)
        if row.setting.endswith("white-box"):
            column = row.setting.split(",")[0].lower()
        share = kept.values(row.cell)["accuracy"]
        measured = results["defences"][row.defence]
        if column is not None:
            assert share == pytest.approx(measured[column])
        assert column == "proved" or share >= measured["worst_case"]


def test_what_pgd_overstates_is_named():
    row = dict.fromkeys(COLUMNS, 0.96) | {"fgsm": 0.95}
    row |= {"transfer": 0.82, "adaptive": 0.7}
    another, knowing, one_step = notes_on({"CQ": row})
    assert another.startswith("CQ: examples of another network do more harm")
    assert "(82.0 % left) than white-box PGD (96.0 %)" in another
    assert knowing.startswith("CQ: attacks that know of the quantizer do more")
    assert one_step.startswith("CQ: one step (95.0 % left) beats many (96.0 %)")
    honest = {**row, "pgd": 0.5, "fgsm": 0.7, "transfer": None}
    assert notes_on({"undefended": honest}) == []


def test_three_things_to_read_off(finished):
    _, results = finished
    measured = results["defences"]
    first, second, third = results["conclusions"]
    for line, name, columns in (
        (first, "adversarial", ("fgsm", "worst_case")),
        (second, "CQ", ("pgd", "worst_case")),
        (third, "CQ, hard", ("worst_case", "proved")),
    ):
        for column in columns:
            assert report.percent(measured[name][column]) in line


def test_a_certified_image_that_is_broken_stops_it(finished, monkeypatch):
    """Whichever is wrong, the proof or the attack, no table is shown."""
    out, _ = finished
    content = runner.KeptCells.content

    def all_certified(kept, cell):
        arrays = content(kept, cell)
        if isinstance(cell, Proved):
            arrays["certified"] = np.ones_like(arrays["certified"])
        return arrays

    monkeypatch.setattr(runner.KeptCells, "content", all_certified)
    with pytest.raises(RuntimeError, match="broke an image that is certified"):
        demo.run(TINY, out)


class TestBadInput:
    def test_folder_of_another_run(self, finished):
        other = Grid(TINY.scale, "digits", seed=1)
        with pytest.raises(ValueError, match="other work.*demo.seed"):
            demo.run(other, finished[0])

    def test_folder_of_another_version(self, finished, monkeypatch):
        monkeypatch.setattr(kept, "__version__", "9.9")
        with pytest.raises(ValueError, match="differs in versions.keras_qsn"):
            demo.run(TINY, finished[0])

    @pytest.mark.parametrize("name", ["thesis.tex", "results.json"])
    def test_folder_with_other_things(self, tmp_path, name):
        """Or of the version before, which kept its run in `results.json`."""
        (tmp_path / name).write_text("important")
        words = "holds other files, or work of an earlier version"
        with pytest.raises(ValueError, match=words):
            demo.run(TINY, tmp_path)
        assert (tmp_path / name).read_text() == "important"

    def test_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file/run"):
            demo.run(TINY, tmp_path / "file" / "run")


class TestCommandLine:
    def test_a_full_disk_does_not_hide_the_table(
        self, finished, monkeypatch, capsys
    ):
        """Of a finished run: it only writes its tables and plots again."""

        def full(path, figure):
            raise OSError(28, "No space left on device", str(path))

        monkeypatch.setattr(demo, "grid_for", lambda data, quick, seed: TINY)
        monkeypatch.setattr(report, "write_figure", full)
        assert cli.main(["demo", "--out", str(finished[0])]) == 2
        printed, error = capsys.readouterr()
        assert "adaptive" in printed and "accuracy.png" in error

    def test_demo_prints_the_table(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(demo, "grid_for", lambda data, quick, seed: TINY)
        out = tmp_path / "run"
        monkeypatch.setattr(
            demo,
            "run",
            lambda grid, out, data_dir, progress, show: show(
                {
                    "settings": settings_of(grid),
                    "images": {"test": 40, "proved": 20},
                    "data": "digits",
                    "notes": ["CQ: masked [red]"],
                    "conclusions": ["Nothing is safe."],
                    "defences": {"CQ": dict.fromkeys(COLUMNS, 0.5)},
                }
            ),
        )
        assert cli.main(["demo", "--out", str(out)]) == 0
        printed = capsys.readouterr().out
        assert "adaptive" in printed and "50.0" in printed
        assert "! CQ: masked [red]\n1. Nothing is safe." in printed

    @pytest.mark.parametrize("found", [True, False])
    def test_open_shows_the_page(self, found, finished, monkeypatch, capsys):
        opened = []

        def browser(url):
            opened.append(url)
            return found

        out, _ = finished
        monkeypatch.setattr(demo, "grid_for", lambda data, quick, seed: TINY)
        monkeypatch.setattr(demo.running, "write", lambda *args: None)
        monkeypatch.setattr(webbrowser, "open", browser)
        assert cli.main(["demo", "--out", str(out), "--open"]) == 0
        page = out / demo.PAGE
        assert opened == [page.resolve().as_uri()] and page.exists()
        assert ("No browser" in capsys.readouterr().out) is not found

    def test_errors_exit_with_2(self, tmp_path, capsys):
        (tmp_path / "thesis.tex").write_text("")
        assert cli.main(["demo", "--quick", "--out", str(tmp_path)]) == 2
        assert "Name another folder" in " ".join(
            capsys.readouterr().err.split()
        )

    def test_interrupt_exits_with_130(self, monkeypatch, tmp_path, capsys):
        def interrupted(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(demo, "run", interrupted)
        assert cli.main(["demo", "--out", str(tmp_path / "run")]) == 130
        assert "the same command goes on" in capsys.readouterr().out

    def test_settings_of_the_paper(self):
        assert demo.grid_for("mnist").eps == 0.3
        assert demo.grid_for("cifar10").eps == 0.1
        assert demo.grid_for(quick=True, seed=7).seed == 7
