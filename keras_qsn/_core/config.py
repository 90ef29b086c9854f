"""Objects that are told, and made again, by their constructor's arguments."""

import inspect

import keras
import numpy as np

from keras_qsn._core import numbers

_PACKAGE = "keras_qsn>"
_LISTS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Configured:
    """Base class: `get_config`, `from_config` and `repr` by the constructor.

    Each argument is kept as the attribute of its name; or `get_config` is
    overridden. A constructor that passes `**kwargs` on takes the arguments of
    the one above it too. Objects inside, and functions, are told as by
    `keras.saving`: register them to read them back, which is done for classes
    of this package.
    """

    # Arguments told before the others.
    _first = ()
    # Arguments told only where they are not the default.
    _untold = ()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.__signature__ = inspect.Signature(_parameters(cls))
        if cls.__module__.startswith("keras_qsn."):
            keras.saving.register_keras_serializable("keras_qsn")(cls)

    def _keep(self, check, *limits, **values):
        """Keep arguments that pass a check, such as those below."""
        for name, value in values.items():
            setattr(self, name, check(name, value, *limits))

    def _keep_counts(self, least=1, **values):
        self._keep(numbers.check_count, least, **values)

    def _keep_at_least(self, least, **values):
        self._keep(numbers.check_at_least, least, **values)

    def _keep_positive(self, **values):
        self._keep(numbers.check_positive, **values)

    def _keep_shares(self, **values):
        self._keep(numbers.check_share, **values)

    def get_config(self):
        """The constructor's arguments, as plain Python values."""
        parameters = inspect.signature(type(self)).parameters
        config = {}
        for name in sorted(
            parameters, key=lambda name: name not in self._first
        ):
            if not hasattr(self, name):
                raise TypeError(
                    f"`{type(self).__name__}` must keep its argument `{name}` "
                    "as an attribute of that name, or override `get_config`."
                )
            value = getattr(self, name)
            if name not in self._untold or value != parameters[name].default:
                config[name] = plain(value)
        return config

    def functions(self):
        """The functions among the arguments: the config has their names."""
        given = (getattr(self, name, None) for name in self.get_config())
        return tuple(value for value in given if callable(value))

    @classmethod
    def from_config(cls, config):
        """The object that `get_config` describes."""
        return cls(**{name: revived(value) for name, value in config.items()})

    def __repr__(self):
        arguments = ", ".join(
            f"{name}={value!r}" for name, value in self.get_config().items()
        )
        return f"{type(self).__name__}({arguments})"


def plain(value):
    """An argument as what JSON can hold."""
    if isinstance(value, Configured):
        # What is not of this package is told with its package.
        name = keras.saving.get_registered_name(type(value))
        config = value.get_config()
        return {"class_name": name.removeprefix(_PACKAGE), "config": config}
    if getattr(value, "__name__", None) == "<lambda>":
        # It has no name to be found by: it can be told, not read back.
        return {"class_name": "function", "config": "<lambda>"}
    if callable(value):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return "inf" if isinstance(value, float) and value == np.inf else value


def revived(value):
    """An argument out of what `plain` has made of it."""
    if not (isinstance(value, dict) and {"class_name", "config"} <= {*value}):
        return value
    name = value["class_name"]
    name = name if ">" in name else _PACKAGE + name
    told = {"module": None, "registered_name": name, **value}
    return keras.saving.deserialize_keras_object(told)


def _parameters(cls):
    """The named parameters of a constructor, and those that it passes on."""
    parameters, by_place = {}, True
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        _, *own = inspect.signature(vars(base)["__init__"]).parameters.values()
        for p in own:
            if p.kind not in _LISTS and p.name not in parameters:
                kind = p.kind if by_place else p.KEYWORD_ONLY
                parameters[p.name] = p.replace(kind=kind)
        kinds = {p.kind for p in own}
        by_place &= inspect.Parameter.VAR_POSITIONAL in kinds
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return sorted(parameters.values(), key=lambda p: p.kind)
