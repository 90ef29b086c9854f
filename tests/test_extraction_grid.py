"""The grid's copies: victims, what thieves ask about, the table."""

import dataclasses

import numpy as np
import pytest

from keras_qsn import datasets
from keras_qsn import paper
from keras_qsn.datasets.files import data_folder
from keras_qsn.paper import cells
from keras_qsn.paper import extracting
from keras_qsn.paper import networks
from keras_qsn.paper import pools
from keras_qsn.paper import runner
from keras_qsn.paper import tables
from keras_qsn.paper.defences import AFTER
from keras_qsn.paper.defences import quantized
from keras_qsn.paper.defences.held_out import held_back
from keras_qsn.paper.defences.held_out import held_out
from keras_qsn.paper.figures import FIGURES
from keras_qsn.paper.grid import FULL
from keras_qsn.paper.grid import QUICK
from keras_qsn.paper.grid import Grid

FLOAT = cells.Network(
    "digits", epochs=20, train_images=300, architecture="small", watched=False
)
COPY = cells.Extracted(FLOAT, FLOAT, "CopyCat", "hard", 100, 0.1)


@pytest.fixture(scope="module")
def content():
    return runner.perform(FLOAT, [])[1]


@pytest.fixture
def no_folder(monkeypatch):
    monkeypatch.delenv("KERAS_QSN_DATA", raising=False)


class TestVictims:
    def test_images_are_trained_on_held_out_or_asked_about(self, digits):
        network = dataclasses.replace(FLOAT, train_images=2000, seed=3)
        own, _ = datasets.seeded_subset(digits.x_train, digits.y_train, 2000, 3)
        parts = own, held_out(network, digits)[0], held_back(network, digits)[0]
        assert [len(part) for part in parts] == [2000, 1000, 1000]
        apart, whole = np.concatenate(parts), digits.x_train
        assert len(np.unique(apart, axis=0)) == len(np.unique(whole, axis=0))

    @pytest.mark.parametrize(
        "right, wanted",
        [
            # The largest weight that costs at most a point.
            ({0.0: 90, 0.4: 50, 0.3: 88, 0.2: 89, 0.1: 95}, 0.2),
            ({0.0: 90, 0.4: 90}, 0.4),
            ({0.0: 90, 0.4: 0, 0.3: 0, 0.2: 0, 0.1: 0}, 0.0),
        ],
    )
    def test_the_weight_keeps_the_accuracy(self, monkeypatch, right, wanted):
        labels = np.zeros(100, int)

        class Twin:
            def __init__(self, weight):
                self.weight = weight

            def predict(self, x):
                return np.arange(100) >= right[self.weight]

        def trained(model, network, data, weight, epochs):
            assert epochs == 7
            return weight

        monkeypatch.setattr(quantized, "with_qat", trained)
        monkeypatch.setattr(quantized.KerasModelWrapper, "of", Twin)
        monkeypatch.setattr(quantized, "held_out", lambda *_: (None, labels))
        found = quantized.largest_weight(None, FLOAT, None, epochs=7)
        assert found == {"weight": wanted}

    def test_the_twin_is_trained_with_the_weight_chosen(
        self, monkeypatch, content, digits
    ):
        after = dataclasses.replace(
            AFTER["DivQAT"], chosen=lambda *_, epochs: {"weight": 0.3}
        )
        monkeypatch.setitem(AFTER, "DivQAT", after)
        own = (("DivQAT", (("epochs", 1),)),)
        network = dataclasses.replace(FLOAT, after="DivQAT", settings=own)
        assert [each.after for each in network.needs] == [""]
        model = runner._model(content)
        divided, values = networks.deployed(network, model, digits)
        assert values["chosen"] == {"weight": 0.3}
        plain = quantized.with_qat(model, network, digits, epochs=1)
        x = digits.x_test[:50]
        apart = np.abs(divided(x) - plain(x)).max(-1)
        assert (apart > 1e-3).mean() > 0.9


