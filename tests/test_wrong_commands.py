"""Wrong input at the command line: one line that says how to mend it."""

import pathlib
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from conftest import small_cnn
from keras_qsn import cli

# What is typed, and what the line must say.
WRONG = [
    ("", "required: COMMAND"),
    ("evalute model.keras --data own.npz", "choose from"),
    ("evaluate --data own.npz", "required: model"),
    ("evaluate model.keras", "required: --data"),
    ("evaluate no.keras --data own.npz", "no model file no.keras"),
    ("evaluate text.keras --data own.npz", "cannot be loaded"),
    ("evaluate half.keras --data own.npz", "kept by `model.save`"),
    ("evaluate odd.keras --data own.npz", "one vector of class scores"),
    ("evaluate deep --data own.npz", 'model.save("NAME.keras")'),
    ("evaluate own.npz --data own.npz", "only supports V3 `.keras`"),
    ("evaluate custom.keras --data own.npz", "'Mine'. A model of classes"),
    ("evaluate infinite.keras --data own.npz", "training diverge"),
    ("evaluate two.keras --data labels.npz", "from 0 to 1"),
    ("evaluate model.keras --data digit", "must be one of 'digits'"),
    ("evaluate model.keras --data no.npz", "Expected: no.npz"),
    ("evaluate model.keras --data text.npz", "np.savez"),
    ("evaluate model.keras --data unlabeled.npz", "arrays x_test, y_test"),
    ("evaluate model.keras --data labels.npz", "from 0 to 9"),
    ("evaluate model.keras --data wide.npz", "(28, 28, 1)"),
    ("evaluate model.keras --data bytes.npz", "Rescale the images"),
    ("evaluate model.keras --data nan.npz", "finite"),
    ("evaluate model.keras --data ints.npz", "Convert them"),
    ("evaluate model.keras --data mnist --data-dir .", "Expected: mnist.npz"),
    ("evaluate model.keras --data one_class", "at least two"),
    ("evaluate model.keras --data no_images", "Received: no file"),
    ("evaluate model.keras --data notes", "nothing else. Received: notes"),
    ("evaluate model.keras --data damaged", "Save it anew"),
    ("evaluate model.keras --data deep", "must have 8 bits"),
    ("evaluate model.keras --data sizes", "--class-names FILE"),
    ("evaluate any.keras --data sizes", "Resize them"),
    (
        "evaluate model.keras --data sizes --class-names ten.txt",
        "Received: cat",
    ),
    ("evaluate model.keras --data no_test.npz", "arrays x_test, y_test"),
    ("evaluate model.keras --data empty.npz", "at least one image"),
    ("evaluate model.keras --data own.npz --value-range 0 1e39", "finite"),
    ("evaluate model.keras --data own.npz --value-range 1 0", "smaller one"),
    ("evaluate model.keras --data own.npz --eps 0", "must be a finite"),
    ("evaluate model.keras --data own.npz --eps 5", "at most 1"),
    ("evaluate model.keras --data own.npz --norm 3", "choose from"),
    ("evaluate model.keras --data own.npz --plan best", "choose from"),
    ("evaluate model.keras --data own.npz --images 0", "1 or more"),
    ("evaluate model.keras --data own.npz --batch-size 0", "1 or more"),
    ("evaluate model.keras --data own.npz --at-least 2", "from 0 to 1"),
    ("evaluate model.keras --data own.npz --seed x", "whole number"),
    ("evaluate model.keras --data own.npz --seed 99999999999", "below 2^31"),
    (
        "evaluate model.keras --data own.npz --out a_file",
        "is a file. Name",
    ),
    ("evaluate model.keras --data own.npz --out a_file/in", "Name another"),
    ("evaluate model.keras --data own.npz --out kept", "Name another folder"),
    ("evaluate model.keras --data own.npz --class-names same.txt", "1 of them"),
    ("evaluate model.keras --data own.npz --class-names no.txt", "no.txt"),
    ("evaluate model.keras --data own.npz --class-names few.txt", "10 classes"),
    ("extract model.keras --data own.npz", "required: --budget"),
    ("extract model.keras --data own.npz --budget 0", "1 or more"),
    ("extract model.keras --data own.npz --budget 9", "Name other images"),
    (
        "extract model.keras --data own.npz --budget 9 --attack best",
        "choose from",
    ),
    (
        "extract model.keras --data own.npz --budget 9 --attack copycat "
        "--answers soft",
        "uses classes alone",
    ),
    (
        "extract model.keras --data own.npz --budget 9 --attack jacobian",
        "no more images than the budget",
    ),
    (
        "extract model.keras --data own.npz --budget 9 --rounds 10",
        "one image in each round",
    ),
    (
        "extract model.keras --data own.npz --budget 9 --copy no.keras",
        "no copy file no.keras",
    ),
    (
        "extract model.keras --data own.npz --budget 9 --pool own.npz "
        "--copy two.keras",
        "`num_classes` of the victim",
    ),
    ("evaluate model.keras --data own.npz --workers 0", "1 or more"),
    ("evaluate model.keras --data own.npz --ray a:1", "ray start --head"),
    (
        "evaluate model.keras --data trained.npz --detector no.keras",
        "no detector file no.keras",
    ),
    (
        "evaluate model.keras --data trained.npz --detector text.keras",
        "detector text.keras cannot be loaded",
    ),
    (
        "evaluate model.keras --data trained.npz --detector deep",
        "SavedModel cannot be looked into",
    ),
    (
        "evaluate model.keras --data trained.npz --detector model.keras",
        "one score for each image",
    ),
    (
        "evaluate model.keras --data own.npz --detector score.keras",
        "x_train and y_train",
    ),
    (
        "evaluate model.keras --data trained.npz --detector score.keras "
        "--norm 1 --eps 1",
        "must be np.inf or 2",
    ),
    (
        "evaluate model.keras --data trained.npz --detector feature-squeezing",
        "squeezers of digits, mnist, cifar10",
    ),
    ("certify model.keras --data own.npz --detector d.keras", "unrecognized"),
    ("certify model.keras --data own.npz --methods magic", "choose from"),
    ("certify model.keras --data own.npz --workers 2 --ray", "not allowed"),
    ("certify model.keras --data own.npz --ray localhost:1", "localhost:1"),
    ("certify model.keras --data own.npz --methods branching", "hard=True"),
    ("certify model.keras --data own.npz --time-limit 0", "above 0"),
    ("certify model.keras --data own.npz --eps 5", "from 0 to 1"),
    ("certify gru.keras --data own.npz", "no sound rule"),
    ("certify infinite.keras --data own.npz", "training diverge"),
    ("certify model.keras --data own.npz --out a_file", "Name another folder"),
    ("demo --data imagenet", "choose from"),
    ("demo --data mnist --data-dir nowhere", "mnist.npz"),
    ("demo --out a_file", "Name another folder"),
    ("demo --seed -1", "0 or more"),
    ("reproduce --only fig99", "must name figures of"),
    ("reproduce --data imagenet", "mnist"),
    ("reproduce --workers 0", "1 or more"),
    ("reproduce --workers 1 --ray", "not allowed with"),
    ("reproduce --quick --ray localhost:1", "ray start --head"),
    ("reproduce --quick --ray ray://", "names no host"),
    ("reproduce --quick --no-run --out a_file", "Name another folder"),
]


