"""What the Square Attack tries next: recolored squares or moved windows.

One class for each norm. Both turn numbers drawn beforehand, uniform in
[0, 1), into images, and hold nothing but the shape and the schedule. Neither
lets an image's result depend on the rest of its batch, not in the last bit.
"""

import numpy as np
import tensorflow as tf

# Of the radius: so little inside that rounding cannot make the projection,
# whose sums depend on the batch, move the point.
_INSIDE = 1.0 - 1e-5
# In the sums of squares, one stands for a square of 1.
_ONE = 2.0**52
# Tiles along the shorter side of the image.
_NUM_TILES = 5


class RecoloredSquares:
    """L-infinity: a square is set to `-eps` or `eps` in each channel.

    Args:
        shape: `(height, width, channels)` of one image.
        sides: Side of each query's square.
    """

    def __init__(self, shape, sides):
        self._height, self._width, channels = shape
        self._stripes = (1, self._width, channels)
        self._sides = tf.constant(sides)
        self.start_size = self._width * channels
        self.query_size = 2 + channels

    def start(self, numbers):
        """Vertical stripes: signs, `(batch, 1, width, channels)`."""
        return _signs(tf.reshape(numbers, [-1, *self._stripes]))

    def propose(self, k, image, best, numbers, eps, put):
        """The images to try in query `k`.

        Args:
            k: Number of the query.
            image: The clean images.
            best: The best of each so far.
            numbers: Floats of shape `(batch, query_size)`.
            eps: Radius of the ball.
            put: Function that adds a perturbation to clean images, inside the
                ball and the pixel range.
        """
        side = self._sides[k]
        rows, columns = _offsets(
            numbers[:, :2], side, self._height, self._width
        )
        inside = _within(rows, columns, side)
        signs = _signs(numbers[:, None, None, 2:])
        tried = tf.where(inside, put(image, eps * signs), best)
        # A square that is there already would waste the query.
        same = tf.reduce_all(tf.equal(tried, best), [1, 2, 3], keepdims=True)
        signs = tf.where(same, -signs, signs)
        return tf.where(inside, put(image, eps * signs), best)


