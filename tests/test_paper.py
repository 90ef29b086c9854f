"""The paper's grid: its cells, its runner, what it writes."""

import concurrent.futures
import dataclasses
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn import cli
from keras_qsn import paper
from keras_qsn._core.kept import locked
from keras_qsn.paper import cells
from keras_qsn.paper import grid
from keras_qsn.paper import networks
from keras_qsn.paper import runner
from keras_qsn.paper import tables
from keras_qsn.paper.figures import FIGURES

TINY = grid.Scale(
    data=("digits",),
    epochs=1,
    train_images=200,
    sweep_images=200,
    images=20,
    worst_images=6,
    few_images=6,
    sources=1,
    sweep=4,
    table={"architecture": "small"},
    table_images=6,
    table_plan="quick",
)
PLAIN = cells.Network("digits", epochs=1, train_images=200)
CQ = dataclasses.replace(PLAIN, defence="CQ")
WHITE_BOX = cells.Attacked(CQ, "FGSM", 0.3, images=20)
BLACK_BOX = dataclasses.replace(WHITE_BOX, source=PLAIN)
CRAFTED = cells.Examples(PLAIN, "FGSM", 0.3, images=20)


def all_rows(scale, data, seed=0):
    return [
        row
        for figure in FIGURES.values()
        if data in figure.data or len(scale.data) == 1
        for row in figure.rows(grid.Grid(scale, data, seed))
    ]


class TestCells:
    def test_equal_cells_share_their_files_and_others_do_not(self):
        assert cells.key(WHITE_BOX) == cells.key(dataclasses.replace(WHITE_BOX))
        others = [
            dataclasses.replace(CQ, **{field.name: value})
            for field, value in zip(
                dataclasses.fields(CQ),
                (
                    *("mnist", "TQ", 3, 5.0, True, "authors", "paper"),
                    *("Eq. 2", 0.1, 0.1, "cleverhans", "Q2", 2, 100, 1, False),
                    *("PGD", "small", (("PGD", (("nb_iter", 2),)),)),
                ),
            )
        ]
        keys = {cells.key(cell) for cell in (CQ, *others)}
        assert len(keys) == len(dataclasses.fields(CQ)) + 1
        for key in keys:
            assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")

    def test_a_new_setting_leaves_old_names_alone(self):
        later = dataclasses.make_dataclass(
            "Network",
            [("added", str, dataclasses.field(default="as before"))],
            bases=(cells.Network,),
            frozen=True,
        )
        same = later(**dataclasses.asdict(CQ))
        assert cells.key(same) == cells.key(CQ)
        other = dataclasses.replace(same, added="new")
        assert cells.key(other) != cells.key(CQ)

    def test_needs_come_first_and_once(self):
        squeezed = dataclasses.replace(PLAIN, after="Q2")
        attacked = dataclasses.replace(BLACK_BOX, network=squeezed)
        ordered = cells.with_needs([attacked, WHITE_BOX, attacked])
        assert ordered == [PLAIN, squeezed, CRAFTED, attacked, CQ, WHITE_BOX]

    def test_no_training_is_done_twice(self):
        """All figures of MNIST together take fewer than each alone."""
        rows = all_rows(grid.FULL, "mnist")
        wanted = [c for row in rows for c in (row.cell, row.worst) if c]
        found = cells.with_needs(wanted)
        assert len(set(found)) == len(found) < len(wanted)
        trained = [c for c in found if isinstance(c, cells.Network)]
        assert len({cells.key(c) for c in trained}) == len(trained)

    def test_every_quantized_row_has_a_worst_case(self):
        for data in grid.FULL.data:
            judged = {
                row.cell.network
                for row in all_rows(grid.FULL, data)
                if isinstance(row.cell, cells.Attacked)
                and row.cell.network.quantized
                and not row.cell.network.after
            }
            worst = {
                row.worst.network
                for row in all_rows(grid.FULL, data)
                if row.worst is not None
            }
            assert judged <= worst

    def test_printed_figures(self):
        """What the paper's text gives, and nothing it does not."""
        printed = {}
        for name in ("fig1", "fig9", "fig10"):
            for data in FIGURES[name].data:
                rows = FIGURES[name].rows(grid.Grid(grid.FULL, data, 0))
                printed[name, data] = sorted(
                    {row.printed for row in rows} - {None}
                )
        assert printed == {
            ("fig1", "cifar10"): [8.87, 19.6, 24.66],
            ("fig9", "mnist"): [1.48, 94, 97.51],
            ("fig9", "cifar10"): [],
            ("fig10", "mnist"): [0, 88, 90],
            ("fig10", "cifar10"): [0, 50, 54],
        }
        eps = {
            row.cell.eps
            for data in grid.FULL.data
            for row in FIGURES["fig9"].rows(grid.Grid(grid.FULL, data, 0))
        }
        assert eps == {0.3, 0.1}


