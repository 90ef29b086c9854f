"""The report of an evaluation: what it says, and that it is sound HTML."""

import dataclasses
import datetime
import html.parser
import io
import json
import os
import re

import numpy as np
import pytest

from example_evaluation import BREAKS
from example_evaluation import CHECKS
from example_evaluation import SCRIPT
from example_evaluation import STEPS
from example_evaluation import digits
from example_evaluation import example
from keras_qsn import attacks
from keras_qsn import report
from keras_qsn._core.shares import wilson_interval
from keras_qsn.evaluation.outcomes import Check
from keras_qsn.evaluation.outcomes import Step
from keras_qsn.report import charts
from keras_qsn.report import summary
from keras_qsn.report import tables
from keras_qsn.report.page import html_page
from keras_qsn.report.pictures import pictures
from keras_qsn.version import __version__

NOTHING = {"steps": [], "breaks": [], "checks": []}
VOID = {"meta", "img", "source", "br", "hr", "link", "input"}
FILES = [
    "robustness.json",
    "robustness.md",
    "robustness_broken.png",
    "robustness_curve.png",
    "robustness_loss.png",
    "robustness_images.png",
    "report.html",
]


class Page(html.parser.HTMLParser):
    """What a page holds; fails where a tag is left open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts.setdefault(tag, []).append(data)

    def text(self, tag):
        return re.sub(r"\s+", " ", "".join(self.texts.get(tag, [])))

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def evaluation():
    return example()


@pytest.fixture(scope="module")
def page(evaluation):
    return Page(html_page(evaluation, pictures(evaluation)))


def bare(**changes):
    """An evaluation of which there is nothing to show but its accuracy."""
    evaluation = example(**{**NOTHING, **changes})
    return dataclasses.replace(evaluation, curve={}, trace={})


class TestJson:
    def test_is_the_worst_case_over_all_attacks(self, evaluation):
        data = report.to_json(evaluation)
        images = data["images"]
        robust = [
            image["prediction"] == image["label"] and not image["broken_by"]
            for image in images
        ]
        share = sum(robust) / len(images)
        assert share == (96 - 6 - sum(BREAKS)) / 96
        low, high = wilson_interval(share, 96)
        assert data["robust_accuracy"] == {
            "share": share,
            "images": 96,
            "low": low,
            "high": high,
        }
        assert data["attacks"][-1]["accuracy_left"] == data["robust_accuracy"]
        names = [image["broken_by"] for image in images]
        for step, count, entry in zip(STEPS, BREAKS, data["attacks"]):
            assert names.count(step.name) == count == entry["broken"]
            assert entry["name"] == step.name
            assert entry["config"] == step.attack.get_config()
            assert entry["attack"] == type(step.attack).__name__
        moved = [image["distance"] for image in images if image["broken_by"]]
        np.testing.assert_allclose(moved, 0.3, atol=1e-6)
        assert data["clean_accuracy"]["share"] == 90 / 96

    def test_documents_each_key(self, evaluation):
        def keys(value):
            if isinstance(value, list):
                return set().union(*map(keys, value))
            if isinstance(value, dict):
                return set(value).union(*map(keys, value.values()))
            return set()

        data = report.to_json(evaluation)
        for free in ("settings", "curve", "trace"):
            data[free] = list(data[free].values())
        for entry in data["attacks"]:
            entry["config"] = None
        data["settings"] = None
        documented = report.to_json.__doc__
        found = {key for key in keys(data) if key not in summary.GRADIENTS}
        assert found
        assert {key for key in found if f"`{key}`" not in documented} == set()

    def test_is_plain_and_has_no_nan(self, evaluation):
        strange = dataclasses.replace(
            evaluation,
            settings={**evaluation.settings, "eps": np.float32(0.5)},
            curve={"a": [(np.float32(0.5), np.float64(0.25))]},
            trace={"a": np.array([1.0, np.nan, np.inf], "float32")},
        )
        data = report.to_json(strange)
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        assert data["trace"] == {"a": [1.0, None, None]}
        assert data["curve"]["a"][0]["eps"] == 0.5
        assert data["schema_version"] == 2

    def test_a_curve_of_unknown_images_has_no_interval(self):
        data = report.to_json(example(curve_images=None))
        for points in data["curve"].values():
            for point in points:
                assert point["accuracy"]["images"] is None
                assert point["accuracy"]["low"] is None
        text = html_page(example(curve_images=None), [])
        assert "without intervals" in text


class TestSummary:
    @pytest.mark.parametrize(
        "kept, status, words",
        [
            ((0, 1, 2, 3), "warn", "1 of 3 checks failed, none of the adap"),
            ((0, 2, 3), "warn", "None of 2 checks failed, 1 warns"),
            ((0, 2, 2), "warn", "None of 3 checks failed, 2 warn:"),
            ((0, 3), "pass", "All 1 checks passed"),
            ((3,), "warn", "No check was run"),
            ((), "warn", "No check was run"),
        ],
    )
    def test_verdict(self, kept, status, words):
        evaluation = example(checks=[CHECKS[i] for i in kept])
        assert summary.verdict(evaluation)[0] == status
        assert words in summary.verdict(evaluation)[1]

    @pytest.mark.parametrize(
        "own_gradient, adaptive, status",
        [
            (True, True, "warn"),
            (True, False, "fail"),
            (False, True, "fail"),
        ],
    )
    def test_a_masked_gradient_does_not_condemn_adaptive_attacks(
        self, own_gradient, adaptive, status
    ):
        failed = dataclasses.replace(CHECKS[1], own_gradient=own_gradient)
        steps = [s for s in STEPS if adaptive or s.threat != "adaptive"]
        evaluation = example(
            checks=[CHECKS[0], failed], steps=steps, breaks=[0] * len(steps)
        )
        found, sentence = summary.verdict(evaluation)
        assert found == status and "1 of 2 checks failed" in sentence
        assert ("do not quote a white-box column" in sentence) == (
            status == "warn"
        )

    def test_counts_what_white_box_attacks_missed(self, evaluation):
        found = {"adaptive": 17, "transfer": 0, "queries": 2}
        assert evaluation.unmasked == found
        assert "adaptive 17, transfer 0, queries 2" in summary.masking(
            evaluation
        )
        assert "sign of a masked gradient" in summary.masking(evaluation)

    def test_what_white_box_attacks_never_saw_is_no_sign(self):
        transfer_first = example(
            steps=[STEPS[3], STEPS[0]], breaks=[20, 5], wrong=0
        )
        nothing = {"adaptive": None, "transfer": None, "queries": None}
        assert transfer_first.unmasked == nothing
        assert "nothing here can show" in summary.masking(transfer_first)

    def test_what_one_step_missed_is_no_sign(self):
        """Ten steps, too, break what one missed."""
        one = example(steps=[STEPS[0], STEPS[5]], breaks=[5, 15])
        assert one.unmasked["queries"] is None
        assert "nothing here can show" in summary.masking(one)

    def test_one_image_is_no_sign(self):
        one = example(steps=[STEPS[1], STEPS[5]], breaks=[5, 1])
        assert "too few to tell" in summary.masking(one)

    def test_what_checks_break_after_their_own_gradient_attacks_is_a_sign(
        self,
    ):
        steps = [STEPS[0]] + [
            Step(f"checks: {threat}", threat, None)
            for threat in ("white-box", "queries")
        ]
        assert "queries 9" in summary.masking(
            example(steps=steps, breaks=[5, 20, 9])
        )
        found = example(steps=steps[:2], breaks=[5, 20]).unmasked
        assert set(found.values()) == {None}

    def test_attacks_that_find_nothing_more_are_no_sign(self):
        evaluation = example(steps=[STEPS[1], STEPS[5]], breaks=[5, 0])
        assert "which is no sign of a masked gradient" in summary.masking(
            evaluation
        )

    def test_names_what_the_number_is_of(self, evaluation):
        facts = dict(summary.facts(evaluation))
        assert facts["Norm"] == "L∞" and facts["eps"] == "0.3"
        assert facts["Images"] == "96" and facts["Seed"] == "7"
        assert facts["Attacks"] == "6" and facts["Plan"] == "standard"
        effort = "steps 100, restarts 2, queries 1000"
        assert facts["Largest effort"] == effort
        assert "white-box: the model's own" in facts["Gradients followed"]
        assert "queries: none" in facts["Gradients followed"]

    def test_norm_and_distance_in_l2(self):
        evaluation = example(norm=2)
        assert dict(summary.facts(evaluation))["Norm"] == "L2"
        delta = (evaluation.x_adv - evaluation.x).reshape(96, -1)
        np.testing.assert_allclose(
            summary.distances(evaluation),
            np.linalg.norm(delta, axis=1),
            rtol=1e-5,
        )

    def test_parameters_leave_out_what_all_attacks_share(self):
        class Wrapped(attacks.FastGradientMethod):
            def get_config(self):
                inner = attacks.FastGradientMethod(0.1, seed=7)
                config = {
                    "class_name": "FastGradientMethod",
                    "config": inner.get_config(),
                }
                return {"attack": config, "source": "plain"}

        steps = [
            Step("a", "transfer", Wrapped(0.3)),
            Step("b", "white-box", attacks.CarliniWagnerL2(), max_images=9),
            Step("c", "adaptive", None),
        ]
        evaluation = example(steps=steps, breaks=[1, 1, 1], checks=[])
        found = [line[-1] for line in tables.attacks(evaluation)[1]]
        assert found[0] == (
            "Wrapped(attack=FastGradientMethod(eps=0.1), source=plain)"
        )
        assert "seed=" not in found[1] and "clip_min" not in found[1]
        assert found[1].startswith("CarliniWagnerL2(confidence=0.0")
        assert found[1].endswith(", first 9 images")
        assert found[2] == ""
        entry = report.to_json(evaluation)["attacks"][2]
        assert entry["attack"] is None and entry["config"] == {}


class TestPage:
    def test_asks_for_nothing_and_runs_nothing(self, page, evaluation):
        tags = {tag for tag, _ in page.tags}
        assert not tags & {"script", "link", "iframe", "object", "form"}
        sources = [*page.attributes("src"), *page.attributes("srcset")]
        assert len(sources) > 20
        assert all(source.startswith("data:image/") for source in sources)
        # Inside the page: from the verdict to the checks it speaks of.
        assert page.attributes("href") == [
            f"#check-{check.key}" for check in CHECKS[1:3]
        ]
        assert set(page.attributes("href")) <= {
            f"#{name}" for name in page.attributes("id")
        }
        assert not re.search(r"url\(|@import", page.text("style"))
        text = html_page(evaluation, [])
        assert not re.search(r"https?://", text)
        policy = dict(
            (attrs.get("http-equiv"), attrs.get("content"))
            for tag, attrs in page.tags
            if tag == "meta"
        )["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")

    def test_shows_text_from_outside_as_text(self, page):
        assert page.text("h1") == SCRIPT
        assert page.text("title") == f"Robustness of {SCRIPT}"
        assert "/data/a&b/<i>digits</i> | x" in page.text("header")

    def test_escapes_names_of_attacks_and_words_of_checks(self):
        name = '"><img src=x onerror=alert(1)>'
        step = Step(name, "white-box", STEPS[0].attack)
        checks = [Check(1, name, name, "fail", name, name, name)]
        evaluation = example(steps=[step], breaks=[3], checks=checks)
        evaluation = dataclasses.replace(
            evaluation, curve={name: [(0, 1), (1, 0)]}
        )
        found = Page(html_page(evaluation, pictures(evaluation)))
        assert "x" not in found.attributes("src")
        assert found.attributes("onerror") == []
        # The attack, and its parameters; four cells of the check; two points
        # of the curve.
        assert found.text("table").count(name) == 8
        assert f"check-{name}" in found.attributes("id")

    def test_each_image_has_words(self, page):
        images = [attrs for tag, attrs in page.tags if tag == "img"]
        assert all(attrs["alt"].strip() for attrs in images)
        assert len({attrs["alt"] for attrs in images}) == len(images)

    def test_headings_are_in_order(self, page):
        levels = [int(t[1]) for t, _ in page.tags if re.fullmatch(r"h\d", t)]
        # Below the attacks, the threat model of those that broke none.
        assert levels == [1, 2, 2, 3] + [2] * 7
        ids = page.attributes("id")
        assert len(set(ids)) == len(ids)
        assert set(page.attributes("aria-labelledby")) <= set(ids)

    def test_each_accuracy_has_an_interval(self, page, evaluation):
        number, ends = r"\d+\.\d\s%", r"\d+\.\d–\d+\.\d\s%"
        top = page.text("section").split("Attacks")[0]
        found = re.findall(rf"(?<!–)({number})\W+95\s% interval {ends}", top)
        assert [text[:-2] for text in found] == ["44.8", "93.8"]
        for table in (tables.attacks(evaluation), tables.curve(evaluation)):
            column = [i for i, t in enumerate(table[0]) if "accuracy" in t]
            assert len(column) == 1
            for line in table[1]:
                assert re.fullmatch(number, line[column[0]])
                assert re.fullmatch(ends, line[column[0] + 1])
                assert line[column[0]] in page.text("td")

    def test_status_is_a_word_and_a_sign(self, page):
        for status, sign in zip(summary.STATUS.values(), "✓!✕–"):
            assert f"{sign}1 {status}" in page.text("summary")

    def test_what_failed_is_open_and_what_passed_folded(self, page):
        folds = [attrs for tag, attrs in page.tags if tag == "details"]
        # The attacks that broke none; failed, warning, passed, not
        # applicable; the figures of the curve; parameters; settings.
        assert ["open" in attrs for attrs in folds] == [
            *[False, True, True],
            *[False] * 5,
        ]

    def test_says_what_it_is_of(self):
        evaluation = example(
            model_file="cq.keras",
            class_names=[f"<{i}>" for i in range(10)],
            facts={"num_classes": 12},
        )
        found = Page(html_page(evaluation, pictures(evaluation)))
        assert found.text("h1") == "cq.keras"
        made = f"{datetime.date.today()}, keras_qsn {__version__}"
        assert made in found.text("header")
        facts = dict(summary.facts(evaluation))
        counts = np.unique(evaluation.y, return_counts=True)[1]
        assert facts["Of each class"] == (
            f"{counts.min()} to {counts.max()}, none of 2 classes"
        )
        first = pictures(evaluation)[0]
        was, now = evaluation.y[first.index], (first.label + 5) % 10
        assert f"Image {first.index}, <{was}>, now <{now}>" in found.text(
            "figcaption"
        )

    def test_labels_for_a_phone_are_those_of_the_columns(self, page):
        assert set(page.attributes("data-label")) == set(page.texts["th"]) - {
            "\n"
        }

    def test_has_light_and_dark_charts_and_paper_gets_the_light(self, page):
        media = page.attributes("media")
        assert media == ["screen and (prefers-color-scheme: dark)"] * 3

    @pytest.mark.parametrize("steps", [[], STEPS], ids=["none", "all fail"])
    def test_nothing_to_show(self, steps):
        evaluation = bare(steps=steps, breaks=[0] * len(steps))
        text = html_page(evaluation, pictures(evaluation))
        found = Page(text).text("main")
        for words in (
            "No check was run",
            "No image was broken",
            "Not measured at other radii",
            "Not traced",
            "None was run",
        ):
            assert words in found
        assert ("None was run" in found.split("Checks")[0]) == (not steps)
        assert "No attack broke an image" in found

    def test_no_image_is_right(self):
        evaluation = bare(wrong=96, steps=STEPS, breaks=[0] * len(STEPS))
        found = Page(html_page(evaluation, [])).text("main")
        assert "Robust accuracy 0.0 % 95 % interval 0.0–3.8 %" in found
        assert "Clean accuracy is 0.0 % (95 % interval 0.0–3.8 %)" in found

    def test_flat_inputs_have_no_pictures(self, tmp_path):
        flat = digits(30).reshape(30, -1)
        evaluation = bare(x=flat, steps=STEPS[:2], breaks=[3, 1])
        assert pictures(evaluation) == []
        assert "no images of one or three" in html_page(evaluation, [])
        written = report.write_report(evaluation, tmp_path)
        assert "robustness_images.png" not in [path.name for path in written]

    def test_same_evaluation_same_bytes(self, evaluation):
        texts = [html_page(evaluation, pictures(evaluation)) for _ in range(2)]
        assert texts[0] == texts[1]


class TestPictures:
    def test_each_attack_in_turn(self, evaluation):
        shown = pictures(evaluation)
        working = [s.name for s, count in zip(STEPS, BREAKS) if count]
        assert [p.attack for p in shown[: len(working)]] == working
        assert len({p.index for p in shown}) == 8
        for picture in shown:
            assert picture.label == evaluation.y[picture.index]
            clean = evaluation.x[picture.index]
            np.testing.assert_allclose(picture.views["clean"], clean)
            assert list(picture.views) == ["clean", "adversarial", "difference"]

    def test_difference_is_grey_where_nothing_changed(self, evaluation):
        """Scaled by the largest change, 0.3; dark is darker than before."""
        for picture in pictures(evaluation):
            views = picture.views
            change = views["adversarial"] - views["clean"]
            np.testing.assert_allclose(
                views["difference"], 0.5 + change / 0.6, atol=1e-5
            )
            assert views["difference"].min() == 0

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("levels", [1, 7])
    def test_quantized_views(self, channels, levels):
        """Also of thermometers, whose channels no screen has."""
        evaluation = example(digits(30, channels), breaks=[3, 1, 1])

        def quantize(x):
            return np.concatenate([2.0 * (x > 0.5)] * levels, -1)

        for picture in pictures(evaluation, quantize):
            assert list(picture.views) == [
                "clean",
                "clean, quantized",
                "adversarial",
                "adversarial, quantized",
                "difference",
            ]
            seen = picture.views["clean, quantized"]
            assert seen.shape[-1] == (channels if levels == 1 else 1)
            assert seen.min() == 0 and 0.3 < seen.max() <= 1
        Page(html_page(evaluation, pictures(evaluation, quantize)))


class TestCharts:
    def test_curve_has_each_line_and_the_worst_case(self, evaluation):
        axis = charts.plot_curve(evaluation).axes[0]
        drawn = [line.get_xydata() for line in axis.get_lines()]
        for points, line in zip(evaluation.curve.values(), drawn):
            np.testing.assert_allclose(line, np.array(points) * [1, 100])
        worst = [0.3, 100 * evaluation.robust_accuracy]
        assert any(np.allclose(line, worst) for line in drawn if len(line) == 1)
        assert len(axis.collections) == 3

    def test_the_worst_case_of_the_images_of_the_curve(self, evaluation):
        """Of 96 images, 90 are right and the curve is of the first 64."""
        few = np.flatnonzero(evaluation.correct)[:64]
        share = charts.worst_of_curve(evaluation)
        assert share == evaluation.robust[few].mean() * 90 / 96
        axis = charts.plot_curve(evaluation).axes[0]
        drawn = [line.get_xydata() for line in axis.get_lines()]
        np.testing.assert_allclose(drawn[-1], [[0.3, 100 * share]])
        text = html_page(evaluation, [])
        assert f"{100 * share:.1f}" in text.split("hollow star")[1]
        for count in (None, 90, 96):
            assert charts.worst_of_curve(example(curve_images=count)) is None

    def test_a_small_eps_has_half_of_the_axis(self, evaluation):
        radii = [0.0, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 0.5]
        small = dataclasses.replace(
            evaluation,
            settings={**evaluation.settings, "eps": 8 / 255},
            curve={"strongest": [(r, 0.9 - r) for r in radii]},
        )
        figure = charts.plot_curve(small)
        figure.canvas.draw()
        axis = figure.axes[0]
        left, at_eps, right = axis.transData.transform(
            [(0, 0), (8 / 255, 0), (0.5, 0)]
        )[:, 0]
        assert 0.3 < (at_eps - left) / (right - left) < 0.7
        ticks = [text.get_text() for text in axis.get_xticklabels()]
        assert ticks == ["0", "0.016", "0.031", "0.063", "0.5"]

    def test_trace(self, evaluation):
        (line,) = charts.plot_trace(evaluation).axes[0].get_lines()
        np.testing.assert_allclose(line.get_ydata(), evaluation.trace["PGD"])

    def test_broken_images_stand_in_the_order_in_which_they_fell(self):
        steps = [STEPS[0], Step("few", "queries", STEPS[5].attack, 4)]
        evaluation = example(digits(20), steps, [3, 2], wrong=5)
        runs = [
            collection.get_paths()
            for collection in charts.plot_broken(evaluation).axes[0].collections
        ]
        spans = [
            [tuple(path.get_extents().intervalx) for path in paths]
            for paths in runs
        ]
        # Of 20 images, 5 were wrong, 3 fell to the first attack. The second
        # was run on 4 and broke 2.
        held_first, broke_first, held_second, broke_second = spans
        assert broke_first == [(5, 8)] and held_first == [(8, 20)]
        assert broke_second == [(8, 10)]
        assert sum(high - low for low, high in held_second) == 2
        assert min(low for low, _ in held_second) >= 10

    @pytest.mark.parametrize("name", ["_hidden", "$x_", "$a$", "n" * 300])
    def test_any_name_can_be_drawn(self, name):
        steps = [Step(name, "white-box", STEPS[0].attack)]
        evaluation = example(digits(20), steps, [3])
        evaluation = dataclasses.replace(
            evaluation,
            curve={name: [(0, 1), (1, 0)]},
            trace={name: [0.0, 1.0]},
        )
        for plot in (charts.plot_curve, charts.plot_trace, charts.plot_broken):
            plot(evaluation).savefig(io.BytesIO(), format="svg")
        legend = charts.plot_curve(evaluation).legends[0]
        shown = legend.get_texts()[0].get_text().strip().replace("\\", "")
        assert shown == (name if len(name) < 30 else "n" * 29 + "…")


class TestFiles:
    def test_writes_all(self, evaluation, tmp_path):
        folder = tmp_path / "new" / "folder"
        written = report.write_report(evaluation, folder)
        assert [path.name for path in written] == FILES
        assert sorted(os.listdir(folder)) == sorted(FILES)
        data = json.loads((folder / "robustness.json").read_text())
        assert data == report.to_json(evaluation)
        for path in written:
            if path.suffix == ".png":
                assert path.read_bytes().startswith(b"\x89PNG")

    def test_leaves_no_plots_of_an_earlier_report(self, evaluation, tmp_path):
        report.write_report(evaluation, tmp_path)
        written = report.write_report(bare(), tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted(p.name for p in written)
        assert [path.suffix for path in written] == [".json", ".md", ".html"]

    def test_writes_nothing_if_it_cannot_write_all(self, evaluation, tmp_path):
        def quantize(images):
            raise RuntimeError("no such layer")

        with pytest.raises(RuntimeError, match="no such layer"):
            report.write_report(evaluation, tmp_path, quantize)
        assert os.listdir(tmp_path) == []

    def test_a_write_cut_short_keeps_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "a.txt"
        report.write_text(path, "old")

        def cut(*args):
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", cut)
        with pytest.raises(OSError, match="disk full"):
            report.write_text(path, "new")
        assert path.read_text() == "old"

    def test_a_path_that_is_no_utf8_can_be_named(self, tmp_path):
        evaluation = bare(data_name=os.fsdecode(b"/data/\xff"))
        report.write_report(evaluation, tmp_path)
        assert "/data/\\udcff" in (tmp_path / "report.html").read_text("utf-8")


class TestMarkdown:
    def test_escapes_text_from_outside(self, evaluation):
        text = report.to_markdown(evaluation)
        assert "<script>" not in text and "<i>" not in text
        assert r"\<script\>alert(1)\</script\>" in text

    def test_tables_are_whole(self):
        steps = [Step("a | b\nc", "white-box", STEPS[0].attack)]
        text = report.to_markdown(example(steps=steps, breaks=[2]))
        tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        for table in tables:
            columns = [
                len(re.findall(r"(?<!\\)\|", line))
                for line in table.splitlines()
            ]
            assert len(set(columns)) == 1
        assert r"| a \| b c | white-box |" in text

    def test_shows_the_plots_it_is_given(self, evaluation):
        plots = {"Loss along the attack": "loss.png"}
        text = report.to_markdown(evaluation, plots)
        assert "![Loss along the attack](loss.png)" in text
        assert text.count("![") == 1
        assert "| strongest | 0.3 | 48.0 % | 36.6–60.4 % |" in text
        assert "## Broken images" not in text


def test_every_defence_has_its_line():
    """However many there are, told apart without colours."""
    lines = {f"defence {i}": [(0.0, 0.9), (0.3, i / 10)] for i in range(8)}
    figure = report.plot_accuracy({"FGSM": lines, "PGD": lines}, 0.1, "title")
    for axis in figure.axes:
        drawn = axis.lines[:8]
        assert [line.get_label() for line in drawn] == [*lines]
        styles = [(line.get_marker(), line.get_linestyle()) for line in drawn]
        assert len({*styles}) == 8
