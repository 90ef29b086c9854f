"""The range of pixels: two numbers, or one for each feature of a table."""

import numpy as np


def check_ends(low, high):
    """Return the ends as floats or float32 arrays, or say what is wrong.

    Raises:
        ValueError: If they are no range.
    """
    try:
        ends = tuple(_end(value) for value in (low, high))
        np.broadcast(*ends)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`clip_min` and `clip_max` must be numbers, or arrays of one shape "
            "that broadcast to one image. "
            f"Received: clip_min={low!r}, clip_max={high!r}"
        ) from error
    if not np.all(np.less(*ends)):
        raise ValueError(
            "`clip_min` must be below `clip_max`, for each feature. "
            f"Received: clip_min={low}, clip_max={high}"
        )
    return ends


def plain(end):
    """An end as a plain Python value: a float, or nested lists of them."""
    return end.tolist() if isinstance(end, np.ndarray) else end


def widths(low, high, shape):
    """Width of each pixel's range, for images of this shape, flat.

    Raises:
        ValueError: If the range is for images of another shape.
    """
    try:
        return np.broadcast_to(np.subtract(high, low), shape).ravel()
    except ValueError as error:
        raise ValueError(
            "`clip_min` and `clip_max` must be numbers, or arrays that "
            f"broadcast to one image of shape {tuple(shape)}. Received: "
            f"shapes {np.shape(low)} and {np.shape(high)}"
        ) from error


def _end(value):
    if np.ndim(value) == 0:
        return float(value)
    value = np.array(value, "float32")
    value.flags.writeable = False
    return value
