"""Numbers on the command line: refused at once if they make no sense."""

import argparse
import math

# The largest of NumPy's and TensorFlow's seeds; the largest pixel.
_MOST, _LARGEST = 2**31 - 1, 3e38


def whole(least):
    """A converter for `argparse`: whole numbers of at least `least`."""
    what = f"whole number, {least} or more, below 2^31"
    return _number(int, lambda n: least <= n <= _MOST, what)


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


finite = _number(float, lambda n: abs(n) < _LARGEST, "finite number")
above_zero = _number(float, lambda n: 0 < n < math.inf, "finite number above 0")
share = _number(float, lambda n: 0 <= n <= 1, "number from 0 to 1")
