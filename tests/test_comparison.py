"""Models side by side: what is compared, what is refused, what is said."""

import dataclasses
import json
import re
import webbrowser

import numpy as np
import pytest

from example_evaluation import SCRIPT
from example_evaluation import example
from keras_qsn.certification import Certificate
from keras_qsn.evaluation import compare

NAMES = ["CQ", "undefended", SCRIPT]
BREAKS = ([14, 11, 3, 0, 17, 2], [30, 25, 20, 10, 3, 0], [1, 0, 0, 0, 0, 0])


def evaluations():
    return {name: example(breaks=b) for name, b in zip(NAMES, BREAKS)}


def certificate(evaluation, certified, eps=0.3):
    """The first robust images certified, as many as are asked for."""
    status = np.where(evaluation.correct, "unknown", "misclassified")
    status[np.flatnonzero(evaluation.robust)[:certified]] = "certified"
    nothing = np.zeros(len(status))
    return Certificate(eps, status, status, nothing, nothing, nothing, {})


@pytest.fixture
def comparison():
    found = evaluations()
    return compare(found, {"CQ": certificate(found["CQ"], 12)})


def test_the_most_robust_comes_first(comparison):
    lines = repr(comparison).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].endswith("L∞ 0.3, 96 images.")
    names = [line.split("  ")[0] for line in lines[2:]]
    assert names == ["<script>alert(1)</scr…", "CQ", "undefended"]
    assert "44.8 % 35.2–54.7 % 12.5 %" in re.sub(" +", " ", lines[3])
    frame = comparison.to_dataframe()
    assert frame["robust"].tolist() == [89 / 96, 43 / 96, 2 / 96]
    assert frame["certified"].isna().tolist() == [True, False, True]


def test_a_long_name_is_cut_in_the_terminal_alone(tmp_path):
    comparison = compare({"n" * 200: example()})
    assert max(map(len, repr(comparison).splitlines())) <= 80
    comparison.write(tmp_path)
    assert "n" * 200 in (tmp_path / "comparison.md").read_text()


def test_files(comparison, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    page = comparison.show(tmp_path / "new")
    assert opened == [page.as_uri()]
    data = json.loads((tmp_path / "new" / "comparison.json").read_text())
    assert data == comparison.to_json()
    documented = type(comparison).to_json.__doc__
    for key in {*data, *data["models"][0]}:
        assert f"`{key}`" in documented
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    for evaluation in comparison.evaluations.values():
        share = f"{100 * evaluation.robust_accuracy:.1f}\u00a0%"
        assert f">{share}</td>" in text
    assert "<script" not in comparison._repr_html_()
    assert comparison.show().exists()


def test_names_of_a_list_are_those_of_the_models():
    found = compare([example(model="a"), example(model="b")])
    assert sorted(found.evaluations) == ["a", "b"]
    with pytest.raises(ValueError, match="Give a dictionary"):
        compare([example(), example()])


def test_pixels_of_another_range_are_the_same_images():
    one = example()
    settings = {**one.settings, "value_range": [0.0, 255.0], "eps": 0.3 * 255}
    other = dataclasses.replace(one, settings=settings, x=255 * one.x)
    assert len(compare({"a": one, "b": other}).evaluations) == 2


def test_numbers_of_pixels_are_of_no_range():
    one = example(norm=0, eps=5.0)
    settings = {**one.settings, "value_range": [0.0, 255.0]}
    other = dataclasses.replace(one, settings=settings, x=255 * one.x)
    assert "L0 5" in repr(compare({"a": one, "b": other}))


def other_images():
    found = example()
    return dataclasses.replace(found, x=found.x[::-1])


@pytest.mark.parametrize(
    "given, error, words",
    [
        ({}, ValueError, "Received none"),
        (None, TypeError, "a dictionary, {name: evaluation}, or a list"),
        ({"a": 3}, TypeError, "what `evaluate_robustness` returns"),
        ([3], TypeError, "what `evaluate_robustness` returns"),
        (
            {"a": example(), "b": example(eps=0.1)},
            ValueError,
            "'b' and 'a' differ in eps",
        ),
        (
            {"a": example(), "b": example(norm=2)},
            ValueError,
            "differ in norm",
        ),
        (
            {"a": example(), "b": other_images()},
            ValueError,
            "differ in images",
        ),
    ],
)
def test_what_cannot_be_compared(given, error, words):
    with pytest.raises(error, match=words):
        compare(given)


def test_certificates_of_something_else():
    found = evaluations()
    for given, error, words in (
        (
            {"TQ": certificate(found["CQ"], 5)},
            ValueError,
            "'TQ'; there are CQ, undefended",
        ),
        ({"CQ": 0.5}, TypeError, "what `certify` returns"),
        ({"CQ": certificate(found["CQ"], 5, 0.1)}, ValueError, "of its eps"),
        (
            {"undefended": certificate(found[SCRIPT], 60)},
            ValueError,
            "No attack can break a certified image",
        ),
    ):
        with pytest.raises(error, match=words):
            compare(found, given)


def test_models_without_curves_are_drawn(tmp_path):
    bare = dataclasses.replace(example(), curve={})
    assert compare({"a": bare}).write(tmp_path)[-1].exists()
