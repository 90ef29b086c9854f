"""For each check a defence on which it fails, one on which it does not, and a
section of the documentation."""

import functools
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import linear_model
from keras_qsn import attacks
from keras_qsn.evaluation.checks import registry
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from test_checks import Noise
from test_checks import Reversed
from test_checks import behind
from test_checks import examples
from test_checks import probe_of
from test_checks import rounded

EPS = 0.45


class Ripples(keras.layers.Layer):
    """Shattered gradients: next to the identity, with slopes of any sign.

    At the pixels of the image itself, most of which are black, they are right.
    """

    def __init__(self, height, waves):
        super().__init__()
        self.height = height
        self.waves = waves

    def call(self, inputs):
        return inputs + self.height * tf.sin(self.waves * inputs)


class HiddenFromLevels(keras.layers.Layer):
    """A gradient only at images with black pixels and others between 33
    levels: descent comes by, a search of levels does not."""

    def call(self, inputs):
        place = 32 * inputs
        between = tf.abs(place - tf.round(place)) > 1e-3
        shown = [
            tf.reduce_any(pixels, [1, 2, 3], keepdims=True)
            for pixels in (inputs == 0, between)
        ]
        shown = tf.logical_and(*shown)
        return tf.where(shown, inputs, tf.stop_gradient(inputs))


def probe_behind(layer, *args, eps=EPS):
    def make(trained, x, y):
        return probe_of(behind(trained["none"], layer(*args)), x, y, eps=eps)

    return make


def hidden(trained, x, y):
    """A quantizer of the user's, which no gradient passes."""
    return probe_of(rounded(trained["none"]), x, y, eps=EPS)


def broken_by(attack, threat, defend):
    """What one attacker breaks after a white-box attacker in vain."""

    def make(trained, x, y):
        model, attacked = defend(trained["none"]), attack(trained["none"])
        result = attacked.run(model, x, y)
        right = np.asarray(model(x)).argmax(-1) == y
        won = np.flatnonzero(result.success & right)
        found = {n: result.x_adv[n] for n in won}
        assert found
        return probe_of(model, x, y, {"white-box": {}, threat: found}, EPS)

    return make


def soft(trained, x, y, **kwargs):
    """A quantizer whose own gradient leads attacks."""
    found = examples(trained["soft"], x, y)
    others = {threat: {} for threat in ("queries", "transfer", "adaptive")}
    broken = {"white-box": found, **others}
    return probe_of(trained["soft"], x, y, broken, **kwargs)


def claimed_of_noise(trained, x, y):
    """Examples for one draw of a model that draws again."""
    model = behind(trained["none"], Noise())
    result = attacks.FastGradientMethod(0.01).run(model, x, y)
    found = dict(enumerate(result.x_adv))
    return probe_of(model, x, y, {"white-box": found})


def blind_behind_levels(trained, x, y):
    """A quantizer before a network without a gradient."""
    model = behind(
        rounded(trained["none"]), ConstantQuantization(16, hard=True)
    )
    x_adv = attacks.ProjectedGradientDescent(0.3).generate(
        trained["none"], x, y
    )
    before, after = (np.asarray(model(x)).argmax(-1) for x in (x, x_adv))
    won = np.flatnonzero((before == y) & (after != y))
    return probe_of(model, x, y, {"transfer": {n: x_adv[n] for n in won}})


def blurred(trained, x, y):
    """Soft levels, far from hard ones."""
    model = behind(trained["none"], QuantLayer(2, 1.0))
    return probe_of(model, x, np.asarray(model(x)).argmax(-1))