class MovedWindows:
    """L2: one window's share of the budget is moved to another window.

    With `v` the perturbation, `W` and `V` two random windows, `e` the shape
    of `bumps` or its transpose and `s` a random sign, in each channel of `c`,
    `v[W] <- (s * e + v[W] / ||v[W]||) * a`, scaled to
    `a = sqrt(||v[W or V]||^2 + (eps^2 - ||v||^2) / c)`, and `v[V] <- 0`.

    Args:
        shape: `(height, width, channels)` of one image.
        sides: Side of each query's window; made odd and at least 3, as far as
            the image is large enough.
    """

    def __init__(self, shape, sides):
        self._height, self._width, self._channels = shape
        shorter = min(self._height, self._width)
        self._tile = max(shorter // _NUM_TILES, 1)
        profile = bumps
        if self._height == 1:
            shorter, profile = self._width, _bumps_in_a_row
        sides = [min(max(side, 3) // 2 * 2 + 1, shorter) for side in sides]
        # The first query is of the start: an empty window.
        sides[0] = 0
        distinct = sorted(set(sides))
        # Of no window at all, one pixel of nothing.
        self._largest = max(distinct[-1], 1)
        self._sides = tf.constant(sides)
        shapes = [
            np.pad(profile(side), (0, self._largest - side)).ravel()
            for side in distinct
        ]
        self._shapes = tf.constant(np.stack(shapes), tf.float32)
        self._which = tf.constant([distinct.index(side) for side in sides])
        self._tiles = (self._height // self._tile, self._width // self._tile)
        self.start_size = int(np.prod(self._tiles)) * (1 + self._channels)
        self.query_size = 5 + self._channels

    def start(self, numbers):
        """Tiles, each the shape of `bumps`: a perturbation of length 1."""
        rows, columns = self._tiles
        numbers = tf.reshape(
            numbers, [-1, rows, 1, columns, 1, self._channels + 1]
        )
        tile = bumps(self._tile).astype("float32")
        upright, turned = (
            t.reshape(1, 1, self._tile, 1, self._tile, 1)
            for t in (tile, tile.T)
        )
        tiles = tf.where(numbers[..., :1] < 0.5, upright, turned)
        tiles *= _signs(numbers[..., 1:])
        high, wide = rows * self._tile, columns * self._tile
        tiles = tf.reshape(tiles, [-1, high, wide, self._channels])
        top, left = (self._height - high) // 2, (self._width - wide) // 2
        tiles = tf.pad(
            tiles,
            [
                [0, 0],
                [top, self._height - high - top],
                [left, self._width - wide - left],
                [0, 0],
            ],
        )
        return tiles * (_INSIDE / (rows * columns * self._channels) ** 0.5)

    def propose(self, k, image, best, numbers, eps, put):
        """The images to try in query `k`, as in `RecoloredSquares`."""
        side = self._sides[k]
        there, source = (
            _offsets(place, side, self._height, self._width)
            for place in (numbers[:, :2], numbers[:, 2:4])
        )
        inside = _within(*there, side)
        changed = inside | _within(*source, side)
        rows, columns = there
        turned = numbers[:, None, None, 4:5] < 0.5
        at = tf.where(
            turned,
            columns * self._largest + rows,
            rows * self._largest + columns,
        )
        shape = tf.gather(self._shapes[self._which[k]], tf.where(inside, at, 0))

        def only(where, v):
            return tf.where(where, v, 0.0)

        # In units of `eps`.
        v = tf.math.divide_no_nan(best - image, eps)
        unused = _INSIDE**2 - tf.reduce_sum(_energy(v), 3, keepdims=True)
        budget = _energy(only(changed, v))
        budget += tf.maximum(unused, 0.0) / self._channels
        v = _scaled(only(inside, v), 1.0)
        v = only(inside, v + _signs(numbers[:, None, None, 5:]) * shape)
        v = _scaled(v, tf.sqrt(budget))
        return tf.where(changed, put(image, eps * v), best)


def bumps(side):
    """The paper's eq. (2): two bumps of opposite sign, of length 1 in all."""
    n, half = side // 2, side // 2
    level = np.cumsum(1.0 / np.arange(n + 1, 0, -1) ** 2)[::-1]

    def bump(height):
        rows, columns = np.indices((height, side))
        ring = np.maximum(abs(rows - height // 2), abs(columns - n))
        return level[ring]

    eta = np.concatenate([bump(half), -bump(side - half)])
    return eta / max(np.linalg.norm(eta), 1e-12)


def _bumps_in_a_row(side):
    """The two bumps along a line, for a window one pixel high."""
    line = bumps(side)[:, side // 2 : side // 2 + 1].ravel()
    line = line / max(np.linalg.norm(line), 1e-12)
    window = np.zeros((side, side))
    # Upright or turned, the first row is what is looked at.
    window[:1], window[:, :1] = line, line[:, None]
    return window


def _offsets(place, side, height, width):
    """Rows and columns, counted from the corner of each image's window.

    Args:
        place: Floats in [0, 1), `(batch, 2)`: where the corner is, as parts
            of the room that the window leaves.
        side: Scalar integer, the window's side.
        height: Of the image.
        width: Of the image.

    Returns:
        Integers that broadcast to `(batch, height, width, 1)`.
    """

    def count(where, length):
        room = tf.cast(tf.maximum(length - side, 0) + 1, tf.float32)
        first = tf.cast(tf.floor(where * room), tf.int32)
        return tf.range(length) - first[:, None]

    rows, columns = count(place[:, 0], height), count(place[:, 1], width)
    return rows[:, :, None, None], columns[:, None, :, None]


def _within(rows, columns, side):
    return (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


def _signs(uniform):
    return tf.where(uniform < 0.5, -1.0, 1.0)


def _energy(v):
    """Sum of squares of each channel, float64, `(batch, 1, 1, channels)`.

    Added up as whole numbers: a sum of floats depends on the order, and that
    on the batch.
    """
    squares = tf.cast(tf.square(tf.cast(v, tf.float64)) * _ONE, tf.int64)
    total = tf.reduce_sum(squares, [1, 2], keepdims=True)
    return tf.cast(total, tf.float64) / _ONE


def _scaled(v, length):
    """Each channel of `v` at this length; zeros stay zeros."""
    factor = tf.math.divide_no_nan(
        tf.cast(length, tf.float64), tf.sqrt(_energy(v))
    )
    return v * tf.cast(factor, tf.float32)
