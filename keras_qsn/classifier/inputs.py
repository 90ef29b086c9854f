"""Checks of images and labels, shared by every public entry."""

import numpy as np
import tensorflow as tf

from keras_qsn.classifier.wrapper import KerasModelWrapper


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
        low: Smallest pixel value allowed, or an array that broadcasts to one
            image.
        high: Largest pixel value allowed, likewise.
        model: The model that the images are for, or its `KerasModelWrapper`.

    Returns:
        A float32 NumPy array.

    Raises:
        TypeError: If the images are not floating-point numbers.
        ValueError: If there are none, or a pixel is NaN, infinite or outside
            `[low, high]`, or the images do not fit the model.
    """
    x, wrapper = np.asarray(x), KerasModelWrapper.of(model)
    of_bytes = x.dtype == np.uint8 and np.all(low == 0) and np.all(high == 255)
    if not np.issubdtype(x.dtype, np.floating) and not of_bytes:
        raise TypeError(
            "`x` must hold floating-point images in "
            f"{in_words(low, high)}. Received: dtype={x.dtype}. Convert them "
            'first, for example `x.astype("float32") / 255`, or say that they '
            "are from 0 to 255 (`clip_max=255` of an attack, "
            "`value_range=(0, 255)` elsewhere)."
        )
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(
            "`x` must hold at least one image, shape (images, ...). "
            f"Received: x.shape={x.shape}"
        )
    expected = wrapper.input_shape
    if len(expected) != x.ndim - 1 or any(
        e not in (None, r) for e, r in zip(expected, x.shape[1:])
    ):
        raise ValueError(
            f"The model '{wrapper.model.name}' expects images of shape "
            f"{tuple(expected)}. Received: x.shape={x.shape}"
        )
    x = x.astype("float32", copy=False)
    if not np.isfinite(x).all():
        raise ValueError(
            "`x` must be finite. Received: "
            f"{int((~np.isfinite(x)).sum())} NaN or infinite pixel(s) of "
            f"{x.size}. Remove or mend these images first."
        )
    # As float32 sees the ends, to which images are clipped.
    if (x < np.float32(low)).any() or (x > np.float32(high)).any():
        raise ValueError(
            f"`x` must lie in {in_words(low, high)}. Received: pixels from "
            f"{x.min():.6g} to {x.max():.6g}. Rescale the images (for "
            "example `x / 255`) or declare the range they have: `clip_min` "
            "and `clip_max` of an attack, `value_range` elsewhere."
        )
    return x


def in_words(low, high):
    """A range of pixels as text, short for one of each feature."""
    if np.ndim(low) or np.ndim(high):
        ends = f"{np.min(low):g} to {np.max(high):g}"
        return f"a range for each feature, from {ends} in all"
    return f"[{low}, {high}]"


def check_range(value_range, model, shape):
    """The smallest and largest pixel: what is given, or the model says.

    Args:
        value_range: `(low, high)`, numbers or arrays that broadcast to one
            image; `None` for what the model says, else `(0, 1)`.
        model: The model that the images are for, or its `KerasModelWrapper`.
        shape: Shape of one image.

    Returns:
        `low` and `high`, floats or float32 arrays.

    Raises:
        ValueError: If they are no range.
    """
    if value_range is None:
        value_range = KerasModelWrapper.of(model).value_range or (0.0, 1.0)
    try:
        low, high = (np.asarray(end, "float32") for end in value_range)
        for end in (low, high):
            np.broadcast_to(end, shape)
        fine = np.isfinite(low).all() and np.isfinite(high).all()
        fine = fine and bool(np.all(low < high))
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise ValueError(
            "`value_range` must be two finite numbers, the smallest and the "
            "largest pixel value, such as (0, 1) or (0, 255), or two arrays "
            f"of the shape {tuple(shape)} of one image. "
            f"Received: value_range={value_range!r}"
        )
    return tuple(
        end if end.ndim else float(given)
        for end, given in zip((low, high), value_range)
    )


def check_labels(y, num_images, num_classes, what="y"):
    """Return labels as an int32 vector, or say what is wrong with them.

    Args:
        y: Integers of shape `(images,)` or `(images, 1)`, or one-hot rows of
            shape `(images, classes)`, smoothed or not.
        num_images: Number of images the labels belong to.
        num_classes: Number of classes of the model.
        what: Name of the argument, for messages.

    Returns:
        An int32 NumPy vector of class numbers.

    Raises:
        ValueError: If shape, count or values do not fit.
    """
    y = np.asarray(y)
    if y.dtype.kind not in "biuf":
        raise ValueError(
            f"`{what}` must hold the numbers of classes, from 0 to "
            f"{num_classes - 1}. Received: dtype={y.dtype}. Number the classes "
            "first: `np.unique(names, return_inverse=True)[1]`, in the order "
            "of the model's outputs."
        )
    if y.ndim == 2 and y.shape[1] == num_classes and num_classes > 1:
        labels = _of_rows(y, what)
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


def _of_rows(y, what):
    """Classes of one-hot rows, which may be smoothed."""
    rows = y.astype("float64")
    if not np.isfinite(rows).all():
        raise ValueError(f"`{what}` must be finite. Received: NaN or inf.")
    largest = rows.max(1, keepdims=True)
    one = ((rows == largest).sum(1) == 1) & (np.abs(rows.sum(1) - 1) < 1e-4)
    if not (one & (rows >= 0).all(1)).all():
        bad = int((~one | (rows < 0).any(1)).sum())
        raise ValueError(
            f"Each row of `{what}` must name one class: one-hot, or smoothed "
            f"and summing to 1. Received: {bad} row(s) that do not, such as "
            f"{y[np.flatnonzero(~one | (rows < 0).any(1))[0]].tolist()}. For "
            "several classes an image (multi-label), attack one class at a "
            "time."
        )
    return rows.argmax(1)


def labelled_images(wrapper, x, y, value_range, why):
    """Images and their classes, checked, and the range of the pixels.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        x: As for `as_arrays`.
        y: As for `as_arrays`, of which there must be some.
        value_range: As for `check_range`.
        why: What the classes are needed for, as text.

    Returns:
        Images, integer classes, and both ends of the range.
    """
    x, y = as_arrays(x, y)
    if y is None:
        raise ValueError(
            f"`y` must hold the true classes: {why}. Received: y=None"
        )
    low, high = check_range(value_range, wrapper, x.shape[1:])
    x = check_images(x, low, high, wrapper)
    return x, check_labels(y, len(x), wrapper.num_classes), low, high


def check_weights(model):
    """Refuse a model with weights that are no numbers.

    Its scores need not say so: some kernels make a 0 of what is none.
    """
    for weight in model.weights:
        values = np.asarray(weight)
        count = values.size - int(np.isfinite(values).sum())
        if count:
            raise ValueError(
                f"The model's weights must be finite. Received: {count} "
                f"value(s) of '{weight.path}' that are infinite or not a "
                "number. Did the training diverge?"
            )
