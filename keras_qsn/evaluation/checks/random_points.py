"""Points of the ball, drawn by chance."""

import numpy as np


def random_point(rng, t, x, corner):
    """A point of each image's ball: of a sphere, a cube, or its corners.

    Args:
        rng: NumPy's generator.
        t: The `ThreatModel`.
        x: Images.
        corner: Whether pixels go as far as they may.

    Returns:
        A float32 array like `x`, in the ball and the range of pixels.
    """
    if t.norm in (1, 0):
        return _few_pixels(rng, t, x, corner)
    step = rng.uniform(-1, 1, x.shape)
    if t.norm == 2:
        axes = tuple(range(1, x.ndim))
        step /= np.sqrt((step**2).sum(axes, keepdims=True))
    elif corner:
        step = np.sign(step)
    moved = np.clip(x + t.eps * step, t.clip_min, t.clip_max)
    return moved.astype("float32")


def _few_pixels(rng, t, x, corner):
    """As many pixels as may change, anywhere or to an end of their range."""
    widths = np.subtract(t.clip_max, t.clip_min, dtype="float64")
    count = t.eps if t.norm == 0 else max(t.eps / widths.max(), 1)
    drawn = rng.uniform(size=(len(x), x[0].size)).argsort(1)
    picked = (drawn < int(count)).reshape(x.shape)
    share = rng.uniform(size=x.shape)
    values = t.clip_min + widths * (share.round() if corner else share)
    step = np.where(picked, values - x, 0)
    if t.norm == 1:
        step = np.clip(step, -t.eps, t.eps)
    return np.clip(x + step, t.clip_min, t.clip_max).astype("float32")