def scaled(trained, x, y):
    layers = [trained["none"], keras.layers.Rescaling(100.0)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    return probe_of(model, x, y)


def wrongly_certified(trained, x, y):
    return soft(trained, x, y, certified=np.ones(len(x), bool))


def rightly_certified(trained, x, y):
    return soft(trained, x, y, certified=np.zeros(len(x), bool))


def between_grey_levels(trained, x, y):
    """Black from 100.2 on: what is broken there is whole at 100."""
    line = linear_model([1.0], -100.2 / 255)
    model = keras.Sequential(
        [keras.Input((1, 1, 1)), keras.layers.Flatten(), line]
    )
    x, y = np.full((4, 1, 1, 1), 100 / 255, "float32"), np.zeros(4, int)
    return probe_of(
        model, x, y, {"white-box": dict(enumerate(x + 0.3 / 255))}, eps=0.01
    )


def always_wrong(trained, x, y):
    wrong = (np.asarray(trained["none"](x)).argmax(-1) + 1) % 10
    return probe_of(trained["none"], x, wrong)


def one_class(trained, x, y):
    of_it = y == y[0]
    return probe_of(trained["none"], x[of_it].repeat(4, 0), y[of_it].repeat(4))


FAILS = {
    "eps-zero": probe_behind(Noise),
    "ladder": probe_behind(Ripples, 0.002, 5000.0, eps=0.2),
    "eps-sweep": hidden,
    "unbounded": hidden,
    "loss-curve": probe_behind(Ripples, 0.01, 1000.0, eps=0.1),
    "restarts": probe_behind(Ripples, 0.002, 5000.0, eps=0.2),
    "gradient-health": hidden,
    "finite-difference": probe_behind(Reversed, eps=0.1),
    "random-search": hidden,
    "queries": broken_by(
        lambda _: attacks.SquareAttack(EPS, nb_queries=50), "queries", rounded
    ),
    "surrogates": broken_by(
        lambda _: attacks.CubeAttack(EPS, nb_iter=5),
        "adaptive",
        lambda model: behind(model, ConstantQuantization(2, 500.0, hard=True)),
    ),
    "transfer": broken_by(
        lambda source: attacks.TransferAttack(
            attacks.ProjectedGradientDescent(EPS), source
        ),
        "transfer",
        rounded,
    ),
    "cube": blind_behind_levels,
    "soft-and-hard": blurred,
    "logit-scale": scaled,
    "determinism": probe_behind(Noise),
    "silent-success": claimed_of_noise,
    "sandwich": wrongly_certified,
    "self-test": probe_behind(HiddenFromLevels),
    "active-test": hidden,
    "eight-bit": between_grey_levels,
    "above-chance": always_wrong,
    "class-balance": one_class,
    "gradient-reaches": hidden,
}
PASSES = dict.fromkeys(FAILS, soft) | {
    "loss-curve": functools.partial(soft, eps=EPS),
    "soft-and-hard": lambda trained, x, y: probe_of(trained["hard"], x, y),
    "sandwich": rightly_certified,
}


PAGE = (pathlib.Path(__file__).parents[1] / "docs/checks.rst").read_text()


@pytest.fixture
def images(digits):
    return digits.x_test[::40], digits.y_test[::40]


def status_of(key, make, trained, images):
    return registry.ENTRIES[key].run(make(trained, *images)).status


def test_no_check_is_left_out():
    assert set(FAILS) == set(registry.ENTRIES)


def test_every_check_has_its_section_and_no_other():
    checks = PAGE.partition("\nThe checks\n---")[2]
    sections = dict(re.findall(r"\n([a-z-]+)\n\.+\n\n\*([^*]+)\*", checks))
    entries = sorted(registry.ENTRIES.values(), key=lambda e: e.number)
    assert [*sections] == [entry.key for entry in entries]
    for entry in entries:
        assert sections[entry.key].rstrip(".").lower() == entry.name.lower()
        body = checks.partition(f"\n{entry.key}\n..")[2].partition("\n..")[0]
        assert entry.light == ("*; light." in body)
        assert re.search("Fails|Warns", body)
    assert set(re.findall("`([a-z-]+)`_", PAGE)) == set(registry.ENTRIES)


@pytest.mark.parametrize("key", FAILS)
def test_fails(key, trained, images):
    status = status_of(key, FAILS[key], trained, images)
    assert status in ("warn", "fail")


@pytest.mark.parametrize("key", PASSES)
def test_passes(key, trained, images):
    assert status_of(key, PASSES[key], trained, images) == "pass"
