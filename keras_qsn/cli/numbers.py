"""Numbers on the command line: refused at once if they make no sense."""

import argparse
import math


def whole(least):
    """A converter for `argparse`: whole numbers of at least `least`."""
    return _number(int, lambda n: n >= least, f"whole number, {least} or more")


def _number(convert, fits, what):
    def converted(text):
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(
                f"must be a {what}. Received: {text}"
            )
        return value

    return converted


finite = _number(float, math.isfinite, "finite number")
above_zero = _number(float, lambda n: 0 < n < math.inf, "finite number above 0")
share = _number(float, lambda n: 0 <= n <= 1, "number from 0 to 1")
