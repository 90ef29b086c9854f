"""Functions as text: the same in another process, another for another one."""

import functools
import types

import numpy as np

from keras_qsn._core.files import fingerprint


def told(value):
    """A function, and what it holds, as text.

    Of a function its code, its defaults and what it has closed over; of a
    `functools.partial` its arguments; of a model its weights; of any other
    object its class and its attributes. What a function finds by the name of
    a global is not told.
    """
    return repr(_parts(value, ()))


def _parts(value, around):
    """`around`: what it is inside of, which may hold itself."""
    if id(value) in around:
        return "around"
    around = (*around, id(value))

    def parts(*values):
        return [_parts(inner, around) for inner in values]

    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        held = parts(value.__defaults__, value.__kwdefaults__, cells)
        return value.__qualname__, *parts(value.__code__), held
    if isinstance(value, types.CodeType):
        # Code inside of it would show where it lies in memory.
        return value.co_code, value.co_names, parts(*value.co_consts)
    if isinstance(value, functools.partial):
        return "partial", parts(value.func, value.args, value.keywords)
    if isinstance(value, types.MethodType):
        return "method", parts(value.__func__, value.__self__)
    if hasattr(value, "get_weights"):
        return type(value).__qualname__, fingerprint(*value.get_weights())
    if hasattr(value, "numpy") or isinstance(value, np.ndarray):
        return fingerprint(np.asarray(value))
    if isinstance(value, (list, tuple)):
        return parts(*value)
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, parts(*value)))
    if isinstance(value, dict):
        return sorted(
            (str(key), repr(part))
            for key, part in zip(value, parts(*value.values()))
        )
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    if isinstance(value, types.ModuleType):
        return value.__name__
    if hasattr(value, "__dict__"):
        return type(value).__qualname__, parts(vars(value))
    return repr(value)
