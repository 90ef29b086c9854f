"""Subsets and batches whose order a seed decides."""

import keras
import numpy as np

from keras_qsn._core.numbers import check_count


class ShuffledBatches(keras.utils.PyDataset):
    """Batches for `fit`, in an order that the seed alone decides.

    `fit(x, y)` and `tf.data.Dataset.shuffle` also draw on global random
    state, so that the same seed need not give the same weights. Call
    `fit(batches, shuffle=False)`: it would shuffle them once more.

    Args:
        x: Array of images.
        y: Array of labels.
        batch_size: Integer >= 1.
        seed: Integer.
        first_epoch: Integer >= 0. Epochs that an interrupted `fit` has
            finished: the order is that of the epoch after them. Defaults to
            `0`. `ExactBackup` sets it right by itself.

    Raises:
        ValueError: If there are not as many labels as images.

    Example:

    >>> batches = ShuffledBatches(np.zeros((5, 4)), np.arange(5), 2, seed=0)
    >>> [len(y) for _, y in batches]
    [2, 2, 1]

    Limitations:
        `BackupAndRestore` does not tell the epoch: without `first_epoch`, a
        `fit` that goes on after an interrupt starts the order anew. Give the
        batches to `keras_qsn.callbacks.ExactBackup`.
    """

    def __init__(self, x, y, batch_size, seed, first_epoch=0):
        super().__init__()
        if len(x) != len(y):
            raise ValueError(
                "`y` must have one label for each image. "
                f"Received: {len(x)} images, {len(y)} labels."
            )
        self.x = x
        self.y = y
        self.batch_size = check_count("batch_size", batch_size)
        self._seed = seed
        self.set_state(1 + check_count("first_epoch", first_epoch, 0))

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        rows = self._order[start : start + self.batch_size]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self._order = self._rng.permutation(len(self.x))
        self._drawn += 1

    def get_state(self):
        """How many orders the seed has given: what a backup must hold."""
        return self._drawn

    def set_state(self, drawn):
        """Go back, or on, to the order that was in use at `get_state()`."""
        self._rng = np.random.default_rng(self._seed)
        self._drawn = 0
        for _ in range(drawn):
            self.on_epoch_end()


def seeded_subset(x, y, count, seed):
    """The first `count` images and labels in an order the seed decides.

    A larger count holds the smaller ones.

    Args:
        x: Array of images.
        y: Array of labels.
        count: Integer, or `None` for all.
        seed: Integer.

    Returns:
        Images and labels.

    Example:

    >>> x, y = seeded_subset(np.arange(5), np.arange(5), 2, seed=0)
    >>> x.tolist() == y.tolist(), len(x)
    (True, 2)
    """
    order = np.random.default_rng(seed).permutation(len(x))[:count]
    return x[order], y[order]


def stratified_subset(x, y, count, seed):
    """The first `count` images in an order that mixes the classes evenly.

    The seed shuffles each class; then the k-th image of a class of `n` stands
    at `(2k - 1) / n`, and the order is that of these places, ties as the seed
    has it. So every class has the same share of any number of first images,
    to a whole image (this is Sainte-Laguë's method), and a larger count holds
    the smaller ones.

    Args:
        x: Array of images.
        y: Integer array of classes, shape `(images,)`.
        count: Integer >= 1, or `None` for all. More than there are: all.
        seed: Integer >= 0.

    Returns:
        Images and labels.

    Raises:
        ValueError: If `count` or the labels are not as above.

    Example:

    >>> x, y = np.arange(12), np.repeat([0, 1, 2], [6, 3, 3])
    >>> images, labels = stratified_subset(x, y, 4, seed=0)
    >>> sorted(labels.tolist()), bool((y[images] == labels).all())
    ([0, 0, 1, 2], True)

    Reference:
        - Balinski and Young, 1982: Fair Representation (Webster's method).
    """
    if count is not None:
        count = check_count("count", count)
    y = np.asarray(y)
    if y.shape != (len(x),):
        raise ValueError(
            "`y` must have one class for each image, shape (images,). "
            f"Received: {len(x)} images, y.shape={y.shape}"
        )
    order = np.random.default_rng(seed).permutation(len(x))
    place = np.empty(len(x))
    for label in np.unique(y):
        own = np.flatnonzero(y[order] == label)
        place[own] = (2 * np.arange(len(own)) + 1) / len(own)
    order = order[np.argsort(place, kind="stable")][:count]
    return x[order], y[order]
