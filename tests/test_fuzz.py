"""Random networks, quantizers and ranges: no proof broken, no attack boasts.

Seeded, and as many networks as 20 seconds allow.
"""

import itertools
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from certified_models import images
from certified_models import margin_of
from keras_qsn import attacks
from keras_qsn.attacks import norms
from keras_qsn.certification import certify
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper

layers = keras.layers

SECONDS, FEWEST = 20.0, 5
SHAPE = (4, 4, 2)


def fuzzed():
    """Generators, one for each network, until the time is up."""
    end = time.monotonic() + SECONDS
    for seed in itertools.count():
        if time.monotonic() > end and seed >= FEWEST:
            return
        keras.utils.clear_session()
        yield seed, np.random.default_rng(seed)


def chosen(rng, *options):
    return options[rng.integers(len(options))]


def bend(rng, x):
    """An activation of each kind that has a rule."""
    layer = chosen(
        rng,
        layers.ReLU(),
        layers.ReLU(6.0),
        layers.ReLU(max_value=0.8, negative_slope=0.2, threshold=0.3),
        layers.LeakyReLU(0.1),
        layers.PReLU(),
        layers.PReLU(shared_axes=[1, 2]),
        layers.ELU(float(rng.uniform(0.2, 2.0))),
        layers.Activation("sigmoid"),
        layers.Activation("tanh"),
    )
    return layer(x)


def block(rng, x):
    """A few layers that keep images what they are, at least 2x2."""
    filters = int(rng.integers(2, 5))
    smaller = int(min(x.shape[1:3]) > 2)
    padding = "valid" if smaller else "same"
    kind = rng.integers(8)
    if kind == 0:
        return bend(rng, layers.Conv2D(filters, 2, padding=padding)(x))
    if kind == 1:
        return bend(rng, layers.SeparableConv2D(filters, 2, padding="same")(x))
    if kind == 2:
        return bend(rng, layers.DepthwiseConv2D(2, padding=padding)(x))
    if kind == 3:
        y = bend(rng, layers.Conv2D(filters, 3, padding="same")(x))
        return layers.Concatenate(axis=chosen(rng, -1, 3))([x, y])
    if kind == 4:
        y = layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=False)(x)
        return layers.Add()([x, bend(rng, layers.BatchNormalization()(y))])
    if kind == 5:
        return layers.MaxPooling2D(2, 1, padding=padding)(x)
    if kind == 6:
        return layers.AveragePooling2D(2, 1, padding=padding)(x)
    return bend(rng, layers.ZeroPadding2D(1)(layers.Conv2D(filters, 2)(x)))


