"""Changing what a model's layers compute while a function is traced.

The model is as before afterwards: its graph, its weights, its saved file.
"""

import contextlib
import threading


def layers_of(model):
    """All layers of a Keras model, those of models inside it included."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from layers_of(layer)


@contextlib.contextmanager
def replaced(layers, method, function):
    """Within it, `layer.method(*args)` is `function(layer, *args)`.

    In this thread; others go on with the method they have. Of two, one inside
    the other, the inner one holds.

    Args:
        layers: Keras layers.
        method: Name of a method of theirs.
        function: What is called instead.
    """
    layers = set(layers)
    for layer in layers:
        _Replacement.push(layer, method, function)
    try:
        yield
    finally:
        for layer in layers:
            _Replacement.pop(layer, method)


def attributes_of(layer):
    """A layer's attributes by name, without what is only `replaced`."""
    found = dict(vars(layer))
    for name, value in [*found.items()]:
        if isinstance(value, _Replacement):
            del found[name]
            found |= value.own
    return found


def is_replaced(layers):
    """Whether, in this thread, a method of one of the layers is `replaced`."""
    return any(
        isinstance(value, _Replacement) and value.active
        for layer in layers
        for value in vars(layer).values()
    )


class _Replacement:
    """What stands in for a layer's method while threads replace it."""

    _lock = threading.RLock()

    def __init__(self, layer, method):
        # What the user has put on this very layer, by name.
        self.own = {k: v for k, v in vars(layer).items() if k == method}
        self._layer = layer
        self._before = getattr(layer, method)
        self._functions = threading.local()
        self._uses = 0

    @property
    def active(self):
        """Whether this thread is one of those that replace it."""
        return bool(getattr(self._functions, "stack", None))

    def __call__(self, *args, **kwargs):
        if not self.active:
            return self._before(*args, **kwargs)
        return self._functions.stack[-1](self._layer, *args, **kwargs)

    @classmethod
    def push(cls, layer, method, function):
        with cls._lock:
            now = vars(layer).get(method)
            if not isinstance(now, cls):
                now = cls(layer, method)
                setattr(layer, method, now)
            now._uses += 1
        if not hasattr(now._functions, "stack"):
            now._functions.stack = []
        now._functions.stack.append(function)

    @classmethod
    def pop(cls, layer, method):
        with cls._lock:
            now = vars(layer)[method]
            now._functions.stack.pop()
            now._uses -= 1
            if now._uses:
                return
            delattr(layer, method)
            for name, value in now.own.items():
                setattr(layer, name, value)
