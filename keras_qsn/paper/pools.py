"""Images that thieves ask about, by the names that cells have of them.

Each is a function of an `Extracted` cell, its data set and the folder of data
sets: images, their classes or `None`, and words for them.
"""

import importlib.util

import numpy as np

from keras_qsn.datasets.files import data_folder
from keras_qsn.paper.defences.held_out import held_back

# Not of Keras' data sets: `x`, uint8 of 28x28, and `y`, in the data folder.
OMNIGLOT = "omniglot_small.npz"

# Halvings of a photograph, beside itself, that crops are taken of.
_HALVINGS = 3

# What the luminance of a colour is (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114], "float32")


def _in_the_domain(cell, data, data_dir):
    """Training images that the network has not seen."""
    return *held_back(cell.network, data), "training images held back"


def _outside(cell, data, data_dir):
    """Drawn characters, if the user has them, where digits are read.

    Crops of photographs, for all others.
    """
    shape, folder = data.x_train.shape[1:], data_folder(data_dir)
    path = folder and folder / OMNIGLOT
    if shape == (28, 28, 1) and path and path.is_file():
        with np.load(path) as stored:
            x, y = turned(stored["x"], stored["y"])
        return _in_units(x)[..., None], y, "Omniglot characters, turned"
    x = crops(photographs(), cell.queries, shape, cell.seed)
    return x, None, "crops of two photographs (scikit-learn)"


def _noise(cell, data, data_dir):
    """Pixels drawn alike from 0 to 1."""
    rng = np.random.default_rng(cell.seed)
    shape = (cell.queries, *data.x_train.shape[1:])
    return rng.random(shape, "float32"), None, "uniform noise"


POOLS = {
    "held back": _in_the_domain,
    "outside": _outside,
    "noise": _noise,
}


def turned(x, y):
    """Square images as they are and turned by 90, 180 and 270 degrees.

    A turned character counts as another one, as is usual (Santoro et al.,
    2016).
    """
    turns = range(4)
    classes = y.astype("int32")
    return (
        np.concatenate([np.rot90(x, n, (1, 2)) for n in turns]),
        np.concatenate([classes + n * (classes.max() + 1) for n in turns]),
    )


def crops(pictures, count, shape, seed):
    """Images cut out of pictures, of each in several sizes.

    Args:
        pictures: Float32 arrays `(height, width, 3)`.
        count: How many.
        shape: `(height, width, channels)` of each, of one channel or three.
        seed: Decides picture, size, place, and whether it is mirrored.
    """
    height, width, channels = shape
    sizes = []
    for picture in pictures:
        grey = (picture @ _LUMA)[..., None]
        sizes.append(grey if channels == 1 else picture)
        for _ in range(_HALVINGS):
            sizes.append(_halved(sizes[-1]))
    sizes = [size for size in sizes if size.shape[0] > height]
    rng = np.random.default_rng(seed)
    found = np.empty((count, *shape), "float32")
    for crop, number in zip(found, rng.integers(len(sizes), size=count)):
        whole = sizes[number]
        top = rng.integers(whole.shape[0] - height + 1)
        left = rng.integers(whole.shape[1] - width + 1)
        crop[:] = whole[top : top + height, left : left + width]
        if rng.integers(2):
            crop[:] = crop[:, ::-1].copy()
    return found


def photographs():
    """The two photographs that scikit-learn ships, pixels from 0 to 1."""
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "Photographs come with scikit-learn, which is not installed. "
            "Install it: pip install 'keras_qsn[demo]'"
        )
    from sklearn.datasets import load_sample_images

    return [_in_units(image) for image in load_sample_images().images]


def _halved(x):
    """The mean of each square of four pixels."""
    height, width, channels = x.shape
    x = x[: height // 2 * 2, : width // 2 * 2]
    return x.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def _in_units(x):
    return x.astype("float32") / 255
