"""Shares of images: as text, and how far chance moves them."""

from scipy import stats


def percent(share):
    """A share as a percentage, or a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def percent_range(low, high):
    """Two shares as a range of percentages."""
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def wilson_interval(share, count, confidence=0.95):
    """Wilson's confidence interval of an accuracy.

    Args:
        share: The accuracy, from 0 to 1.
        count: Number of images it was measured on.
        confidence: Defaults to `0.95`.

    Returns:
        Lower and upper end.

    Example:

    >>> low, high = wilson_interval(0.9, 1000)
    >>> round(low, 3), round(high, 3)
    (0.88, 0.917)

    Reference:
        - Wilson, 1927: https://doi.org/10.2307/2276774
    """
    test = stats.binomtest(round(share * count), count)
    low, high = test.proportion_ci(confidence, method="wilson")
    return float(low), float(high)
