"""What the commands take, refuse, and say of the images they drew."""

import dataclasses
import json
import os
import pathlib
import warnings
import webbrowser

import keras
import numpy as np
import pytest
from PIL import Image

from conftest import small_cnn
from example_evaluation import example
from keras_qsn import cli
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.cli import certify as certify_command
from keras_qsn.cli import evaluate as evaluate_command
from keras_qsn.datasets import stratified_subset
from keras_qsn.evaluation import Evaluation
from keras_qsn.evaluation import run
from keras_qsn.evaluation.detection import Detection
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer

# The models are untrained: commands say so.
pytestmark = pytest.mark.filterwarnings("default:clean accuracy")

COMMANDS = ("evaluate", "certify")
every_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture
def labels(digits, tmp_path, monkeypatch):
    """A user's own test images, class by class; their labels."""
    monkeypatch.chdir(tmp_path)
    order = np.argsort(digits.y_test, kind="stable")[::5]
    x, y = digits.x_test[order], digits.y_test[order]
    np.savez("own.npz", x_test=x, y_test=y)
    small_cnn(ConstantQuantization(2, hard=True)).save("model.keras")
    return y


@pytest.fixture
def asked(monkeypatch):
    """What an evaluation was asked for; nothing is attacked."""
    given = {}

    def answered(model, x, y, **arguments):
        given.update(arguments, x=x)
        unbroken = example(x, [], [], [], data_name=None)
        detector, detection = arguments["detector"], None
        if detector is not None:
            scores = {n: detector.score(x) for n in ("clean", "attacked")}
            detection = Detection(**detector.told(), **scores)
        return dataclasses.replace(
            unbroken,
            **{"y": y, "prediction": y, "curve": {}, "trace": {}},
            detection=detection,
        )

    monkeypatch.setattr(evaluate_command, "evaluate_robustness", answered)
    return given


def call(command, *options):
    intervals = {"evaluate": [], "certify": ["--methods", "interval"]}[command]
    data = ["--data", "own.npz", "--eps", "0.1"]
    return cli.main([command, "model.keras", *data, *intervals, *options])


