"""A complete check for hard quantizers: branch on the undetermined pixels."""

import heapq
import itertools
import typing

import numpy as np

# Boxes bounded at a time, by the whole network and by what is left of it.
_BOXES, _REDUCED_BOXES = 32, 256

# Boxes after which sharper bounds of the hidden layers and a reduced network,
# together as dear as some hundred boxes, are worth it: most images need fewer.
_SHARPEN_AFTER = 64


class Verdict(typing.NamedTuple):
    """What branching found about one image.

    Attributes:
        status: `"certified"`, `"broken"` or `"unknown"`.
        margin: Lower bound of the smallest margin.
        image: The counterexample, or `None`.
    """

    status: str
    margin: float
    image: np.ndarray | None


def branch(proofs, realize, low, high, label, step, late):
    """Prove one image robust, or find the image that breaks it.

    The ball is a box of levels. A box whose margins CROWN cannot bound above
    zero is cut in two at one pixel, the one with the largest part in the
    worst bound, until all boxes are proved or single points. Before a box is
    cut, its corners that are worst for the linear bounds are tried on the
    model, so a box of one point is either proved, broken, or within rounding
    of the decision boundary.

    Args:
        proofs: `Proofs` of the model.
        realize: Function from levels, `(points, *image)`, to an image of the
            ball that the model misclassifies at one of them, or `None`.
        low: Smallest levels, of shape `(*image)`.
        high: Largest levels.
        label: The right class.
        step: Distance of two levels.
        late: Function that tells whether the time is up.

    Returns:
        A `Verdict`.
    """
    known, sharpened = proofs.hidden(low[None], high[None]), False
    classes = np.eye(proofs.graph.num_classes)
    rows = classes[label] - np.delete(classes, label, 0)
    boxes = _Boxes(low, high, step, len(rows))

    def bound(lows, highs, rows):
        least, slopes = proofs.of_nodes(
            boxes.images(lows), boxes.images(highs), rows, known
        )
        return least, slopes.reshape(*least.shape, -1)[..., boxes.pixels]

    proved, stuck, bounded, at_once = np.inf, False, 0, _BOXES
    while len(boxes) and not late():
        if bounded >= _SHARPEN_AFTER and not sharpened:
            known = proofs.sharper_hidden(low[None], high[None], late)
            sharpened = True
            reduced = proofs.reduced(low, high, known, late)
            if reduced is not None:
                bound, at_once = reduced.lower_bound, _REDUCED_BOXES
        lows, highs, doubtful = boxes.pop(at_once)
        bounded += len(lows)
        # What is proved of a box is proved of its parts.
        some = doubtful.any(0)
        least, slopes = bound(lows, highs, rows[some])
        least[~doubtful[:, some]] = np.inf
        proved = min(proved, least[least > 0].min(initial=np.inf))
        doubtful[:, some] = ~(least > 0)
        left = doubtful.any(1)
        lows, highs, doubtful, least, slopes = (
            part[left] for part in (lows, highs, doubtful, least, slopes)
        )
        worst = least.min(1)
        corners = np.where(slopes > 0, lows[:, None], highs[:, None])
        points = (lows == highs).all(1)
        # The worst boxes came first.
        tried = points | (np.arange(len(points)) < _BOXES)
        tried = tried[:, None] & ~(least > 0)
        image = realize(boxes.images(corners[tried]))
        if image is not None:
            least = min(proved, boxes.margin, worst.min())
            return Verdict("broken", least, image)
        stuck |= points.any()
        proved = min(proved, worst[points].min(initial=np.inf))
        lows, highs, doubtful, least, slopes, worst = (
            part[~points]
            for part in (lows, highs, doubtful, least, slopes, worst)
        )
        if not len(lows):
            continue
        of_worst = np.take_along_axis(
            slopes, least.argmin(1)[:, None, None], 1
        )[:, 0]
        boxes.cut(lows, highs, doubtful, of_worst, worst)
    if len(boxes) or stuck:
        return Verdict("unknown", min(proved, boxes.margin), None)
    return Verdict("certified", proved, None)


class _Boxes:
    """The boxes of levels still to be proved, and which functions of each.

    Only the pixels that can change are stored.
    """

    def __init__(self, low, high, step, functions):
        self._base, self._step = low, step
        self.pixels = np.flatnonzero(low != high)
        self._heap, self._count = [], itertools.count()
        self._push(
            np.full(1, -np.inf),
            low.reshape(1, -1)[:, self.pixels],
            high.reshape(1, -1)[:, self.pixels],
            np.ones((1, functions), bool),
        )

    def __len__(self):
        return len(self._heap)

    @property
    def margin(self):
        """The least bound: that of the box around, for one not yet bounded."""
        return self._heap[0][0] if self._heap else np.inf

    def images(self, levels):
        """The whole images with these levels at the pixels that change."""
        flat = np.tile(self._base.reshape(1, -1), [len(levels), 1])
        flat[:, self.pixels] = levels
        return flat.reshape(-1, *self._base.shape)

    def pop(self, count):
        """Take out the boxes with the least bounds."""
        count = min(count, len(self))
        taken = [heapq.heappop(self._heap)[2:] for _ in range(count)]
        return [np.array(part) for part in zip(*taken)]

    def cut(self, lows, highs, doubtful, slopes, bounds):
        """Put in both halves of each box.

        Cut at the pixel that the bound gains most from, between its two
        middle levels.
        """
        rows = np.arange(len(lows))
        # Any pixel that can change, where the bound depends on none.
        worth = (highs - lows) * (np.abs(slopes) + np.finfo(float).tiny)
        pixel = worth.argmax(1)
        width = (highs - lows)[rows, pixel]
        below = np.round(width / self._step) // 2
        middle = lows[rows, pixel] + self._step * below
        lower_highs, upper_lows = highs.copy(), lows.copy()
        lower_highs[rows, pixel] = middle
        upper_lows[rows, pixel] = middle + self._step
        self._push(bounds, lows, lower_highs, doubtful)
        self._push(bounds, upper_lows, highs, doubtful)

    def _push(self, bounds, *parts):
        for bound, *box in zip(bounds, *parts):
            # What comes first among equals: boxes cannot be compared.
            heapq.heappush(self._heap, (bound, next(self._count), *box))
