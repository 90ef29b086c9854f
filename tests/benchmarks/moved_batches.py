"""Batches whose images are moved or warped, anew in each epoch.

Keras' `RandomRotation`, `RandomZoom`, `RandomShear` and `RandomTranslation` in
a row interpolate four times: of 512 MNIST digits at a threshold of 0.43 and
eps 0.3, the undetermined pixels grow from 48 to 126 an image. Once, as here,
leaves 77, and contrast 1.5 then 48, as they were. Draws of theirs are uniform,
and their state is not the batch's.
"""

import keras
import numpy as np

from keras_qsn import datasets

# Standard deviations: radians, shares, pixels.
ROTATION, SCALE, SHEAR, SHIFT = 0.1, 0.08, 0.1, 0.5


class MovedBatches(datasets.ShuffledBatches):
    """Images moved by up to `shift` pixels, or warped, with more contrast.

    What comes from outside is 0, the ground of a digit.
    """

    def __init__(
        self, x, y, batch_size, seed, shift=0, warped=False, contrast=1.0
    ):
        super().__init__(x, y, batch_size, seed)
        self._shift = shift
        self._warped = warped
        self._contrast = contrast

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        # Which images are in a batch is new in each epoch, and so are these.
        start = index * self.batch_size
        rng = np.random.default_rng(self._order[start : start + len(x)])
        if self._shift:
            x = shifted(x, self._shift, rng)
        if self._warped:
            x = warped(x, rng)
        if self._contrast != 1:
            x = np.clip((x - 0.5) * self._contrast + 0.5, 0, 1)
        return x, y


def shifted(x, most, rng):
    """Each image moved by up to so many whole pixels."""
    pad = [(0, 0), (most,) * 2, (most,) * 2, (0, 0)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, pad), x.shape[1:3], axis=(1, 2)
    )
    down, right = rng.integers(2 * most + 1, size=(2, len(x)))
    return np.moveaxis(windows[np.arange(len(x)), down, right], 1, -1)


def warped(x, rng):
    """Each image rotated, scaled, sheared and moved, all normally drawn."""
    count, height, width, _ = x.shape
    angle = ROTATION * rng.normal(size=count)
    scale = np.exp(SCALE * rng.normal(size=count))
    shear = SHEAR * rng.normal(size=count)
    moved = SHIFT * rng.normal(size=(count, 2))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.stack([cos, shear * cos - sin, sin, shear * sin + cos], 1)
    matrix = matrix.reshape(-1, 2, 2)
    # About the middle of the image; columns and rows, as Keras has them.
    middle = np.array([width - 1, height - 1]) / 2
    offset = middle + moved - matrix @ middle
    rows = np.concatenate([matrix, offset[:, :, None]], 2).reshape(count, 6)
    transforms = np.pad(rows, [(0, 0), (0, 2)]).astype("float32")
    moved = keras.ops.image.affine_transform(
        x, transforms, fill_mode="constant"
    )
    return np.clip(np.asarray(moved), 0, 1)