class Mine(keras.layers.Layer):
    """A layer that no command knows."""

    def call(self, x):
        return x


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with what is right, and with what is wrong."""
    folder = tmp_path_factory.mktemp("inputs")
    model = small_cnn()
    model.save(folder / "model.keras")
    whole = (folder / "model.keras").read_bytes()
    (folder / "half.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "text.keras").write_text("no model")
    (folder / "text.npz").write_text("no arrays")
    (folder / "a_file").write_text("kept")
    (folder / "few.txt").write_text("zero\none\ntwo\n")
    (folder / "ten.txt").write_text("\n".join(map(str, range(10))))
    (folder / "same.txt").write_text("\n".join("a" * 10))
    (folder / "kept" / "finished").mkdir(parents=True)
    (folder / "kept" / "finished" / "another's").write_text("kept")
    keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Conv2D(1, 3)]
    ).save(folder / "odd.keras")
    keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Reshape((28, 28)),
            keras.layers.GRU(2),
            keras.layers.Dense(10),
        ]
    ).save(folder / "gru.keras")
    keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(2),
        ]
    ).save(folder / "any.keras")
    small_cnn(num_classes=1).save(folder / "score.keras")
    small_cnn(num_classes=2).save(folder / "two.keras")
    small_cnn(Mine()).save(folder / "custom.keras")
    x = np.random.default_rng(0).random((4, 28, 28, 1), "float32")
    y = keras.ops.argmax(model(x), -1)
    weights = model.get_weights()
    weights[0][0] = np.inf
    model.set_weights(weights)
    model.save(folder / "infinite.keras")

    images = {
        "own": (x, y),
        "labels": (x, y + 10),
        "wide": (np.repeat(x, 2, 2), y),
        "bytes": (x * 255, y),
        "nan": (np.where(x > 0.5, x, np.nan), y),
        "ints": ((x * 255).astype("int64"), y),
        "empty": (x[:0], y[:0]),
    }
    for name, (x_test, y_test) in images.items():
        np.savez(folder / f"{name}.npz", x_test=x_test, y_test=y_test)
    np.savez(folder / "trained.npz", x_test=x, y_test=y, x_train=x, y_train=y)
    np.savez(folder / "unlabeled.npz", x_test=x)
    np.savez(folder / "no_test.npz", x_train=x, y_train=y)

    pixels = (x[0, ..., 0] * 255).astype("uint8")
    for name in ("one_class", "no_images", "notes", "damaged", "deep", "sizes"):
        for kind in ("cat", "dog")[: 1 if name == "one_class" else 2]:
            (folder / name / kind).mkdir(parents=True)
            path = folder / name / kind / "0.png"
            Image.fromarray(pixels).save(path)
    (folder / "no_images" / "dog" / "0.png").unlink()
    (folder / "notes" / "dog" / "notes.txt").write_text("good dog")
    path = folder / "damaged" / "dog" / "0.png"
    path.write_bytes(path.read_bytes()[:99])
    Image.fromarray(pixels[:20]).save(folder / "sizes" / "dog" / "0.png")
    deep = Image.fromarray(pixels.astype("uint16"))
    deep.save(folder / "deep" / "dog" / "0.png")
    return folder


@pytest.mark.parametrize(
    ("typed", "says"), WRONG, ids=[typed for typed, _ in WRONG]
)
def test_one_line_that_names_the_fix(
    typed, says, inputs, tmp_path, monkeypatch, capsys
):
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_size for path in pathlib.Path().rglob("*")}
    try:
        status = cli.main(typed.split())
    except SystemExit as stopped:
        status = stopped.code
    said = capsys.readouterr()
    assert status == 2
    (line,) = said.err.splitlines()
    assert line.startswith("keras-qsn") and says in line
    # Nothing is half done.
    after = {path: path.stat().st_size for path in pathlib.Path().rglob("*")}
    assert after == before
    assert not said.out