class TestNetworks:
    @pytest.mark.parametrize(
        "network, steepness, count",
        [
            (CQ, 50.0, 1),
            (dataclasses.replace(CQ, variant="authors"), 50.0, 2),
            (dataclasses.replace(CQ, steepness=7.0, num_levels=4), 7.0, 3),
            (dataclasses.replace(CQ, defence="TQ"), 5.0, 1),
        ],
    )
    def test_quantizer(self, network, steepness, count):
        layer = networks.quantizer_of(network)
        assert layer.steepness == steepness and layer.num_thresholds == count
        assert layer.trainable == (network.defence == "TQ")

    def test_signum_hides_its_gradient(self):
        layer = networks.quantizer_of(dataclasses.replace(CQ, defence="signum"))
        x = np.linspace(0, 1, 11, dtype="float32")[None]
        x = x[np.abs(x - 0.5) > 0.05][None]
        images = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(images)
            y = layer(images)
        assert set(np.unique(y)) == {0, 1}
        assert not np.asarray(tape.gradient(y, images)).any()

    def test_initial_weights_of_cleverhans(self):
        network = dataclasses.replace(
            CQ, initializer="cleverhans", train_images=8
        )
        # Eight images move a weight by at most one step of Adam's.
        model = runner._model(runner.perform(network, [])[1])
        for layer in model.layers:
            if hasattr(layer, "kernel"):
                kernel = np.asarray(layer.kernel)
                scaled = kernel.std() * np.sqrt(np.prod(kernel.shape[:-1]))
                assert scaled == pytest.approx(1, abs=0.1)

    def test_thresholds_are_looked_at(self):
        trained = dataclasses.replace(
            CQ, defence="TQ", threshold_cost="Eq. 2", adversarial_eps=0.3
        )
        values, content = runner.perform(trained, [])
        quantiles = values["thresholds"]["quantiles"]
        assert quantiles == sorted(quantiles) and quantiles[2] == 0.5
        assert 0 <= values["thresholds"]["moved"] < 1
        assert len(values["history"]["val_adv_accuracy"]) == 1
        assert values["train_images"] == 200 and isinstance(content, bytes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny grid, run here."""
    folder = tmp_path_factory.mktemp("cells")
    return runner.run([WHITE_BOX, BLACK_BOX], folder)


def without_seconds(values):
    return {
        cell: {k: v for k, v in found.items() if "seconds" not in k}
        for cell, found in values.items()
    }


class TestRunner:
    def test_measures_what_it_says(self, finished, digits):
        assert not finished.failures
        values = finished.values[WHITE_BOX]
        pictures = finished.kept.arrays(cells.key(WHITE_BOX))
        assert values["images"] == 20 and 0 <= values["accuracy"] <= 1
        assert "embedded MNIST digits" in values["data"]
        assert np.abs(pictures["x_adv"] - pictures["x"]).max() <= 0.3 + 1e-6
        with_file = runner._model(finished.kept.content(CQ))
        found = with_file.predict(pictures["x_adv"], verbose=0).argmax(1)
        np.testing.assert_array_equal(found, pictures["prediction"])
        assert finished.values[BLACK_BOX] != values

    def test_what_is_carried_over_is_crafted_once(self, finished):
        """And is the attack on the source itself, given to the source."""
        assert CRAFTED in finished.values
        own = dataclasses.replace(BLACK_BOX, network=PLAIN)
        white_box = dataclasses.replace(own, source=None)
        network, examples = map(finished.kept.content, own.needs)
        carried, arrays = runner.perform(own, [network, examples])
        found, _ = runner.perform(white_box, [network])
        assert carried["accuracy"] == found["accuracy"]
        assert arrays["survived"].mean() == pytest.approx(found["accuracy"])
        rows = FIGURES["fig9"].rows(grid.Grid(TINY, "digits", 0))
        needed = cells.with_needs([row.cell for row in rows])
        crafted = [c for c in needed if isinstance(c, cells.Examples)]
        assert len(crafted) == 1

    def test_starts_from_quantized_images(self, finished):
        started = dataclasses.replace(
            WHITE_BOX, attack="FGSM, from quantized images", eps=0.1
        )
        network = [finished.kept.content(CQ)]
        _, pictures = runner.perform(started, network)
        assert set(np.unique(pictures["x"])) == {0.0, 1.0}
        moved = np.abs(pictures["x_adv"] - pictures["x"]).max()
        assert moved == pytest.approx(0.1)
        # A step of 0.1 from 0 or 1 reaches no threshold at 0.5.
        np.testing.assert_array_equal(pictures["prediction"], pictures["clean"])

    def test_an_attack_that_does_not_clip(self, finished):
        unclipped = dataclasses.replace(WHITE_BOX, attack="FGSM, unclipped")
        network = [finished.kept.content(CQ)]
        _, pictures = runner.perform(unclipped, network)
        moved = np.abs(pictures["x_adv"] - pictures["x"])
        np.testing.assert_allclose(moved[moved > 0], 0.3, atol=1e-6)
        assert pictures["x_adv"].min() == pytest.approx(-0.3)

    def test_finished_cells_are_not_run_again(self, finished, monkeypatch):
        monkeypatch.delattr(runner, "perform")
        again = runner.run([WHITE_BOX, BLACK_BOX], finished.kept.path)
        assert again.values == finished.values

    @pytest.mark.parametrize("where", ["processes", "ray"])
    def test_elsewhere_gives_the_same(self, finished, tmp_path, where):
        executor = {
            "processes": lambda: paper.processes(2),
            "ray": paper.ray_cluster,
        }[where]()
        found = runner.run([WHITE_BOX, BLACK_BOX], tmp_path, executor=executor)
        assert not found.failures
        for cell in (WHITE_BOX, BLACK_BOX):
            here, there = finished.values[cell], found.values[cell]
            assert here["images"] == there["images"]
            # Sums over threads are rounded in another order.
            assert abs(here["accuracy"] - there["accuracy"]) <= 0.1

    def test_two_runs_at_once_are_refused(self, tmp_path):
        with locked(tmp_path):
            with pytest.raises(ValueError, match="Another run is at work"):
                runner.run([], tmp_path)
        assert not runner.run([], tmp_path).failures

    def test_a_failure_is_reported_and_the_rest_finished(
        self, tmp_path, monkeypatch
    ):
        tried, perform = [], fake_perform

        def failing(cell, *args):
            tried.append(cell)
            if cell == CQ:
                raise ValueError("no luck")
            return perform(cell, *args)

        monkeypatch.setattr(runner, "perform", failing)
        alone = cells.Attacked(PLAIN, "FGSM", 0.3, images=20)
        said = []
        found = runner.run(
            [BLACK_BOX, alone],
            tmp_path,
            progress=lambda line, *work: said.append(line),
        )
        assert set(found.values) == {PLAIN, CRAFTED, alone}
        assert "no luck" in found.failures[CQ]
        assert "which failed" in found.failures[BLACK_BOX]
        assert any("FAILED: ValueError: no luck" in line for line in said)
        monkeypatch.setattr(runner, "perform", fake_perform)
        again = runner.run([BLACK_BOX, alone], tmp_path)
        assert not again.failures and len(again.values) == 5
        assert tried.count(PLAIN) == 1

    def test_progress_ends_at_its_total(self, tmp_path, monkeypatch):
        monkeypatch.setattr(runner, "perform", fake_perform)
        told = []
        runner.run(
            [BLACK_BOX], tmp_path, progress=lambda *args: told.append(args)
        )
        assert [name[:3] for name, _, _ in told] == ["1/4", "2/4", "3/4", "4/4"]
        done = [done for _, done, _ in told]
        assert done == sorted(done)
        assert done[-1] == pytest.approx(told[-1][2])

    @pytest.mark.parametrize("after", [1, 5, 8])
    def test_killed_at_any_point_it_goes_on(self, tmp_path, after):
        """SIGKILL; then no cell is run twice, none is lost."""
        log = tmp_path / "log"
        command = [sys.executable, "-c", KILLED, str(tmp_path / "cells"), log]
        environment = {**os.environ, "KILL_AFTER": str(after)}
        killed = subprocess.run(command, env=environment)
        assert killed.returncode == -signal.SIGKILL
        environment["KILL_AFTER"] = "1000"
        subprocess.run(command, env=environment, check=True)
        started = log.read_text().split()
        repeated = {key for key in started if started.count(key) > 1}
        # Only the one it was killed in.
        assert repeated == {started[after]}
        rows = FIGURES["fig11"].rows(grid.Grid(TINY, "digits", 0))
        wanted = [c for row in rows for c in (row.cell, row.worst) if c]
        kept = runner.KeptCells(tmp_path / "cells")
        for cell in cells.with_needs(wanted):
            assert kept.values(cell) == fake_perform(cell, [])[0]

    def test_a_worker_that_dies_takes_only_its_cells(self):
        with paper.processes(1) as pool:
            assert pool.slots == 1
            with pytest.raises(concurrent.futures.BrokenExecutor):
                pool.submit(os._exit, 1).result()
            assert pool.submit(abs, -2).result() == 2


def fake_perform(cell, needed, data_dir=None):
    """The shape of a result, without the work."""
    if isinstance(cell, cells.Network):
        return {"thresholds": None}, b"weights"
    number = int(cells.key(cell)[-4:], 16) / 0xFFFF
    if isinstance(cell, cells.Extracted):
        shares = ("agreement", "clean", "copy", "fooled")
        values = dict.fromkeys(shares, number)
        return {**values, "l1": 0.0, "queries": 1, "asked": ""}, {}
    values = {"accuracy": number, "clean": 1.0, "distortion": None}
    return values, {"correct": np.ones(1, bool)}


KILLED = """
import os, signal, sys
sys.path.insert(0, "tests")
from test_paper import TINY, fake_perform
from keras_qsn.paper import cells, grid, runner
from keras_qsn.paper.figures import FIGURES

folder, log = sys.argv[1:]
started = 0

def perform(cell, *args):
    global started
    with open(log, "a") as file:
        file.write(cells.key(cell) + "\\n")
    if started == int(os.environ["KILL_AFTER"]):
        os.kill(os.getpid(), signal.SIGKILL)
    started += 1
    return fake_perform(cell, *args)

runner.perform = perform
rows = FIGURES["fig11"].rows(grid.Grid(TINY, "digits", 0))
runner.run([c for r in rows for c in (r.cell, r.worst) if c], folder)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Half a figure for real: no defence and CQ under each of its attacks."""
    out = tmp_path_factory.mktemp("paper")
    whole = FIGURES["fig11"]
    half = dataclasses.replace(
        whole, make_rows=lambda grid: whole.rows(grid)[:3]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "QUICK", TINY)
        patch.setitem(FIGURES, "fig11", half)
        found, failures = paper.reproduce(["fig11"], True, out=out)
    assert not failures
    return out / "digits", found["digits"]


class TestReproduce:
    def test_files(self, run):
        folder, found = run
        assert json.loads((folder / "results.json").read_text()) == found
        text = (folder / "results.md").read_text()
        assert "## fig11: JSMA, targeted" in text and "black-box" in text
        picture = (folder / "fig11.png").read_bytes()
        assert picture.startswith(b"\x89PNG")

    def test_rows(self, run):
        _, found = run
        rows = found["figures"]["fig11"]["rows"]
        white_box = [r["defence"] for r in rows if "white" in r["setting"]]
        assert white_box == ["none", "CQ"]
        for row in rows:
            assert 0 <= row["measured"]["0"] <= 1
        header, table = paper.table(found, "fig11")
        assert header[2:] == ["clean", "paper", "measured", "worst case"]
        assert len(table) == len(rows)
        for row in rows:
            if row["worst_field"] == "L0" and row["worst"]["0"] is not None:
                assert row["worst"]["0"] >= 1

    def test_the_worst_case_cell(self):
        worst = cells.WorstCase(CQ, PLAIN, 0.3, images=6)
        models = [runner.perform(cell, [])[1] for cell in worst.needs]
        values, _ = runner.perform(worst, models)
        assert values["accuracy"] <= values["clean"] <= 1
        assert min(values["left"].values()) >= values["accuracy"]
        assert "cube" in values["left"] and "adaptive" in values["broken"]

    @pytest.mark.parametrize(
        "arguments, words",
        [
            ({"only": ["fig12"]}, "`only` must name figures of fig1"),
            ({"only": []}, "`only` must name figures"),
            ({"data": ["svhn"]}, "`data` must be of mnist, cifar10"),
            ({"data": ["mnist"], "quick": True}, "must not be given with"),
            (
                {"data": ["mnist"], "only": ["fig1"]},
                "must name a figure drawn for mnist",
            ),
        ],
    )
    def test_wrong_input(self, tmp_path, arguments, words):
        with pytest.raises(ValueError, match=words):
            paper.reproduce(out=tmp_path, **arguments)

    def test_digits_do_not_pass_for_mnist(self, monkeypatch, tmp_path):
        def offline():
            raise OSError("no network")

        monkeypatch.delenv("KERAS_QSN_DATA", raising=False)
        monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
        with pytest.raises(OSError, match="`reproduce --quick`"):
            paper.reproduce(["fig9"], data=["mnist"], out=tmp_path)


class TestSpread:
    def test_over_seeds(self):
        values = {"0": 0.5, "1": 0.6, "2": None}
        text = tables.spread(values, "accuracy")
        assert text == "55.0 % (50.0 to 60.0)"
        assert tables.spread({"0": 0.25}, "gain") == "+25.0 points"
        assert tables.spread({"0": 1.234}, "L2") == "L2 1.23"
        assert tables.spread({"0": None}, "L2") == "–"


# In this process, where work is left out.
HERE = ["--workers", "1"]


class TestFailedChecks:
    def test_are_marked_and_named(self):
        """A worst case that a check denies is not printed bare."""
        found = paper.load_results("digits")
        rows = found["figures"]["fig10"]["rows"]
        for row in rows:
            row["failed_checks"] = {"0": None}
        assert not paper.failed_checks(found, "fig10")
        assert "†" not in str(paper.table(found, "fig10"))
        rows[1]["failed_checks"] = {"0": [], "1": ["more steps break more"]}
        assert paper.failed_checks(found, "fig10") == ["more steps break more"]
        _, cells = paper.table(found, "fig10")
        marked = [line[-1].endswith("†") for line in cells]
        assert marked == [index == 1 for index in range(len(rows))]
        text = tables.to_markdown(found)
        assert "† Failed checks: more steps break more." in text


class TestCommand:
    def test_all_figures_at_once(self, tmp_path, monkeypatch, capsys):
        """With the work left out: every table is printed, every plot drawn."""
        monkeypatch.setattr(runner, "perform", _drawable)
        out = tmp_path / "out"
        command = ["reproduce", "--quick", *HERE, "--seeds", "0", "1"]
        assert cli.main([*command, "--out", str(out)]) == 0
        shown = capsys.readouterr().out
        for name in FIGURES:
            assert f"{name}: " in shown
            assert (out / "digits" / f"{name}.png").stat().st_size > 5000
        found = json.loads((out / "digits" / "results.json").read_text())
        assert found["seeds"] == [0, 1]

    def test_no_run_shows_what_has_finished(self, tmp_path, monkeypatch):
        """Runs of other figures and seeds, gathered into one table."""
        monkeypatch.setattr(runner, "perform", _drawable)
        command = ["reproduce", "--quick", *HERE, "--out", str(tmp_path)]
        for only, seed in (("fig9", "0"), ("fig9", "1"), ("fig7", "0")):
            assert cli.main([*command, "--only", only, "--seeds", seed]) == 0
        monkeypatch.delattr(runner, "perform")
        assert cli.main([*command, "--no-run", "--seeds", "0", "1", "2"]) == 0
        found = json.loads((tmp_path / "digits" / "results.json").read_text())
        for name, seeds in (("fig9", 2), ("fig7", 1), ("fig11", 0)):
            for row in found["figures"][name]["rows"]:
                if row["field"] == "accuracy" and row["defence"] != "none":
                    values = row["measured"].values()
                    assert sum(v is not None for v in values) == seeds

    def test_failures_show_in_the_status(self, tmp_path, monkeypatch, capsys):
        def failing(cell, *args):
            raise ValueError("no luck")

        monkeypatch.setattr(runner, "perform", failing)
        command = ["reproduce", "--quick", *HERE, "--only", "z", "--out"]
        assert cli.main([*command, str(tmp_path)]) == 1
        assert "no luck" in capsys.readouterr().out

    def test_wrong_input(self, tmp_path, capsys):
        command = ["reproduce", "--only", "fig2", "--out", str(tmp_path)]
        assert cli.main(command) == 2
        assert "`only` must name figures" in capsys.readouterr().err


def _drawable(cell, needed, data_dir=None):
    values, content = fake_perform(cell, needed)
    if isinstance(cell, cells.Network):
        curve = [0.2, 0.5]
        history = {"val_adv_accuracy": curve, "val_accuracy": curve}
        return {**values, "history": history, "data": "digits"}, content
    images = np.zeros((1, 28, 28, 1), "float32")
    names = ("x", "x_adv", "seen", "seen_adv")
    arrays = {
        **dict.fromkeys(names, images),
        "clean": np.zeros(1, int),
        "prediction": np.ones(1, int),
    }
    distortion = {"L0": 3.0, "L2": 1.5, "Linf": 0.3}
    return {**values, "distortion": distortion}, arrays