class TestPools:
    def test_a_turned_character_is_another_one(self):
        x = np.arange(2 * 9, dtype="uint8").reshape(2, 3, 3)
        images, classes = pools.turned(x, np.array([0, 4]))
        assert classes.tolist() == [0, 4, 5, 9, 10, 14, 15, 19]
        np.testing.assert_array_equal(images[3], np.rot90(x[1]))
        np.testing.assert_array_equal(images[6][::-1, ::-1], np.rot90(x[0]))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_crops_are_parts_of_the_picture_in_its_sizes(self, channels):
        """Of a slope, whose pixels tell place and size."""
        rows = np.repeat(np.arange(64.0)[:, None], 40, 1) / 64
        picture = np.repeat(rows[..., None], 3, -1).astype("float32")
        found = pools.crops([picture], 60, (6, 5, channels), seed=1)
        assert found.shape == (60, 6, 5, channels)
        steps = np.diff(found, axis=1)
        np.testing.assert_allclose(np.diff(found, axis=2), 0, atol=1e-6)
        sizes = np.unique((64 * steps.mean((1, 2, 3))).round(3))
        # Halved three times it has 8 rows and 5 columns.
        assert sizes.tolist() == [1, 2, 4, 8]
        again = pools.crops([picture], 60, (6, 5, channels), seed=1)
        np.testing.assert_array_equal(found, again)

    def test_crops_are_mirrored_at_times(self):
        slope = np.linspace(0, 1, 40, dtype="float32")
        picture = np.broadcast_to(slope[:, None], (40, 40, 3))
        found = pools.crops([picture], 40, (30, 30, 1), seed=0)
        up = (found[:, 0, -1] > found[:, 0, 0]).mean()
        assert 0.2 < up < 0.8

    def test_outside_of_digits_are_characters_if_there_are_any(
        self, no_folder, digits, tmp_path
    ):
        x, classes, words = pools.POOLS["outside"](COPY, digits, tmp_path)
        assert x.shape == (100, 28, 28, 1) and classes is None
        assert words == "crops of two photographs (scikit-learn)"
        assert 0 <= x.min() < 0.2 and 0.8 < x.max() <= 1
        drawn = np.full((3, 28, 28), 51, "uint8")
        np.savez(tmp_path / pools.OMNIGLOT, x=drawn, y=np.arange(3))
        x, classes, words = pools.POOLS["outside"](COPY, digits, tmp_path)
        assert words == "Omniglot characters, turned"
        assert x.shape == (12, 28, 28, 1) and len({*classes}) == 12
        np.testing.assert_allclose(x, 0.2)
        in_color = digits._replace(x_train=np.zeros((1, 32, 32, 3)))
        x, _, words = pools.POOLS["outside"](COPY, in_color, tmp_path)
        assert x.shape == (100, 32, 32, 3) and "photographs" in words
        assert np.ptp(x, -1).max() > 0.1

    def test_noise_is_drawn_by_the_seed(self, digits):
        other = dataclasses.replace(COPY, seed=1)
        x, again, others = (
            pools.POOLS["noise"](cell, digits, None)[0]
            for cell in (COPY, COPY, other)
        )
        np.testing.assert_array_equal(x, again)
        assert x.shape == (100, 28, 28, 1) and (x != others).all()

    def test_photographs_say_what_they_need(self, monkeypatch):
        monkeypatch.setattr(pools.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(ImportError, match="Photographs come with scikit"):
            pools.photographs()

    def test_the_folder_named_goes_before_the_one_set(self, monkeypatch):
        monkeypatch.setenv("KERAS_QSN_DATA", "set")
        assert str(data_folder("named")) == "named"
        assert str(data_folder()) == "set"


class TestMeasuring:
    def test_a_copy_is_measured(self, content, digits):
        soft = dataclasses.replace(
            COPY, attack="KnockoffNets", answers="soft", told="reverse sigmoid"
        )
        moved = []
        for cell in (soft, COPY):
            values, arrays = runner.perform(cell, [content] * 2)
            agree = arrays["victim"] == arrays["copy"]
            assert values["agreement"] == agree.mean()
            right = {name: arrays[name] == digits.y_test for name in arrays}
            assert values["clean"] == right["victim"].mean()
            assert values["copy"] == right["copy"].mean() > 0.3
            assert values["queries"] == 100 and values["images"] == 1000
            assert 0 < values["fooled"] <= 1
            moved.append(values["l1"])
        # The class alone says more than what was bent.
        assert moved[0] > moved[1] > 0

    def test_who_averages_pays_for_each_answer(self, content):
        attack = "KnockoffNets, mean of 5"
        cell = dataclasses.replace(COPY, attack=attack, told="noise")
        values, _ = runner.perform(cell, [content] * 2)
        assert values["queries"] == 100
        assert extracting.ATTACKS[attack](100).repeats == 5

    def test_the_copy_starts_elsewhere(self, monkeypatch, content, digits):
        """As the victim's architecture, without what was done to it."""
        started = []

        class Stopped(Exception):
            pass

        def run(self, victim, copy, *args, **settings):
            started.append(copy)
            raise Stopped

        monkeypatch.setattr(extracting.extraction.CopyCat, "run", run)
        model = runner._model(content)
        network = dataclasses.replace(FLOAT, after="QAT")
        cell = dataclasses.replace(COPY, network=network)
        with pytest.raises(Stopped):
            extracting.measure_extraction(cell, model, model, digits)
        wanted = networks.built(
            dataclasses.replace(FLOAT, seed=1), (28, 28, 1)
        ).get_weights()
        for own, other in zip(started[0].get_weights(), wanted):
            np.testing.assert_array_equal(own, other)


class TestFigure:
    @pytest.mark.parametrize(
        "scale, data", [(FULL, "mnist"), (FULL, "cifar10"), (QUICK, "digits")]
    )
    def test_beside_soft_answers_stands_who_takes_the_class(self, scale, data):
        rows = FIGURES["extraction"].rows(Grid(scale, data, 0))
        names = list(dict.fromkeys(row.defence for row in rows))
        assert len(names) == 3 * (1 + len(scale.answers))
        there = {(row.defence, row.setting): row.cell for row in rows}
        assert len({*there.values()}) == len(there) == len(rows)
        for name in names:
            soft = there[name, "KnockoffNets, soft, held back"]
            hard = there[name, "CopyCat, hard, held back"]
            assert soft.told == hard.told and soft.network == hard.network
        for cell in there.values():
            assert cell.attack in extracting.ATTACKS
            assert cell.told in extracting.DEFENCES
            assert cell.pool in pools.POOLS
            assert cells.with_needs([cell])[0] == cell.original
        averaging = [n for n, setting in there if ", mean of 5," in setting]
        assert averaging == [n for n in names if n.endswith(", noise")]
        asked = {cell.pool for cell in there.values()}
        assert asked == {*pools.POOLS}

    def test_there_are_more_images_than_questions(self):
        """Else adaptive sampling has nothing to choose from."""
        for scale, images in ((FULL, 50000), (QUICK, 4000)):
            network = dataclasses.replace(
                FLOAT, train_images=scale.victim_images
            )
            data = datasets.Dataset("", *[np.zeros(images)] * 4)
            assert len(held_back(network, data)[0]) > scale.queries


class TestTable:
    def test_a_line_for_each_copy(self):
        header, lines = paper.table(results(), "extraction")
        assert header[2:5] == ["queries", "agreement", "copy right"]
        assert lines[0] == [
            *("float", "KnockoffNets, soft, outside", "1,000", "90.0 %"),
            *("80.0 %", "95.0 %", "70.0 %", "0.125"),
        ]
        assert lines[1][2:] == ["–"] * 6

    def test_says_what_was_asked_about_and_which_weight(self):
        text = tables.to_markdown(results())
        assert "Images outside: characters. Weight" in text
        assert "held-out images: 0.2 (seed 0)." in text
        assert "| --- | --- | ---: |" in text

    def test_drawn(self):
        figure = paper.plot(results(), "extraction")
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert texts == ["95", "90"]

    def test_the_results_that_come_with_the_package(self):
        """No defence of probabilities hides a class."""
        found = paper.load_results("digits")
        _, lines = paper.table(found, "extraction")
        by_copy = {tuple(line[:2]): line[2:] for line in lines}
        hard = "CopyCat, hard, held back"
        for victim in ("float", "QAT", "DivQAT"):
            defended = by_copy[f"{victim}, reverse sigmoid", hard]
            assert defended == by_copy[victim, hard]
        wanted = FIGURES["extraction"].rows(Grid(QUICK, "digits", 0))
        assert [*by_copy] == [(row.defence, row.setting) for row in wanted]


def results():
    """As `reproduce` returns them, of two copies by hand."""

    def row(defence, **values):
        names = ("measured", "clean", "copy", "fooled", "l1", "queries")
        return {
            "defence": defence,
            "setting": "KnockoffNets, soft, outside",
            "field": "agreement",
            **{name: {"0": values.get(name)} for name in names},
            "asked": {"0": values.get("asked")},
            "chosen": {"0": values.get("chosen")},
            "failed_checks": {"0": None},
        }

    rows = [
        row(
            "float",
            measured=0.9,
            clean=0.95,
            copy=0.8,
            fooled=0.7,
            l1=0.125,
            queries=1000,
            asked="characters",
            chosen={},
        ),
        row("DivQAT", chosen={"weight": 0.2}),
    ]
    figure = {"title": "", "paper": "", "kind": "copies", "rows": rows}
    return {
        "description": "",
        "data": "digits",
        "seeds": [0],
        "scale": dataclasses.asdict(QUICK),
        "figures": {"extraction": figure},
    }