def network(rng):
    """A model with weights at random, and the range of its pixels."""
    span = chosen(rng, (0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (-1.0, 2.0))
    inputs = x = keras.Input(SHAPE)
    low, high = span
    if rng.random() < 0.5:
        scale = 1 / (high - low)
        x = layers.Rescaling(scale, -low * scale)(x)
        span = (0.0, 1.0)
    thresholds = []
    if rng.random() < 0.6:
        count = int(rng.integers(2, 5))
        layer = QuantLayer(
            count,
            float(rng.uniform(5, 50)),
            hard=bool(rng.random() < 0.7),
            value_range=span,
            threshold_initializer=np.sort(rng.uniform(0.1, 0.9, count - 1)),
            shared_axes=chosen(rng, None, [1, 2], [1, 2, 3]),
        )
        x = layer(x)
        thresholds = [layer.thresholds]
    # Weights for numbers from 0 to 1.
    x = layers.Normalization(axis=None, mean=span[0], variance=span[1] ** 2)(x)
    for _ in range(rng.integers(1, 4)):
        x = block(rng, x)
    x = chosen(rng, layers.Flatten(), layers.GlobalAveragePooling2D())(x)
    classes = int(rng.integers(2, 5))
    x = layers.Dense(classes, chosen(rng, None, "softmax"))(x)
    model = keras.Model(inputs, x)
    for weight in model.weights:
        if not any(weight is kept for kept in thresholds):
            fan_in = np.prod(weight.shape[:-1], initial=1.0)
            values = rng.normal(0, 1.5 / np.sqrt(fan_in), weight.shape)
            weight.assign(
                np.abs(values) + 0.2 if "variance" in weight.path else values
            )
    return model, (low, high)


def test_no_certificate_is_broken():
    certified = broken = tight = 0
    for seed, rng in fuzzed():
        model, (bottom, top) = network(rng)
        wrapper = KerasModelWrapper(model)
        x = bottom + (top - bottom) * images(5, SHAPE, seed)
        x = x.astype("float32").clip(bottom, top)
        y = wrapper.predict(x)
        eps = float(rng.choice([0.003, 0.02, 0.08])) * (top - bottom)
        found = certify(
            model,
            x,
            y,
            eps,
            time_limit=1.0,
            value_range=(bottom, top),
            verbose=0,
        )
        compiled = tf.function(
            wrapper.get_logits, autograph=False, jit_compile=True
        )
        low, high = (end.numpy() for end in norms.ball(x, eps, bottom, top))
        for i in range(len(x)):
            points = tf.constant(around(x[i], low[i], high[i], rng))
            for logits in (wrapper.logits(points), compiled(points).numpy()):
                least = margin_of(logits, y[i]).min()
                assert found.margin[i] <= least, f"seed {seed}, image {i}"
                if found.certified[i]:
                    assert least > 0, f"seed {seed}, image {i}"
            tight += found.margin[i] > least - 0.1
        for i, image in found.counterexamples.items():
            assert (low[i] <= image).all() and (image <= high[i]).all()
            assert wrapper.predict(image[None])[0] != y[i]
        certified += found.certified.sum()
        broken += len(found.counterexamples)
    assert certified > 0 and broken > 0 and tight > 0


def around(x, low, high, rng):
    """Images of the ball: half of them corners."""
    share = rng.random((1000, *x.shape))
    share[::2] = share[::2].round()
    points = (low + share * (high - low)).astype("float32")
    return np.concatenate([points.clip(low, high), x[None]])


def suite(wrapper, eps, bottom, top):
    """Attacks of each kind, with few steps."""
    pixels = {"clip_min": bottom, "clip_max": top}
    ball = {"eps": eps, **pixels}
    yield attacks.FastGradientMethod(**ball)
    yield attacks.ProjectedGradientDescent(nb_iter=10, nb_restarts=2, **ball)
    yield attacks.MomentumIterativeMethod(nb_iter=10, **ball)
    yield attacks.AutoProjectedGradientDescent(nb_iter=10, **ball)
    yield attacks.SquareAttack(nb_queries=60, **ball)
    yield attacks.DeepFool(
        max_iter=10, nb_candidate=wrapper.num_classes, **pixels
    )
    yield attacks.SinglePixelAttack(max_pixels=8, **pixels)
    if wrapper.quantizers:
        yield attacks.CubeAttack(nb_iter=5, nb_restarts=1, **ball)
        yield attacks.BPDA(attacks.ProjectedGradientDescent(nb_iter=10, **ball))


@pytest.mark.filterwarnings("ignore:.*gradient of zero:RuntimeWarning")
def test_every_reported_success_is_true():
    successes = 0
    for seed, rng in fuzzed():
        model, (bottom, top) = network(rng)
        wrapper = KerasModelWrapper(model)
        x = bottom + (top - bottom) * images(6, SHAPE, seed)
        x = x.astype("float32").clip(bottom, top)
        y = wrapper.predict(x)
        eps = float(rng.choice([0.02, 0.1, 0.3])) * (top - bottom)
        for attack in suite(wrapper, eps, bottom, top):
            where = f"seed {seed}, {attack}"
            result = attack.run(model, x, y)
            moved = np.abs(result.x_adv.astype("float64") - x)
            if getattr(attack, "eps", None) is not None:
                ulp = np.spacing(np.float32(max(abs(bottom), abs(top))))
                assert moved.max() <= eps + ulp, where
            assert (result.x_adv >= bottom).all(), where
            assert (result.x_adv <= top).all(), where
            again = wrapper.predict(result.x_adv)
            np.testing.assert_array_equal(result.prediction, again, where)
            np.testing.assert_array_equal(result.success, again != y, where)
            successes += result.success.sum()
    assert successes > 0
