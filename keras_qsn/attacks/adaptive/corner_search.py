"""Local search over what a hard quantizer lets through.

Neighbours of a corner of the box are other corners: one pixel flipped, some of
the most promising ones together, all of a window. Which are promising, the
gradient at the corner guesses; what they bring is measured.
"""

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import losses
from keras_qsn.attacks import norms
from keras_qsn.attacks import steps

# Neighbours tried in a round: single pixels, the best so many together,
# windows of the most gain, random windows.
_SINGLE = 12
_TOGETHER = (2, 3, 4, 6, 8, 12)
_SIDES = (2, 3, 4, 6)
_RANDOM = 10
NEIGHBOURS = _SINGLE + len(_TOGETHER) + len(_SIDES) + _RANDOM

# Largest random window, as a share of the image's side.
_LARGEST = 0.25
# Images in one forward pass, and pixels, of which large images have many.
_AT_ONCE = 256
_PIXELS = 2**20
# The randomness of restarts is that of stream 0.
_STREAM = 1


def climb(box, levels, margin, labels, targeted, rounds, seeds):
    """The best levels of a search from `levels`, image by image.

    Each round moves to the best of `NEIGHBOURS` neighbours if that raises the
    margin. An image is done once it is fooled; one that is alone in its box is
    from the start.

    Args:
        box: What the quantizer lets through, as `CubeAttack` has it.
        levels: Tensor of shape `(batch, *image)`, where the search starts.
        margin: The attacker's lead there, of shape `(batch,)`.
        labels: Integer tensor of shape `(batch,)`.
        targeted: Whether `labels` are to be reached.
        rounds: Whole number or scalar tensor.
        seeds: Integer tensor of shape `(batch, 2)`.
    """

    def step(i, now, old, tried, bottom, top, label, seed):
        part = box.of(bottom, top)
        gradient, _ = losses.gain_gradient(
            box.opened.behind, now, label, losses.margin_of, targeted
        )
        seed = steps.restarted(seed, i + 1, _STREAM)
        neighbours = _Neighbours(part, now, gradient, tried, seed)
        best, best_margin = _best(neighbours, part, now, old, label, targeted)
        # Where none helped, the next single pixels are tried.
        tried = tf.where(best_margin > old, 0, tried + _SINGLE)
        return best, best_margin, tried

    return steps.search(
        step,
        rounds,
        (levels, margin, tf.zeros_like(labels)),
        (box.bottom, box.top, labels, seeds),
        lambda levels, margin, tried: (margin <= 0) & box.has_room,
    )[0]


