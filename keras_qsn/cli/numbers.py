"""Numbers on the command line: refused at once if they make no sense."""

import argparse
import math

from keras_qsn._core.numbers import bytes_in

# The largest of NumPy's and TensorFlow's seeds; the largest pixel.
_MOST, _LARGEST = 2**31 - 1, 3e38


def whole(least):
    """A converter for `argparse`: whole numbers of at least `least`."""
    what = f"whole number, {least} or more, below 2^31"
    return _number(int, lambda n: least <= n <= _MOST, what)


def at_once(text):
    """A converter for `argparse`: a batch size, a number or an amount."""
    if text.strip().lstrip("+-").replace(".", "").isdigit():
        return whole(1)(text)
    if bytes_in(text) is None:
        raise argparse.ArgumentTypeError(
            "must be a whole number of images, 1 or more, or the memory that "
            f"they may take, such as 500MB or 2GB. Received: {text}"
        )
    return text


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
