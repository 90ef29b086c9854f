"""Folders that are whole or not there, and what objects hold, in a file."""

import contextlib
import inspect
import os
import shutil
import uuid

import numpy as np

_NUMBERS = (bool, int, float, np.generic, np.ndarray)


def newest(folder):
    """The folder kept last in `folder`, or `None`."""
    return max(folder.glob("[0-9]*"), default=None)


@contextlib.contextmanager
def replacing(folder, number):
    """A new folder, which then takes the place of all kept in `folder`.

    A process that is killed leaves the one before as it was.

    Args:
        folder: Path.
        number: Integer >= 0, its name; larger than those before.
    """
    part = folder / f".{uuid.uuid4().hex}.part"
    part.mkdir(parents=True)
    yield part
    whole = folder / f"{number:08d}"
    # One of this number is of the same work, done again.
    shutil.rmtree(whole, ignore_errors=True)
    os.replace(part, whole)
    for other in folder.iterdir():
        if other != whole:
            shutil.rmtree(other)


def held(thing):
    """Numbers and arrays among an object's attributes, and lists of them.

    What its constructor was given is left out: that is not of its past.
    """
    given = inspect.signature(type(thing)).parameters
    found = {}
    for name, value in vars(thing).items():
        if name in given:
            continue
        if isinstance(value, _NUMBERS):
            found[name] = value
        elif isinstance(value, list) and value:
            if all(isinstance(part, _NUMBERS) for part in value):
                found |= {f"{name}/{i}": part for i, part in enumerate(value)}
    return found


def hold(thing, found):
    """Give an object back what `held` has found of it."""
    lists = {}
    for name, value in found.items():
        value = value if value.ndim else value.item()
        name, _, place = name.partition("/")
        if place:
            lists.setdefault(name, {})[int(place)] = value
        else:
            setattr(thing, name, value)
    for name, parts in lists.items():
        setattr(thing, name, [parts[i] for i in range(len(parts))])
