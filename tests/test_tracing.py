"""Methods of layers replaced while a function is traced."""

import threading

import keras
import numpy as np

from keras_qsn._core.tracing import replaced
from keras_qsn.models import KerasModelWrapper


def doubling():
    layer = keras.layers.Rescaling(2.0)
    return layer, keras.Sequential([keras.Input((1,)), layer])


def plus(amount):
    return lambda layer, inputs: inputs + amount


def value(layer):
    return float(layer(np.ones((1, 1), "float32"))[0, 0])


def test_of_two_the_inner_one_holds_and_the_outer_comes_back():
    layer, _ = doubling()
    with replaced([layer, layer], "call", plus(10)):
        assert value(layer) == 11
        with replaced([layer], "call", plus(20)):
            assert value(layer) == 21
        assert value(layer) == 11
    assert value(layer) == 2 and "call" not in vars(layer)


def test_what_the_user_put_there_comes_back():
    layer, _ = doubling()
    layer.call = own = lambda inputs: inputs - 1
    with replaced([layer], "call", plus(10)):
        assert value(layer) == 11
    assert value(layer) == 0 and layer.call is own


def test_another_thread_goes_on_with_its_own():
    layer, _ = doubling()
    inside, seen = threading.Event(), threading.Event()
    found = {}

    def other():
        inside.wait(10)
        found["bare"] = value(layer)
        with replaced([layer], "call", plus(20)):
            found["own"] = value(layer)
            seen.set()
            left.wait(10)
            found["after"] = value(layer)

    left = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    with replaced([layer], "call", plus(10)):
        inside.set()
        seen.wait(10)
        assert value(layer) == 11
    left.set()
    thread.join()
    assert found == {"bare": 2, "own": 21, "after": 21}
    assert value(layer) == 2 and "call" not in vars(layer)


def test_a_model_counts_as_the_same_meanwhile():
    """Else all that was compiled for it would be built anew."""
    layer, model = doubling()
    model.add(keras.layers.Dense(2))
    wrapper = KerasModelWrapper(model)
    before = wrapper.structure
    with replaced([layer], "call", plus(10)):
        assert wrapper.structure == before
    layer.call = lambda inputs: inputs
    assert wrapper.structure != before
