"""What travels to other processes."""

import dataclasses
import pickle
import typing
import uuid

# What the last `Shared` held: units of one piece of work follow one another,
# and what is compiled of a model is compiled once.
_OPENED = {}


@dataclasses.dataclass(frozen=True)
class Shared:
    """What many units of work need; a process opens it once.

    Args:
        content: Bytes of `pickled`, or what `fetch` finds them by.
        fetch: Function from `content` to the bytes. Defaults to `bytes`.
        key: Text that no other one has.
    """

    content: object
    fetch: typing.Callable = bytes
    key: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)

    def value(self):
        if self.key not in _OPENED:
            _OPENED.clear()
            _OPENED[self.key] = _unpickled(self.fetch(self.content))
        return _OPENED[self.key]


def call(function, *arguments):
    """A function's result, in the process that is to compute it."""
    return function(
        *(a.value() if isinstance(a, Shared) else a for a in arguments)
    )


def pickled(value):
    """A value as bytes; refuses one that other processes cannot have."""
    try:
        return pickle.dumps(value)
    # Whatever a class of the user's raises when it is copied.
    except Exception as error:
        raise ValueError(
            "What other processes are to work on must be picklable. Received: "
            f"{_in_words(error)}. Define functions and classes at the top of a "
            "module, no lambda among them, and layers with a `get_config`; or "
            "work in this process, with workers=1."
        ) from error


def _unpickled(content):
    try:
        return pickle.loads(content)
    except Exception as error:
        raise ValueError(
            "Another process cannot read what it is to work on: "
            f"{_in_words(error)}. Define its classes and functions in a module "
            "that can be imported there, not in a notebook, layers registered "
            "by `keras.saving.register_keras_serializable`; or work in this "
            "process, with workers=1."
        ) from error


def _in_words(error):
    return f"{type(error).__name__}: {error}".rstrip(".")