@pytest.mark.parametrize(
    "wrong",
    [
        ["--images", "-5"],
        ["--images", "0"],
        ["--images", "ten"],
        ["--batch-size", "0"],
        ["--batch-size", "2.5"],
        ["--batch-size", "much"],
        ["--batch-size", "0MB"],
        ["--at-least", "2"],
        ["--at-least", "nan"],
        ["--eps", "-1"],
        ["--eps", "nan"],
        ["--eps", "inf"],
        ["--seed", "x"],
        ["--seed", "-1"],
    ],
)
@every_command
def test_numbers_without_sense_are_refused(command, wrong, capsys):
    """In one line, before the model is looked for."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "no.keras", "--data", "digits", *wrong])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"keras-qsn {command}: argument {wrong[0]}: must be")
    assert line.endswith(f"Received: {wrong[1]}")


@pytest.mark.parametrize(
    "wrong",
    [
        ["certify", "m.keras", "--data", "digits", "--time-limit", "0"],
        ["demo", "--seed", "x"],
        ["reproduce", "--workers", "0"],
        ["reproduce", "--seeds", "0", "-1"],
    ],
)
def test_of_other_commands(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(wrong)
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@every_command
def test_images_are_drawn_of_every_class(
    command, labels, asked, capsys, tmp_path
):
    assert call(command, "--images", "20", "--seed", "3", "--out", "out") == 0
    words = (
        "own.npz: 20 of 200 test images, drawn by seed 3, the same share of "
        "each class"
    )
    assert words in " ".join(capsys.readouterr().out.split())
    if command == "certify":
        found = json.loads((tmp_path / "out/certificate.json").read_text())
        said, rows = found["data"], found["rows"]
    else:
        found = json.loads((tmp_path / "out/robustness.json").read_text())
        said = found["settings"]["data_name"]
        rows = found["settings"]["data_rows"]
        of_images = [image["label"] for image in found["images"]]
        assert of_images == labels[rows].tolist()
        for name in ("robustness.md", "report.html"):
            text = (tmp_path / "out" / name).read_text()
            assert words in text.replace("\\", "")
            assert str(rows) not in text
    assert said == words
    assert len(found["images"]) == 20
    assert (np.bincount(labels[rows]) == 2).all()
    wanted, _ = stratified_subset(np.arange(200), labels, 20, 3)
    assert rows == wanted.tolist()


@every_command
def test_more_images_than_there_are(command, labels, asked, capsys):
    assert call(command, "--images", "201") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "own.npz: all 200 test images" in shown


@every_command
def test_a_full_disk_does_not_hide_the_table(
    command, labels, asked, monkeypatch, capsys
):
    def full(*args):
        raise OSError(28, "No space left on device", "out/report")

    monkeypatch.setattr(Evaluation, "write", full)
    monkeypatch.setattr(certify_command.report, "write_json", full)
    assert call(command, "--images", "20") == 2
    printed, error = capsys.readouterr()
    assert "accuracy" in printed and "20 of 200" in printed
    assert "No space left on device: 'out/report'" in error


@every_command
@pytest.mark.parametrize("size", ["3", "500MB"])
def test_the_batch_size_is_passed_on(
    command, size, labels, asked, monkeypatch, capsys
):
    def refused(model, x, y, **given):
        raise ValueError(f"in batches of {given['batch_size']}")

    monkeypatch.setattr(evaluate_command, "evaluate_robustness", refused)
    monkeypatch.setattr(certify_command, "certify", refused)
    assert call(command, "--batch-size", size) == 2
    assert f"in batches of {size}" in capsys.readouterr().err


def test_warnings_are_said_without_a_line_of_source(
    labels, asked, monkeypatch, capsys
):
    def guessing(*args, **given):
        warnings.warn("clean accuracy [10] %", RuntimeWarning, stacklevel=2)
        raise ValueError("that is all")

    monkeypatch.setattr(evaluate_command, "evaluate_robustness", guessing)
    shown = warnings.showwarning
    assert call("evaluate") == 2
    assert capsys.readouterr().err.splitlines() == [
        "keras-qsn: warning: clean accuracy [10] %",
        "keras-qsn: that is all",
    ]
    assert warnings.showwarning is shown


class TestValueRange:
    @pytest.fixture
    def given(self, tmp_path, monkeypatch):
        """What either command asked for, on a file of all bytes."""
        monkeypatch.chdir(tmp_path)
        x = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1)
        train = {"x_train": x, "y_train": [1]}
        np.savez("own.npz", x_test=x, y_test=[0], **train)
        np.savez("floats.npz", x_test=x / 300, y_test=[0])

        def ask(command, layers, *options, data="own.npz"):
            shape = keras.Input((16, 16, 1))
            keras.Sequential(
                [shape, *layers, keras.layers.Flatten(), keras.layers.Dense(2)]
            ).save("model.keras")
            found = {}

            def asked(model, x, y, **arguments):
                found.update(arguments, x=x)
                raise ValueError("that is all")

            monkeypatch.setattr(evaluate_command, "evaluate_robustness", asked)
            monkeypatch.setattr(certify_command, "certify", asked)
            call = [command, "model.keras", "--data", data]
            assert cli.main([*call, *options]) == 2
            return found

        return ask

    @every_command
    @pytest.mark.parametrize(
        ("layers", "options", "value_range"),
        [
            ([], [], (0, 1)),
            ([keras.layers.Rescaling(1 / 255)], [], (0, 255)),
            ([QuantLayer(2, 9.0, value_range=(-1, 1))], [], (-1, 1)),
            ([], ["--value-range", "-2", "6.5"], (-2, 6.5)),
            (
                [keras.layers.Rescaling(1 / 255)],
                ["--value-range", "0", "1"],
                (0, 1),
            ),
        ],
    )
    def test_bytes_fill_what_the_model_takes(
        self, command, layers, options, value_range, given
    ):
        found = given(command, layers, *options)
        low, high = found["value_range"]
        assert (low, high) == value_range
        assert (found["x"].min(), found["x"].max()) == value_range
        assert found["eps"] == pytest.approx(0.3 * (high - low))
        if command == "evaluate":
            assert found["train_data"][0].max() == high
        if value_range == (0, 255):
            np.testing.assert_array_equal(
                found["x"].reshape(-1), np.arange(256)
            )

    @every_command
    def test_floats_are_left_alone(self, command, given):
        layers = [keras.layers.Rescaling(1 / 255)]
        found = given(command, layers, "--eps", "2.5", data="floats.npz")
        assert found["eps"] == 2.5 and found["value_range"] == (0, 255)
        assert found["x"].max() == pytest.approx(0.85)

    @every_command
    @pytest.mark.parametrize("wrong", [("1", "0"), ("nan", "1"), ("0", "inf")])
    def test_must_be_a_range(self, command, wrong, labels, capsys):
        call = [command, "model.keras", "--data", "own.npz", "--value-range"]
        try:
            status = cli.main([*call, *wrong])
        except SystemExit as stopped:
            status = stopped.code
        assert status == 2
        assert "finite number" in capsys.readouterr().err


def test_sequences_keep_their_shape(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((6, 5, 3))
    np.savez("own.npz", x_test=x, y_test=np.arange(6) % 2)
    keras.Sequential(
        [keras.Input((5, 3)), keras.layers.GRU(2), keras.layers.Dense(2)]
    ).save("model.keras")
    assert call("evaluate") == 0
    assert asked["x"].shape == (6, 5, 3)


@pytest.mark.parametrize("layer", ["Conv2D", "none"])
def test_pictures_need_no_quantizer_at_the_input(layer, labels, asked):
    """One behind a convolution has none to show, and is no error."""
    layers = [keras.Input((28, 28, 1))]
    if layer == "Conv2D":
        layers += [keras.layers.Conv2D(1, 3), QuantLayer(2, 9.0)]
    keras.Sequential(
        [*layers, keras.layers.Flatten(), keras.layers.Dense(10)]
    ).save("model.keras")
    assert call("evaluate", "--images", "10") == 0


@every_command
def test_a_model_that_guesses_is_pointed_out(
    command, labels, digits, tmp_path, monkeypatch, capsys
):
    """Before any attack, and if chance has it a little above guessing."""
    x, y = digits.x_test[:200], digits.y_test[:200]
    wrapper = KerasModelWrapper(keras.models.load_model("model.keras"))
    y = np.where(np.arange(200) < 22, 0, 1) + wrapper.predict(x)
    np.savez("own.npz", x_test=x, y_test=y % 10)

    def attacked(*args, progress=None, **kwargs):
        if progress:
            progress("interval", 0, 200)
        raise ValueError("attacked")

    monkeypatch.setattr(run, "run_attack", attacked)
    monkeypatch.setattr(certify_command, "certify", attacked)
    assert call(command) == 2
    said, end = capsys.readouterr().err.splitlines()
    assert said.startswith(
        "keras-qsn: warning: clean accuracy 11.0 % of 200 images, guessing "
        "10.0 %. A model that guesses"
    )
    assert end == "keras-qsn: attacked"


@pytest.mark.parametrize("found", [True, False])
def test_the_page_is_opened_where_there_is_a_browser(
    found, labels, asked, tmp_path, monkeypatch, capsys
):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda u: opened.append(u) or found)
    assert call("evaluate", "--images", "10", "--out", "out", "--open") == 0
    assert opened == [(tmp_path / "out" / "report.html").as_uri()]
    assert ("No browser" in capsys.readouterr().out) is not found


class TestDetector:
    """What rejects images beside the model."""

    def test_of_a_file(self, labels, digits, asked, capsys):
        whole = digits._asdict()
        names = ("x_train", "y_train", "x_test", "y_test")
        np.savez("own.npz", **{name: whole[name][::5] for name in names})
        image = keras.Input((28, 28, 1))
        score = keras.ops.mean(image, [1, 2, 3])
        keras.Model(image, score).save("brightness.keras")
        options = ["--images", "100", "--detector", "brightness.keras"]
        assert call("evaluate", *options, "--out", "out") == 0
        detector = asked["detector"]
        bright = digits.x_train[::5].mean((1, 2, 3))
        # One in twenty of the training images is brighter.
        share = (bright > detector.threshold).mean()
        assert share == pytest.approx(0.05, abs=0.005)
        said = " ".join(capsys.readouterr().out.split())
        assert "Detector: ModelDetector, rejects above" in said

    def test_by_its_name(self, labels, asked, capsys):
        options = ["--data", "digits", "--images", "10"]
        options += ["--detector", "feature-squeezing", "--out", "out"]
        assert call("evaluate", *options) == 0
        layers = asked["detector"].squeezers
        assert [type(layer).__name__ for layer in layers] == [
            "BitDepthReduction",
            "MedianSmoothing",
        ]
        assert "FeatureSqueezingDetector" in capsys.readouterr().out

    def test_none_is_none(self, labels, asked, capsys):
        assert call("evaluate", "--images", "10", "--out", "out") == 0
        assert asked["detector"] is None
        assert "Detector" not in capsys.readouterr().out


class TestClasses:
    """Images in folders, for a model that knows more classes."""

    @pytest.fixture
    def folders(self, labels, digits):
        for digit in (7, 3):
            images = digits.x_test[digits.y_test == digit][:5, ..., 0]
            folder = pathlib.Path("images") / f"digit {digit}"
            folder.mkdir(parents=True)
            for i, image in enumerate(images):
                pixels = (image * 255).round().astype("uint8")
                Image.fromarray(pixels).save(folder / f"{i}.png")
        names = [f"digit {i}" for i in range(10)]
        pathlib.Path("names.txt").write_text("\n".join(names) + "\n")
        return names

    @every_command
    def test_are_numbered_by_their_names(self, command, folders, asked, capsys):
        options = ["--data", "images", "--class-names", "names.txt"]
        assert call(command, *options, "--images", "6", "--out", "out") == 0
        if command == "evaluate":
            text = pathlib.Path("out/robustness.json").read_text()
            of_images = [image["label"] for image in json.loads(text)["images"]]
            assert sorted(of_images) == [3, 3, 3, 7, 7, 7]
            found = json.loads(text)["settings"]
        else:
            found = json.loads(pathlib.Path("out/certificate.json").read_text())
        assert found["class_names"] == folders
        words = " ".join(capsys.readouterr().out.split())
        assert "images in images: 6 of 10 test images, drawn by seed 0" in words


class TestModelFile:
    def test_a_loss_of_ones_own_is_not_asked_for(self, labels, capsys):
        def own_loss(y_true, y_pred):
            return keras.ops.mean(y_pred)

        model = small_cnn()
        model.compile("adam", own_loss)
        for name in ("model.keras", "model.h5"):
            model.save(name)
            status = cli.main(
                f"certify {name} --data own.npz --methods interval".split()
            )
            assert status == 0
        said = capsys.readouterr().err.splitlines()
        assert all("clean accuracy" in line for line in said), said

    def test_damage(self, tmp_path, capsys):
        rng, path = np.random.default_rng(0), tmp_path / "model.keras"
        small_cnn().save(path)
        whole = path.read_bytes()
        for place in rng.integers(len(whole), size=20):
            path.write_bytes(whole[:place])
            assert cli.main(["certify", str(path), "--data", "digits"]) == 2
            error = " ".join(capsys.readouterr().err.split())
            assert "cannot be loaded" in error


@pytest.mark.parametrize("set_by_user, used", [(None, "1"), ("0", "0")])
def test_a_command_computes_with_fast_kernels(set_by_user, used, monkeypatch):
    name = "TF_ENABLE_ONEDNN_OPTS"
    # So that it is as before afterwards.
    monkeypatch.setenv(name, "0")
    if set_by_user is None:
        monkeypatch.delenv(name)
    assert cli.main(["evaluate", "no.keras", "--data", "digits"]) == 2
    assert os.environ[name] == used
