"""What the benchmark of trainings is made of."""

import importlib
import json
import pathlib

import numpy as np
import pytest
import scipy.ndimage

BENCHMARKS = pathlib.Path(__file__).parent / "benchmarks"


@pytest.fixture
def record(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("record")


def test_each_try_is_a_training_of_its_own(record, tmp_path):
    found = {
        name: record.certified.parser().parse_args(
            [*record.ALL.split(), *options.split(), "--out", str(tmp_path)]
        )
        for name, options in record.TRIES.items()
    }
    folders = {record.certified.folder_of(each) for each in found.values()}
    assert len(folders) == len(record.TRIES)
    assert {each.judge for each in found.values()} == {"held-out"}


def test_results_are_of_tries_and_of_images_held_out(record):
    lines = [json.loads(line) for line in record.lines()]
    assert len({line["try"] for line in lines}) == len(lines)
    for line in lines:
        assert line["judged on"] == "held-out training images"
        assert line["options"].endswith(record.TRIES[line["try"]])
        assert 0 <= line["left by square"] <= line["left by cube"]
        assert line["left by cube"] <= line["clean"] <= 1


def test_warped_images_are_interpolated_once(record, digits):
    batches = importlib.import_module("moved_batches")
    x = digits.x_train[:4]
    found = batches.warped(x, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    angle, scale, shear = (
        deviation * rng.normal(size=4)
        for deviation in (batches.ROTATION, batches.SCALE, batches.SHEAR)
    )
    moved = batches.SHIFT * rng.normal(size=(4, 2))
    middle = np.array([13.5, 13.5])
    for i, image in enumerate(x[..., 0]):
        turned = np.exp(scale[i]) * np.array(
            [
                [np.cos(angle[i]), -np.sin(angle[i])],
                [np.sin(angle[i]), np.cos(angle[i])],
            ]
        )
        # Of columns and rows; SciPy has rows and columns.
        matrix = turned @ np.array([[1, shear[i]], [0, 1]])
        offset = (middle + moved[i] - matrix @ middle)[::-1]
        expected = scipy.ndimage.affine_transform(
            image, matrix[::-1, ::-1], offset, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(found[i, ..., 0], expected, atol=1e-4)
