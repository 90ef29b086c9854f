"""Folders that are whole or not there, and what objects hold, in a file."""

import contextlib
import inspect
import os
import re
import shutil
import uuid

import numpy as np

# Whole ones, and what a kill left.
_OWN = re.compile(r"\d{8}|\.[0-9a-f]{32}\.part")
_NUMBERS = (bool, int, float, np.generic, np.ndarray)


def newest(folder):
    """The folder kept last in `folder`, or `None`.

    Raises:
        ValueError: If there is something else in `folder`.
    """
    names = [each.name for each in folder.glob("*")]
    others = [name for name in names if not _OWN.fullmatch(name)]
    if others:
        raise ValueError(
            "`folder` must be new, empty or of backups alone, since it is "
            f"removed in the end. Received: {folder}, which holds "
            f"{others[0]}. Name another folder."
        )
    return max(folder.glob("[0-9]*"), default=None)


@contextlib.contextmanager
def replacing(folder):
    """A new folder, which then takes the place of all kept in `folder`.

    A process that is killed, at any moment, leaves a whole one: the new one
    has a number of its own, and none is removed under its number.

    Args:
        folder: Path.
    """
    part = _part_in(folder)
    part.mkdir(parents=True)
    yield part
    last = newest(folder)
    number = 0 if last is None else int(last.name) + 1
    whole = folder / f"{number:08d}"
    os.replace(part, whole)
    _remove(folder, whole)


def remove(folder):
    """Remove a folder and all kept in it, if it is there."""
    if folder.exists():
        _remove(folder)
        folder.rmdir()


def _remove(folder, but=None):
    """What a kill leaves half removed is not taken for a whole one."""
    for each in sorted(folder.iterdir()):
        if each != but:
            part = _part_in(folder)
            os.replace(each, part)
            shutil.rmtree(part)


def _part_in(folder):
    return folder / f".{uuid.uuid4().hex}.part"


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
        name, _, place = name.partition("/")
        if place:
            # Weights that are one number have a shape all the same.
            lists.setdefault(name, {})[int(place)] = value[()]
        else:
            setattr(thing, name, value if value.ndim else value.item())
    for name, parts in lists.items():
        setattr(thing, name, [parts[i] for i in range(len(parts))])
