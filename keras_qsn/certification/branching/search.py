"""A complete check for hard quantizers: branch on the undetermined pixels."""

import heapq
import itertools
import typing

import numpy as np

from keras_qsn.certification.branching.elimination import eliminate

# Domains bounded at a time, by the whole network and by a reduced one.
_DOMAINS, _REDUCED_DOMAINS = 32, 256

# Domains after which sharper bounds of the hidden layers and a reduced network,
# together as dear as some hundred domains, are worth it: most images need
# fewer.
_SHARPEN_AFTER = 64


class Verdict(typing.NamedTuple):
    """What branching says of one image: `"certified"`, `"broken"` or
    `"unknown"`, a lower bound of its margin, and a counterexample or `None`."""

    status: str
    margin: float
    image: np.ndarray | None


def branch(bounds, realize, low, high, label, step, late):
    """Prove one image robust, or find the image that breaks it.

    The ball is a box of levels. A domain whose margins CROWN cannot bound
    above zero is cut in two at one pixel, the one with the largest part in
    the worst bound, until all domains are proved or single points. Before one
    is cut, its corners that are worst for the linear bounds are tried on the
    model, so a domain of one point is either proved, broken, or within
    rounding of the decision boundary.

    Args:
        bounds: `CompiledBounds` of the model.
        realize: Function from levels, `(points, *image)`, to an image of the
            ball that the model misclassifies at one of them, or `None`.
        low: Smallest levels, of shape `(*image)`; `high` the largest.
        label: The right class.
        step: Distance of two levels.
        late: Function that tells whether the time is up.

    Returns:
        A `Verdict`.
    """
    box = low[None], high[None]
    intermediate, sharpened = bounds.by_interval(*box), False
    classes = np.eye(bounds.network.num_classes)
    A = classes[label] - np.delete(classes, label, 0)
    domains = _Domains(low, high, step, len(A))

    def lower_bound(lows, highs, A):
        lower, slopes = bounds.lower_bound(
            domains.images(lows), domains.images(highs), A, intermediate
        )
        slopes = slopes.numpy().reshape(*lower.shape, -1)
        return lower.numpy(), slopes[..., domains.pixels]

    proved, stuck, bounded, at_once = np.inf, False, 0, _DOMAINS
    while len(domains) and not late():
        if bounded >= _SHARPEN_AFTER and not sharpened:
            intermediate, sharpened = bounds.sharper(*box, late), True
            reduced = eliminate(bounds.network, low, high, intermediate, late)
            if reduced is not None:
                lower_bound, at_once = reduced.lower_bound, _REDUCED_DOMAINS
        lows, highs, open_rows = domains.pop(at_once)
        bounded += len(lows)
        # What is proved of a domain is proved of its parts.
        some = open_rows.any(0)
        lower, slopes = lower_bound(lows, highs, A[some])
        lower[~open_rows[:, some]] = np.inf
        proved = min(proved, lower[lower > 0].min(initial=np.inf))
        open_rows[:, some] = ~(lower > 0)
        left = open_rows.any(1)
        lows, highs, open_rows, lower, slopes = (
            part[left] for part in (lows, highs, open_rows, lower, slopes)
        )
        worst = lower.min(1)
        corners = np.where(slopes > 0, lows[:, None], highs[:, None])
        points = (lows == highs).all(1)
        # The worst domains came first.
        tried = points | (np.arange(len(points)) < _DOMAINS)
        tried = tried[:, None] & ~(lower > 0)
        image = realize(domains.images(corners[tried]))
        if image is not None:
            margin = min(proved, domains.margin, worst.min())
            return Verdict("broken", margin, image)
        stuck |= points.any()
        proved = min(proved, worst[points].min(initial=np.inf))
        lows, highs, open_rows, lower, slopes, worst = (
            part[~points]
            for part in (lows, highs, open_rows, lower, slopes, worst)
        )
        if not len(lows):
            continue
        of_worst = np.take_along_axis(
            slopes, lower.argmin(1)[:, None, None], 1
        )[:, 0]
        domains.cut(lows, highs, open_rows, of_worst, worst)
    if len(domains) or stuck:
        return Verdict("unknown", min(proved, domains.margin), None)
    return Verdict("certified", proved, None)


class _Domains:
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
        """Take out the domains with the least bounds."""
        count = min(count, len(self))
        taken = [heapq.heappop(self._heap)[2:] for _ in range(count)]
        return [np.array(part) for part in zip(*taken)]

    def cut(self, lows, highs, open_rows, slopes, bounds):
        """Put in both halves of each domain.

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
        self._push(bounds, lows, lower_highs, open_rows)
        self._push(bounds, upper_lows, highs, open_rows)

    def _push(self, bounds, *parts):
        for bound, *domain in zip(bounds, *parts):
            # What comes first among equals: domains cannot be compared.
            heapq.heappush(self._heap, (bound, next(self._count), *domain))
