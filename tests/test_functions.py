"""Functions as text: what tells them apart, and what does not."""

import functools
import subprocess
import sys

import keras
import numpy as np

from keras_qsn._core.functions import told

MAKERS = """
import functools
import numpy as np

def scale(x, by, offset=0):
    return by * x + offset

def scaled(by):
    return lambda x: [by * value for value in x]

class Scale:
    def __init__(self, by):
        self.by = by
    def __call__(self, x):
        return self.by * x
    def method(self, x):
        return self.by * x

KINDS = {
    "partial": lambda by: functools.partial(scale, by=by),
    "closure": scaled,
    "object": Scale,
    "method": lambda by: Scale(by).method,
    "array": lambda by: functools.partial(scale, by=np.full(3, by)),
}
"""
exec(MAKERS)


def test_what_is_held_tells_them_apart():
    for make in KINDS.values():  # noqa: F821
        assert told(make(2.0)) == told(make(2.0)) != told(make(3.0))
    first, second = (lambda x: x + 1), (lambda x: x + 2)
    assert told(first) != told(second)
    assert len({told(make(2.0)) for make in KINDS.values()}) == 5  # noqa: F821


def test_another_process_tells_the_same():
    script = MAKERS + (
        "from keras_qsn._core.functions import told\n"
        "print([told(make(2.0)) for make in KINDS.values()])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    here = [told(make(2.0)) for make in KINDS.values()]  # noqa: F821
    assert found == f"{here}\n"


def test_what_holds_itself_or_a_model():
    class Ring:
        pass

    ring = Ring()
    ring.me = ring
    assert "around" in told(ring)
    keras.utils.set_random_seed(0)
    one, other = (
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        for _ in range(2)
    )

    def purified(model):
        return lambda x: model.predict(x)

    assert told(purified(one)) == told(purified(one)) != told(purified(other))


def test_builtins_and_arrays():
    assert told(np.round) != told(np.floor)
    assert told(abs) == "'abs'"
    assert told(functools.partial(abs)) != told(abs)
