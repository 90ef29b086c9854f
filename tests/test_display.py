"""Results as people look at them: short texts, notebooks, data frames."""

import html.parser
import sys
import webbrowser

import numpy as np
import pytest

from example_evaluation import SCRIPT
from example_evaluation import STEPS
from example_evaluation import digits
from example_evaluation import example
from keras_qsn._core import display
from keras_qsn.attacks.result import AttackResult
from keras_qsn.certification import Certificate
from keras_qsn.evaluation import Found
from keras_qsn.evaluation import MinimalDistances
from keras_qsn.report import to_json

RESULT = AttackResult(
    x_adv=digits(4),
    prediction=np.array([7, 2, 1, 0]),
    success=np.array([True, False, True, False]),
    blind=np.array([True, True, False, False]),
)
CERTIFICATE = Certificate(
    0.1,
    status=np.array(["certified", "unknown", "broken", "certified"]),
    method=np.array(["crown", "", "branching", "interval"]),
    margin=np.array([0.5, -0.1, -1.0, 2.0]),
    undetermined=np.array([3, 40, 8, 0]),
    seconds=np.full(4, 0.1),
    counterexamples={2: digits(1)[0]},
)


class Pieces(html.parser.HTMLParser):
    """Tags and words of a piece of HTML; fails where a tag is left open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], ""
        self.feed(str(text))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_an_attack():
    words = "4 images: 2 succeeded, 2 failed, 1 of them blind"
    assert repr(RESULT) == f"AttackResult({words})"
    shown = Pieces(RESULT._repr_html_())
    assert shown.words == words + "image 0: now 7" + "image 2: now 1"
    assert shown.tags.count("img") == 2
    frame = RESULT.to_dataframe()
    assert frame.columns.tolist() == ["prediction", "success", "blind"]
    assert frame["success"].tolist() == [True, False, True, False]


def test_an_attack_that_broke_nothing():
    nothing = RESULT._replace(success=np.zeros(4, bool))
    shown = Pieces(nothing._repr_html_())
    assert "0 succeeded, 4 failed, 2 of them blind" in shown.words
    assert "img" not in shown.tags


def test_a_certificate():
    assert repr(CERTIFICATE) == (
        "Certificate(eps=0.1, 4 images: 2 certified, 1 broken, 1 unknown)"
    )
    shown = Pieces(CERTIFICATE._repr_html_())
    assert "at least 50.0 %, at most 75.0 %" in shown.words
    assert "certified2crown 1, interval 1" in shown.words
    assert shown.tags.count("img") == 1 and "image 2, broken" in shown.words
    frame = CERTIFICATE.to_dataframe()
    assert frame["status"].tolist() == CERTIFICATE.status.tolist()
    assert "counterexamples" not in frame and "eps" not in frame
    none = Certificate(0.1, *[np.zeros(0)] * 5, {})
    assert repr(none) == "Certificate(eps=0.1, 0 images: none)"
    assert "No image was judged." in Pieces(none._repr_html_()).words


def test_an_evaluation():
    evaluation = example(class_names=[SCRIPT, *"bcdefghij"])
    assert repr(evaluation) == (
        "Evaluation(robust 44.8 % (35.2–54.7 %), clean 93.8 %; 96 images, "
        "Linf 0.3, 6 attacks, 1 of 4 checks failed)"
    )
    shown = Pieces(evaluation._repr_html_())
    assert "script" not in shown.tags
    assert "Robust accuracy 44.8 % (35.2–54.7 %)" in shown.words
    assert "1 of 3 checks failed" in shown.words
    # The header, and the five attacks that broke images.
    assert shown.tags.count("tr") == 6 and shown.tags.count("img") == 8
    assert "1 of the attacks broke no further image." in shown.words
    frame = evaluation.to_dataframe()
    assert frame["robust"].tolist() == evaluation.robust.tolist()
    broken = frame[frame["broken_by"].notna()]
    assert (broken["became"] == (broken["label"] + 5) % 10).all()
    assert len(broken) == 47 and len(frame) == 96
    for image in to_json(evaluation)["images"]:
        assert (image["became"] is None) == (image["broken_by"] is None)


def test_minimal_distances():
    x, y = digits(4), np.array([3, 1, 4, 1])
    found = [
        Found(step, np.array(distances), 100.0, 50.0, 1.0)
        for step, distances in zip(
            STEPS, ([0.2, np.inf, 0.0, 0.3], [0.1, np.inf, 0.0, 0.4])
        )
    ]
    nearest = MinimalDistances(
        {"norm": "inf"}, x, y, np.array([3, 1, 0, 1]), x, found
    )
    shown = Pieces(nearest._repr_html_())
    assert "Of 4 images, 75.0 % right" in shown.words
    assert "FGSM0.366.7 %" in shown.words and "100 + 50" in shown.words
    assert shown.tags.count("img") == 2 and "image 0: 0.1" in shown.words
    frame = nearest.to_dataframe()
    assert frame["distance"].tolist() == [0.1, np.inf, 0.0, 0.3]
    assert frame["PGD-100"].tolist() == [0.1, np.inf, 0.0, 0.4]


def test_inputs_that_are_no_images_have_no_pictures():
    flat = digits(30).reshape(30, -1)
    assert "img" not in Pieces(example(flat)._repr_html_()).tags
    assert (
        "img" not in Pieces(RESULT._replace(x_adv=flat[:4])._repr_html_()).tags
    )


def test_large_images_are_shown_small():
    noise = np.random.default_rng(0).random((500, 400, 3))
    assert len(display.html_images([("noise", noise)])) < 120_000
    assert display._small(noise).shape == (167, 134, 3)
    assert display._small(noise[:28, :28]).shape == (28, 28, 3)


def test_images_of_any_range():
    for low, high in ((0, 1), (-1, 1), (0, 255)):
        x = low + (high - low) * digits(3)
        np.testing.assert_allclose(
            display.in_unit_range(x), digits(3), atol=0.05
        )


@pytest.mark.parametrize("there", [True, False])
def test_show_opens_the_page(tmp_path, monkeypatch, there):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda u: opened.append(u) or there)
    page = example().show(tmp_path)
    assert opened == [page.as_uri()] and page == tmp_path / "report.html"
    other = example().show()
    assert other.exists() and opened[1:] == [other.as_uri()]


def test_a_data_frame_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        RESULT.to_dataframe()
