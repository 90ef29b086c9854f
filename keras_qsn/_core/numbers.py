"""Checks of single numbers: what was expected, what came.

All raise `TypeError` for what is no number (text, a list, none at all) and
`ValueError` for a number that will not do.
"""

import numbers
import re

import numpy as np

_UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30}


def check_number(name, value):
    """Return a number."""
    if not isinstance(value, (numbers.Real, np.ndarray)) or np.ndim(value):
        raise TypeError(
            f"`{name}` must be a number. Received: {name}={value!r}"
        )
    return value


def check_count(name, value, least=1):
    """Return a whole number of at least `least`, an integer."""
    check_number(name, value)
    whole = np.isfinite(value) and value == int(value) and value >= least
    _check(name, value, whole, f"a whole number of at least {least}")
    return int(value)


def check_positive(name, value, hint=""):
    """Return a finite number above 0, a float.

    Args:
        name: Name of the argument, for the message.
        value: What was given.
        hint: What else the message says of the number, such as `", or None"`.
    """
    fits = 0 < check_number(name, value) < np.inf
    _check(name, value, fits, f"a finite number above 0{hint}")
    return float(value)


def check_at_least(name, value, least):
    """Return a finite number of at least `least`, a float."""
    fits = least <= check_number(name, value) < np.inf
    _check(name, value, fits, f"a finite number >= {least}")
    return float(value)


def check_share(name, value):
    """Return a number from 0 to 1, a float."""
    fits = 0 <= check_number(name, value) <= 1
    _check(name, value, fits, "a number from 0 to 1")
    return float(value)


def bytes_in(text):
    """The bytes that a text such as `"1.5GB"` names; `None` if it does not."""
    found = re.fullmatch(r"(\d+\.?\d*) ?(KB|MB|GB)", text.strip().upper())
    if found is None or not float(found[1]):
        return None
    return int(float(found[1]) * _UNITS[found[2]])


def _check(name, value, fits, what):
    if not fits:
        raise ValueError(f"`{name}` must be {what}. Received: {name}={value}")
