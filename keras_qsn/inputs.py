"""Checks of images and labels, shared by every public entry."""

import numpy as np
import tensorflow as tf


def as_arrays(x, y=None):
    """Return images and labels, out of a `tf.data.Dataset` where it is one.

    Args:
        x: Images; or a batched dataset of images, of pairs of images and
            labels, or of triples with sample weights, which are dropped.
        y: Labels, or `None`. Must be `None` where a dataset holds them.

    Returns:
        Images and labels as NumPy arrays; labels `None` if there are none.

    Raises:
        ValueError: If the dataset is endless or empty, or there are labels
            twice.
    """
    if not isinstance(x, tf.data.Dataset):
        return np.asarray(x), y
    if x.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "The dataset must end. Received: an endless `tf.data.Dataset`. "
            "Take a number of batches of it, for example `dataset.take(8)`."
        )
    batches = [b if isinstance(b, tuple) else (b,) for b in x]
    if not batches:
        raise ValueError(
            "The dataset must hold at least one batch of images. Received: "
            "an empty `tf.data.Dataset`."
        )
    images, *labels = (np.concatenate(part) for part in zip(*batches))
    if not labels:
        return images, y
    if y is not None:
        raise ValueError(
            "`y` must be None if the dataset holds the labels. Received: "
            "labels in both."
        )
    return images, labels[0]


def check_images(x, low, high, model):
    """Return images as a float32 array, or say what is wrong with them.

    Args:
        x: Array or tensor of images, shape `(images, ...)`; floats, or
            uint8 where the range is 0 to 255.
        low: Smallest pixel value allowed.
        high: Largest pixel value allowed.
        model: Keras model the images are for.

    Returns:
        A float32 NumPy array.

    Raises:
        TypeError: If the images are not floating-point numbers.
        ValueError: If there are none, or a pixel is NaN, infinite or outside
            `[low, high]`, or the images do not fit the model.
    """
    x = np.asarray(x)
    of_bytes = x.dtype == np.uint8 and (low, high) == (0, 255)
    if not np.issubdtype(x.dtype, np.floating) and not of_bytes:
        raise TypeError(
            f"`x` must hold floating-point images in [{low}, {high}]. "
            f"Received: dtype={x.dtype}. Convert them first, for example "
            '`x.astype("float32") / 255`, or set `clip_max=255` for a model '
            "that takes pixels from 0 to 255."
        )
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(
            "`x` must hold at least one image, shape (images, ...). "
            f"Received: x.shape={x.shape}"
        )
    expected = model.input_shape[1:]
    if len(expected) != x.ndim - 1 or any(
        e not in (None, r) for e, r in zip(expected, x.shape[1:])
    ):
        raise ValueError(
            f"The model '{model.name}' expects images of shape "
            f"{tuple(expected)}. Received: x.shape={x.shape}"
        )
    x = x.astype("float32", copy=False)
    smallest, largest = float(x.min()), float(x.max())
    if not np.isfinite(smallest + largest):
        raise ValueError(
            "`x` must be finite. Received: "
            f"{int((~np.isfinite(x)).sum())} NaN or infinite pixel(s) of "
            f"{x.size}. Remove or mend these images first."
        )
    if smallest < low or largest > high:
        raise ValueError(
            f"`x` must lie in [{low}, {high}]. Received: pixels from "
            f"{smallest:.6g} to {largest:.6g}. Rescale the images (for "
            "example `x / 255`) or declare the range they have."
        )
    return x


def check_count(name, value, least=1):
    """Return a whole number of at least `least`, or say what came.

    Raises:
        ValueError: If `value` is not such a number.
    """
    if not np.isfinite(value) or value != int(value) or value < least:
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}. "
            f"Received: {name}={value}"
        )
    return int(value)


def check_labels(y, num_images, num_classes, what="y"):
    """Return labels as an int32 vector, or say what is wrong with them.

    Args:
        y: Integers of shape `(images,)` or `(images, 1)`, or one-hot rows of
            shape `(images, classes)`.
        num_images: Number of images the labels belong to.
        num_classes: Number of classes of the model.
        what: Name of the argument, for messages.

    Returns:
        An int32 NumPy vector of class numbers.

    Raises:
        ValueError: If shape, count or values do not fit.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == num_classes and num_classes > 1:
        if not np.isfinite(y.astype("float64")).all():
            raise ValueError(f"`{what}` must be finite. Received: NaN or inf.")
        labels = y.argmax(axis=1)
    elif y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
        labels = y.reshape(-1)
    else:
        raise ValueError(
            f"`{what}` must be integers of shape (images,) or one-hot rows of "
            f"shape (images, {num_classes}). "
            f"Received: {what}.shape={y.shape}"
        )
    if len(labels) != num_images:
        raise ValueError(
            f"`{what}` must have one label for each of the {num_images} "
            f"images. Received: {len(labels)} labels."
        )
    whole = labels.astype("int64")
    if (
        not (whole == labels).all()
        or not ((whole >= 0) & (whole < num_classes)).all()
    ):
        raise ValueError(
            f"`{what}` must hold whole numbers from 0 to {num_classes - 1}. "
            f"Received: values from {labels.min()} to {labels.max()}"
        )
    return whole.astype("int32")
