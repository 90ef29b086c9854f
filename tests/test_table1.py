"""Table 1, measured: its defences, its cells, its two tables."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn import datasets
from keras_qsn import paper
from keras_qsn.classifier.detector import Detector
from keras_qsn.defenses import InhibitedDense
from keras_qsn.defenses import inhibit_gradients
from keras_qsn.paper import attacking
from keras_qsn.paper import cells
from keras_qsn.paper import measuring
from keras_qsn.paper import networks
from keras_qsn.paper import runner
from keras_qsn.paper import tables
from keras_qsn.paper.defences import AFTER
from keras_qsn.paper.defences import AIMS
from keras_qsn.paper.defences import BUILT
from keras_qsn.paper.defences.after import After
from keras_qsn.paper.figures import table1
from keras_qsn.paper.grid import FULL
from keras_qsn.paper.grid import QUICK
from keras_qsn.paper.grid import Grid

SMALL = cells.Network(
    "digits", epochs=1, train_images=200, architecture="small", watched=False
)
GANS = {
    "APE-GAN": {"width": 2, "epochs": 12, "learning_rate": 0.02},
    "Defense-GAN": {"width": 2, "epochs": 1, "num_steps": 1},
}
TINY = dataclasses.replace(
    QUICK,
    epochs=1,
    train_images=200,
    table={"architecture": "small"},
    table_without=(),
    settings={**GANS, "PGD": {"nb_iter": 1}, "TRADES": {"nb_iter": 1}},
)


def made(network):
    """The model of a network, and of all that it needs; and plain values."""
    contents = {}
    for cell in cells.with_needs([network]):
        needed = [contents[each] for each in cell.needs]
        values, contents[cell] = runner.perform(cell, needed)
    return runner._model(contents[network]), values


class TestDefences:
    def test_names_are_of_one_thing_each(self):
        """Settings are found by them."""
        names = [*BUILT, *AIMS, *AFTER]
        assert len({*names} - {"none", "", "signum"}) == len(names) - 4

    @pytest.mark.parametrize("scale", [FULL, QUICK])
    def test_settings_are_known_to_what_has_them(self, scale):
        for name, settings in scale.settings.items():
            function = (
                AIMS[name].objectives if name in AIMS else AFTER[name].put
            )
            assert {*settings} <= {*function.__code__.co_varnames}

    def test_a_companion_differs_by_its_aim_alone(self):
        own = (("distillation", (("temperature", 20.0),)), ("DQA", ()))
        student = dataclasses.replace(SMALL, aim="distillation", settings=own)
        (teacher,) = student.needs
        wanted = dataclasses.replace(student, aim="teacher", settings=own[1:])
        assert teacher == wanted and not teacher.needs
        assert student.own("distillation") == {"temperature": 20.0}

    def test_after_training_comes_what_is_deployed(self):
        """DQA is trained straight through, and what is kept is not changed."""
        trained = dataclasses.replace(SMALL, defence="DQA")
        content = runner.perform(trained, [])[1]
        model = runner._model(content)
        masked, _ = networks.deployed(
            dataclasses.replace(trained, after="signum"), model, None
        )
        gradients = [
            {q.gradient for q in each.layers if hasattr(q, "gradient")}
            for each in (model, masked)
        ]
        assert gradients == [{"straight_through"}, {"signum"}]
        x = np.random.default_rng(0).random((3, 28, 28, 1), "float32")
        np.testing.assert_array_equal(model(x), masked(x))

    def test_inhibition_is_chosen_on_images_not_trained_on(self, digits):
        network = dataclasses.replace(
            SMALL, defence="hashed", after="random inhibition"
        )
        model, values = made(network)
        (layer,) = (q for q in model.layers if isinstance(q, InhibitedDense))
        assert layer.tau > 0 and layer.spread == 0.5
        plain = networks.parameters(networks.built(SMALL, (28, 28, 1)))
        assert values["parameters"] < plain
        everything = dataclasses.replace(network, train_images=None)
        with pytest.raises(ValueError, match="was not trained on"):
            networks.deployed(everything, model, digits)

    def test_a_collapsed_gan_is_said(self, digits):
        network = dataclasses.replace(
            SMALL,
            after="Defense-GAN",
            settings=tuple((k, tuple(v.items())) for k, v in GANS.items()),
        )
        model = networks.built(SMALL, (28, 28, 1))
        with pytest.raises(ValueError, match="collapsed"):
            networks.deployed(network, model, digits)

    def test_every_line_is_trained_and_answers(self, digits):
        x = digits.x_test[:8]
        for name, network in table1.networks(Grid(TINY, "digits", 0)).items():
            if network.after == "Defense-GAN":
                continue
            model, values = made(network)
            assert np.isfinite(model(x)).all(), name
            assert values["parameters"] > 1000


class TestMeasuring:
    def test_the_softmax_of_large_logits_hides_the_gradient(
        self, trained, digits
    ):
        model = inhibit_gradients(trained["none"], 10.0)
        x, y = digits.x_test[::20], digits.y_test[::20]
        left = {}
        for name in ("FGSM, softmax", "FGSM"):
            cell = cells.Attacked(SMALL, name, 0.3)
            found = attacking.ATTACKS[name](cell).run(model, x, y, verbose=0)
            left[name] = (found.prediction == y).mean()
        assert left["FGSM, softmax"] > left["FGSM"] + 0.2

    def test_what_a_detector_rejects_fools_nobody(
        self, monkeypatch, trained, digits
    ):
        """Of the images as they are, it is lost."""

        class Bright(Detector):
            threshold = 0.2

            def call(self, x):
                return tf.reduce_mean(x, [1, 2, 3])

        model = trained["none"]
        watched = dataclasses.replace(SMALL, after="bright")
        monkeypatch.setitem(
            AFTER, "bright", After(detector=lambda *_: Bright())
        )
        left = []
        for network in (SMALL, watched):
            cell = cells.Attacked(network, "FGSM", 0.3, images=60)
            values, _ = measuring.measure_attack(cell, model, None, digits)
            left.append((values["clean"], values["accuracy"]))
        x, _ = datasets.seeded_subset(digits.x_test, digits.y_test, 60, 0)
        rejected = (x.mean((1, 2, 3)) > 0.2).mean()
        assert 0 < rejected
        assert left[0][0] - rejected <= left[1][0] < left[0][0]
        # FGSM brightens: nearly all of it is rejected.
        assert left[1][1] > left[0][1]

    def test_answers_at_random_are_counted(self, digits):
        noise = keras.layers.GaussianNoise(1.0, seed=0)
        images = keras.Input((28, 28, 1))
        flat = keras.layers.Flatten()(noise(images, training=True))
        model = keras.Model(images, keras.layers.Dense(10)(flat))
        cell = cells.Attacked(SMALL, "FGSM", 0.1, images=30)
        first, _ = measuring.measure_attack(cell, model, None, digits)
        again, _ = measuring.measure_attack(cell, model, None, digits)
        assert first == again

    def test_times_of_one_network_are_alike(self, digits):
        cell = cells.Inference(SMALL, SMALL, images=256)
        model = networks.built(SMALL, (28, 28, 1))
        values, _ = measuring.measure_inference(cell, model, model, digits)
        assert 0.3 < values["ratio"] < 3 and values["milliseconds"] > 0


class TestTable:
    def test_every_published_limitation_has_its_columns(self):
        for grid in (Grid(QUICK, "digits", 0), Grid(FULL, "mnist", 0)):
            rows = table1.table1(grid)
            there = {(row.defence, row.setting) for row in rows}
            for name in table1.networks(grid):
                for wanted in table1.ENTRIES[name].limitations.values():
                    assert {(name, column) for column in wanted} <= there
            assert {setting for _, setting in there} <= {*table1.COLUMNS}

    def test_nothing_is_carried_over_from_the_network_itself(self):
        for row in table1.table1(Grid(FULL, "mnist", 0)):
            source = getattr(row.cell, "source", None)
            assert source is None or source != row.cell.network

    def test_in_full_fig9_shares_its_networks(self):
        lines = table1.networks(Grid(FULL, "mnist", 0))
        grid = Grid(FULL, "mnist", 0)
        unwatched = {"watched": False}
        assert lines["undefended"] == grid.network(**unwatched)
        assert lines["CQ"] == grid.network("CQ", **unwatched)

    def test_a_line_for_each_defence(self):
        header, lines = tables.table(results(), "table1")
        assert header[:3] == ["defence", "clean", "FGSM"]
        assert header[-2:] == ["its own paper", "masks"]
        by_name = {line[0]: dict(zip(header, line)) for line in lines}
        assert by_name["CQ"]["worst case"] == "30.0 % †"
        assert by_name["CQ"]["masks"] == "quant: zero"
        assert by_name["undefended"]["training"] == "1.0 ×"
        assert by_name["DQA *"]["parameters"] == "–"

    def test_limitations_are_read_off_the_cells(self):
        header, rows = paper.limitations(results())
        held = {(line[0], line[1]): line[2:] for line in rows}
        assert held["CQ", "CW"][0] == "yes"
        assert held["CQ", "JSMA"] == [
            "no",
            "JSMA leaves 80.0 % of 90.0 %, at a median L0 of 12.00 "
            "(undefended 6.00)",
        ]
        assert held["DQA *", "transfer attacks"][0] == "not measured"
        assert held["DQA *", "black-box attacks"] == [
            "yes",
            "substitute leaves 30.0 % of 90.0 %",
        ]

    def test_results_without_it_are_refused(self):
        with pytest.raises(ValueError, match="must hold the figure 'table1'"):
            paper.limitations({"figures": {"fig9": {}}})

    def test_drawn(self):
        figure = paper.plot(results(), "table1")
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert "90" in texts and "30" in texts


def results():
    """As `reproduce` returns them, of three defences by hand."""

    def row(defence, setting, value, field="accuracy", **more):
        return {
            "defence": defence,
            "setting": setting,
            "at": None,
            "printed": None,
            "field": field,
            "measured": {"0": value},
            "clean": {"0": 0.9},
            "claim": "",
            "masks": {"0": None},
            "failed_checks": {"0": []},
            "distortion": {"0": None},
            **more,
        }

    far = {"distortion": {"0": {"L0": 12.0, "L2": 2.0}}}
    near = {"distortion": {"0": {"L0": 6.0, "L2": 1.0}}}
    found = {"failed_checks": {"0": ["no"]}, "masks": {"0": ["quant: zero"]}}
    rows = [
        row("undefended", "FGSM", 0.1),
        row("undefended", "CW-L2", 0.0, **near),
        row("undefended", "JSMA", 0.1, **near),
        row("undefended", "worst case", 0.0),
        row("undefended", "training", 1.0, "training"),
        row("CQ", "FGSM", 0.7),
        row("CQ", "CW-L2", 0.44, **far),
        row("CQ", "JSMA", 0.8, **far),
        row("CQ", "worst case", 0.3, **found),
        row("CQ", "training", 1.5, "training"),
        row("DQA *", "transfer", None),
        row("DQA *", "substitute", 0.3),
        row("DQA *", "worst case", None),
        row("DQA *", "parameters", None, "parameters"),
    ]
    figure = {"title": "", "paper": "", "kind": "table", "rows": rows}
    return {"description": "", "data": "digits", "figures": {"table1": figure}}