def _best(neighbours, box, now, margin, labels, targeted):
    """The best of the neighbours and of `now`, and its margin.

    As many at once as fit into one forward pass with those of the others.
    """
    count = tf.shape(labels)[0]
    at_once = min(_AT_ONCE, _PIXELS // int(np.prod(now.shape[1:])))
    group = tf.clip_by_value(at_once // tf.maximum(count, 1), 1, NEIGHBOURS)

    def attempt(i, *best):
        # The last group has the last neighbour several times.
        numbers = tf.minimum(i * group + tf.range(group), NEIGHBOURS - 1)
        tried = neighbours.take(numbers)
        flat = tf.reshape(tried, [-1, *now.shape[1:]])
        logits = box.opened.behind(flat)
        new = box.margin_of(logits, tf.repeat(labels, group), targeted)
        new = tf.reshape(new, [-1, group])
        first = tf.argmax(new, 1)
        return steps.pick(
            tf.reduce_max(new, 1) > best[1],
            (
                tf.gather(tried, first, batch_dims=1),
                tf.gather(new, first, batch_dims=1),
            ),
            best,
        )

    groups = -(-NEIGHBOURS // group)
    return steps.repeat(attempt, groups, (now, margin))


class _Neighbours:
    """Corners beside one, each described by a few numbers.

    A neighbour changes the pixels whose gain is among those of rank `first`
    to `last`, inside a window. It flips them, or brings each channel to its
    lowest or highest level.
    """

    def __init__(self, box, now, gradient, tried, seeds):
        self._now, self._box = now, box
        height, width, channels = self._shape = _as_image(now.shape[1:])
        self._flipped = box.flip(now, gradient)
        flat = [-1, box.pixels]
        gain = tf.reshape(gradient * (self._flipped - now), flat)
        can = tf.reshape(self._flipped != now, flat)
        gain = tf.where(can, gain, -np.inf)
        order = tf.argsort(gain, direction="DESCENDING", stable=True)
        self._rank = tf.argsort(order)
        rows = tf.zeros_like(tried)
        helpful = tf.math.count_nonzero(gain > 0, 1, dtype=tf.int32)
        everywhere = [rows, rows, rows + height, rows + width]
        same = [rows] * channels
        table = []
        for i in range(_SINGLE):
            single = (tried + i) % box.pixels
            table.append([single, single + 1, *everywhere, *same])
        for together in _TOGETHER:
            table.append([rows, rows + together, *everywhere, *same])
        for window in _promising(tf.nn.relu(gain), self._shape):
            table.append([rows, helpful, *window, *same])
        drawn = norms.sample((_RANDOM, 3 + channels), seeds, np.inf)
        for i in range(_RANDOM):
            window = _window((1 + drawn[:, i, :3]) / 2, self._shape)
            ends = tf.where(drawn[:, i, 3:] > 0, 1, -1)
            ends = tf.unstack(ends, channels, axis=1)
            table.append([rows, rows + box.pixels, *window, *ends])
        # Shape (batch, neighbours, numbers).
        self._table = tf.stack([tf.stack(row, 1) for row in table], 1)

    def take(self, numbers):
        """Levels of some neighbours, of shape `(batch, len(numbers), ...)`."""
        chosen = tf.gather(self._table, numbers, axis=1)
        first, last, up, left, down, right = (
            chosen[..., i, None] for i in range(6)
        )
        rank = self._rank[:, None]
        ranked = (rank >= first) & (rank < last)
        height, width, channels = self._shape
        y, x = (part.ravel() for part in np.indices((height, width)))
        window = (y >= up) & (y < down) & (x >= left) & (x < right)
        shape = [-1, tf.shape(numbers)[0], *self._now.shape[1:]]
        changed = tf.repeat(window, channels, axis=2) & ranked
        ends = tf.tile(chosen[..., 6:], [1, 1, height * width])
        ends = tf.reshape(ends, shape)
        now, flipped, bottom, top = (
            part[:, None]
            for part in (
                self._now,
                self._flipped,
                self._box.bottom,
                self._box.top,
            )
        )
        other = tf.where(ends > 0, top, tf.where(ends < 0, bottom, flipped))
        return tf.where(tf.reshape(changed, shape), other, now)


def _as_image(shape):
    """Height, width and channels; a vector or sequence is one pixel high."""
    if len(shape) == 3:
        return tuple(shape)
    return 1, int(np.prod(shape)), 1


def _promising(gain, shape):
    """For each side the window of the most gain: top, left, bottom, right."""
    height, width, channels = shape
    gain = tf.reshape(gain, [-1, height, width, channels])
    gain = tf.reduce_sum(gain, 3, keepdims=True)
    for side in _SIDES:
        size = min(side, height), min(side, width)
        sums = tf.nn.avg_pool2d(gain, size, 1, "VALID")
        across = sums.shape[2]
        place = tf.argmax(
            tf.reshape(sums, [-1, sums.shape[1] * across]),
            1,
            output_type=tf.int32,
        )
        up, left = place // across, place % across
        yield up, left, up + size[0], left + size[1]


def _window(drawn, shape):
    """A window by three numbers from 0 to 1: its place, and its side."""
    height, width, _ = shape
    largest = max(2.0, _LARGEST * max(height, width))
    side = 1 + tf.cast(drawn[:, 2] * largest, tf.int32)

    def start(share, length):
        # So that all pixels are as often inside, those of the rim too.
        room = tf.cast(length + side - 1, tf.float32)
        return tf.cast(share * room, tf.int32) - side + 1

    up, left = start(drawn[:, 0], height), start(drawn[:, 1], width)
    return up, left, up + side, left + side
