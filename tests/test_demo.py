"""The main job, tiny: same numbers twice, resumed, refused."""

import dataclasses
import json

import pytest

from keras_qsn import cli
from keras_qsn import demo

TINY = demo.Settings(
    epochs=1, nb_iter=2, images=40, sweep_images=20, train_images=300
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
    assert list(results["defences"]) == list(demo.DEFENCES)
    for name, measured in results["defences"].items():
        columns = [measured[c] for c in demo.COLUMNS if c != "worst_case"]
        known = [value for value in columns if value is not None]
        assert len(known) == (3 if name == "undefended" else 5)
        assert all(0 <= value <= 1 for value in known)
        assert measured["worst_case"] <= min(known)
        for points in measured["curves"].values():
            assert [eps for eps, _ in points] == [0, 0.05, 0.1, 0.2, 0.3, 0.4]
    text = (out / "results.md").read_text()
    assert "adversarial TQ" in text and "L-infinity, eps 0.3" in text
    for name in ("accuracy.png", "images.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_run_goes_on_to_the_same_numbers(
    finished, tmp_path, monkeypatch
):
    """A second run from the same seed, cut in the middle."""
    out, trained, measure = tmp_path / "run", [], demo._measure
    train = demo._train

    def counted(name, *args):
        trained.append(name)
        return train(name, *args)

    def interrupted(name, *args):
        if name == "TQ":
            raise KeyboardInterrupt
        return measure(name, *args)

    monkeypatch.setattr(demo, "_train", counted)
    monkeypatch.setattr(demo, "_measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run(TINY, out)
    assert list(json.loads((out / "results.json").read_text())["defences"]) == [
        "undefended",
        "CQ",
    ]
    monkeypatch.setattr(demo, "_measure", measure)
    assert demo.run(TINY, out) == finished[1]
    assert trained == list(demo.DEFENCES), "no network is trained twice"


def test_masked_gradients_are_named():
    row = {
        "fgsm": 0.95,
        "pgd": 0.96,
        "black_box_fgsm": 0.9,
        "black_box_pgd": 0.82,
    }
    (first, second) = demo._notes({"CQ": row})
    assert first.startswith("CQ: black-box examples do more harm (82.0 % left)")
    assert second.startswith("CQ: one step (95.0 % left) beats many (96.0 %)")
    honest = {**row, "pgd": 0.5, "fgsm": 0.7}
    assert demo._notes({"undefended": honest}) == []


class TestBadInput:
    def test_folder_of_another_run(self, finished):
        other = dataclasses.replace(TINY, seed=1)
        with pytest.raises(ValueError, match=r"another run.*'seed': \(0, 1\)"):
            demo.run(other, finished[0])

    def test_folder_of_another_version(self, finished, monkeypatch):
        monkeypatch.setattr(demo, "__version__", "9.9")
        with pytest.raises(ValueError, match="another version.*this is 9.9"):
            demo.run(TINY, finished[0])

    def test_folder_with_other_things(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("important")
        with pytest.raises(ValueError, match="is not empty and holds no demo"):
            demo.run(TINY, tmp_path)
        assert (tmp_path / "thesis.tex").read_text() == "important"

    def test_damaged_results(self, tmp_path):
        (tmp_path / "results.json").write_text("{")
        with pytest.raises(ValueError, match="damaged or not of a demo run"):
            demo.run(TINY, tmp_path)

    def test_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="cannot be written.*--out"):
            demo.run(TINY, tmp_path / "file" / "run")


class TestCommandLine:
    def test_a_full_disk_does_not_hide_the_table(
        self, finished, monkeypatch, capsys
    ):
        """Of a finished run: it only writes its tables and plots again."""

        def full(path, figure):
            raise OSError(28, "No space left on device", str(path))

        monkeypatch.setattr(
            demo, "settings_for", lambda data, quick, seed: TINY
        )
        monkeypatch.setattr(demo.report, "write_figure", full)
        assert cli.main(["demo", "--out", str(finished[0])]) == 2
        printed, error = capsys.readouterr()
        assert "worst case" in printed and "accuracy.png" in error

    def test_demo_prints_the_table(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(
            demo, "settings_for", lambda data, quick, seed: TINY
        )
        out = tmp_path / "run"
        monkeypatch.setattr(
            demo,
            "run",
            lambda settings, out, data_dir, progress, show: show(
                {
                    "settings": dataclasses.asdict(settings),
                    "images": {"test": 40},
                    "data": "digits",
                    "notes": ["CQ: masked [red]"],
                    "defences": {"CQ": dict.fromkeys(demo.COLUMNS, 0.5)},
                }
            ),
        )
        assert cli.main(["demo", "--out", str(out)]) == 0
        printed = capsys.readouterr().out
        assert "worst case" in printed and "50.0 %" in printed
        assert "! CQ: masked [red]" in printed

    def test_errors_exit_with_2(self, tmp_path, capsys):
        (tmp_path / "thesis.tex").write_text("")
        assert cli.main(["demo", "--quick", "--out", str(tmp_path)]) == 2
        assert "Name another one with `--out`" in " ".join(
            capsys.readouterr().err.split()
        )

    def test_interrupt_exits_with_130(self, monkeypatch, tmp_path, capsys):
        def interrupted(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(demo, "run", interrupted)
        assert cli.main(["demo", "--out", str(tmp_path / "run")]) == 130
        assert "the same command goes on" in capsys.readouterr().out

    def test_settings_of_the_paper(self):
        assert demo.settings_for("mnist").eps == 0.3
        assert demo.settings_for("cifar10").eps == 0.1
        assert demo.settings_for(quick=True, seed=7).seed == 7
