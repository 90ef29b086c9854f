"""The staircase and its gradients against an independent NumPy derivation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from certified_models import input_bounds
from keras_qsn.attacks import norms
from keras_qsn.certification import certify
from keras_qsn.certification import network
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.layers import QuantLayer
from keras_qsn.quantization import staircase as quantization

T = np.array([0.25, 0.5, 0.8])


def sigmoid(u):
    # Two branches, each free of overflow, in float64.
    e = np.exp(-np.abs(u))
    return np.where(u >= 0, 1 / (1 + e), e / (1 + e))


def numpy_oracle(x, t, z, n, upstream, gradient):
    """Forward value and both gradients, by hand, in float64.

    `x` (batch, pixels), `t` (pixels, m): one explicit sum per threshold.
    """
    u = z * (x[:, :, None] - t[None])
    slope = z * sigmoid(u) * sigmoid(-u)
    y = sigmoid(u).sum(-1) / (n - 1)
    d_x = upstream * slope.sum(-1) / (n - 1)
    d_t = -(upstream[..., None] * slope).sum(0) / (n - 1)
    if gradient == "paper":
        product = -upstream * t.shape[1] * slope.sum(-1) / (n - 1)
        d_t = np.repeat(product.sum(0)[:, None], t.shape[1], axis=1)
    if gradient == "straight_through":
        d_x = upstream
    return y, d_x, d_t


def edge_pixels():
    """Below, on and above each threshold, and the ends of the range."""
    around = np.concatenate(
        [
            [np.nextafter(np.float32(t), np.float32(0)), t]
            + [np.nextafter(np.float32(t), np.float32(1))]
            for t in T
        ]
    )
    x = np.concatenate([[0.0, 1.0, 0.1, 0.6], around])
    return np.stack([x, x[::-1]]).astype("float32")


def value_and_gradients(staircase, x, t, upstream, how):
    def run(x, t, upstream):
        with tf.GradientTape() as tape:
            tape.watch([x, t])
            y = staircase(x, t)
        return y, *tape.gradient(y, [x, t], upstream)

    if how != "eager":
        run = tf.function(run, jit_compile=how == "xla", autograph=False)
    tensors = (tf.constant(a) for a in (x, t, upstream))
    return [result.numpy() for result in run(*tensors)]


@pytest.mark.parametrize("how", ["eager", "compiled", "xla"])
@pytest.mark.parametrize("gradient", quantization.GRADIENTS)
def test_gradients_match_numpy(gradient, how):
    steepness = 50.0
    x = edge_pixels()
    # Distinct upstream values catch a lost factor or an off-by-one.
    upstream = np.arange(1, x.size + 1, dtype="float32").reshape(x.shape)
    t = np.tile(T, (x.shape[1], 1)).astype("float32")
    staircase = quantization.make_staircase(4, steepness, gradient=gradient)
    found = value_and_gradients(staircase, x, t, upstream, how)
    wanted = numpy_oracle(
        x.astype("float64"),
        t.astype("float64"),
        steepness,
        4,
        upstream.astype("float64"),
        gradient,
    )
    for f, w in zip(found, wanted):
        np.testing.assert_allclose(f, w, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 5, 1), (1, 1, 3), (4, 5, 3)])
@pytest.mark.parametrize(
    ("gradient", "num_levels"),
    [("exact", 2), ("exact", 40), ("paper", 6)],
)
def test_shared_thresholds_sum_their_gradients(shape, gradient, num_levels):
    rng = np.random.default_rng(0)
    x = rng.random((3, 4, 5, 3)).astype("float32")
    upstream = rng.normal(size=x.shape).astype("float32")
    m = num_levels - 1
    t = rng.random((*shape, m)).astype("float32")
    staircase = quantization.make_staircase(num_levels, 7.0, gradient=gradient)
    y, d_x, d_t = value_and_gradients(staircase, x, t, upstream, "eager")
    full = np.broadcast_to(t, (4, 5, 3, m)).reshape(-1, m).astype("float64")
    wanted_y, wanted_x, wanted_t = numpy_oracle(
        x.reshape(3, -1).astype("float64"),
        full,
        7.0,
        num_levels,
        upstream.reshape(3, -1).astype("float64"),
        gradient,
    )
    wanted_t = wanted_t.reshape(4, 5, 3, m)
    axes = tuple(i for i in range(3) if shape[i] == 1)
    wanted_t = wanted_t.sum(axis=axes, keepdims=True).reshape(t.shape)
    np.testing.assert_allclose(y, wanted_y.reshape(x.shape), rtol=1e-5)
    np.testing.assert_allclose(d_x, wanted_x.reshape(x.shape), atol=1e-5)
    np.testing.assert_allclose(d_t, wanted_t, rtol=1e-4, atol=1e-4)


def test_gradient_matches_finite_differences_in_float64():
    x = tf.constant(np.linspace(0.01, 0.99, 23)[None])
    t = tf.constant([[0.3, 0.7]], tf.float64)
    staircase = quantization.make_staircase(3, 20.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = staircase(x, t)
    step = 1e-6
    difference = (staircase(x + step, t) - staircase(x - step, t)) / (2 * step)
    np.testing.assert_allclose(
        tape.gradient(y, x), difference, rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("hard", [False, True])
def test_no_pixel_value_has_a_zero_gradient(hard):
    """The masking of y (1 - y): zero from 0.34 above a threshold on."""
    x = (np.arange(256, dtype="float32") / 255)[None]
    t = np.array([[0.5]], "float32")
    staircase = quantization.make_staircase(2, 50.0, hard=hard)
    _, d_x, _ = value_and_gradients(
        staircase, x, t, np.ones_like(x), "compiled"
    )
    assert (d_x > 0).all()
    y = 1 / (1 + np.exp(-np.float32(50) * (x - t[0])))
    assert (y * (1 - y) == 0).sum() > 30, "the trap this test guards against"


@pytest.mark.parametrize("num_levels", [2, 3, 5])
def test_hard_staircase_at_below_and_above_each_threshold(num_levels):
    t = quantization.equally_spaced_thresholds(num_levels).astype("float32")
    staircase = quantization.make_staircase(num_levels, 50.0, hard=True)
    step = np.float32(1)
    x = np.stack([np.nextafter(t, -step), t, np.nextafter(t, step)])
    y = staircase(tf.constant(x), tf.constant(t[None])).numpy()
    below = np.arange(num_levels - 1, dtype="float32") / (num_levels - 1)
    above = np.arange(1, num_levels, dtype="float32") / (num_levels - 1)
    np.testing.assert_allclose(y, [below, above, above], rtol=1e-6)


def test_soft_staircase_tends_to_the_hard_one():
    x = tf.constant([[0.1, 0.3, 0.62, 0.9]])
    t = tf.constant([[0.25, 0.5, 0.75]])
    soft = quantization.make_staircase(4, 2000.0)(x, t)
    hard = quantization.make_staircase(4, 2000.0, hard=True)(x, t)
    np.testing.assert_allclose(soft, hard, atol=1e-6)


def test_thresholds_of_the_two_variants():
    standard = quantization.equally_spaced_thresholds(2)
    authors = quantization.equally_spaced_thresholds(2, "authors")
    assert standard.tolist() == [0.5]
    assert authors.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "`num_levels` must be an integer of at least 2.*=1"),
        ((2.0,), "`num_levels` must be an integer of at least 2.*=2.0"),
        ((2, "paper"), "`variant` must be one of 'standard', 'authors'"),
    ],
)
def test_thresholds_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantization.equally_spaced_thresholds(*arguments)


@pytest.mark.parametrize("value_range", [(0.0, 255.0), (-1.0, 1.0)])
def test_value_range_only_changes_units(value_range):
    low, high = value_range
    rng = np.random.default_rng(0)
    x = rng.random((2, 6)).astype("float32")
    t = rng.random((6, 2)).astype("float32")
    upstream = rng.normal(size=x.shape).astype("float32")
    unit = quantization.make_staircase(3, 9.0)
    scaled = quantization.make_staircase(3, 9.0, value_range=value_range)
    y, d_x, d_t = value_and_gradients(unit, x, t, upstream, "eager")
    y2, d_x2, d_t2 = value_and_gradients(
        scaled, low + (high - low) * x, t, upstream, "eager"
    )
    np.testing.assert_allclose(y2, low + (high - low) * y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d_x2, d_x, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(d_t2, (high - low) * d_t, rtol=1e-3, atol=1e-4)


def ranges(count):
    rng = np.random.default_rng(0)
    low = rng.normal(scale=10.0, size=count)
    return zip(low, low + rng.lognormal(sigma=2.0, size=count))


def in_pixels(t, value_range):
    """The documented formula, by NumPy."""
    low, high = value_range
    t = np.float32(high - low).astype("float64") * t
    t = t + np.float32(low).astype("float64")
    return np.where(np.abs(t) < 2.0**-126, -(2.0**-126), t).astype("float32")


def behind_a_dense_layer(thresholds, value_range):
    """A model whose outputs `2i` and `2i + 1` tell the level of pixel `i`."""
    quantizer = QuantLayer(2, 50.0, hard=True, value_range=value_range)
    layers = [quantizer, keras.layers.Dense(2), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((len(thresholds), 1)), *layers])
    model.set_weights(
        [
            thresholds[:, None, None],
            np.array([[3.0, -1.0]], "float32"),
            np.array([0.5, 0.25], "float32"),
        ]
    )
    return model


@pytest.mark.parametrize(
    "value_range",
    [(0, 1), (-1, 2), (0, 255), (-1, 1), (-2.118, 2.64), *ranges(5)],
)
def test_a_pixel_is_above_a_threshold_or_not_however_computed(
    value_range, tmp_path
):
    """At 10,000 thresholds, and one float32 step below and above each."""
    low, high = np.float32(value_range)
    t = np.random.default_rng(1).random(10_000).astype("float32")
    # Differences cancel, and numbers get too small for some processors.
    t[:4] = 0.0, 1e-42, 0.5, 1.0
    t[4] = np.clip(-low / (high - low), 0, 1)
    pixels = in_pixels(t, value_range)
    below, above = (np.nextafter(pixels, np.float32(s)) for s in (-9e9, 9e9))
    x = tf.constant(np.stack([below, pixels, above])[..., None])
    wanted = np.array([[False], [True], [True]]) & np.ones(len(t), bool)

    model = behind_a_dense_layer(t, value_range)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")

    for function in (model, served.serve):
        for how in ("eager", "compiled", "xla"):
            run = function
            if how != "eager":
                run = tf.function(
                    lambda x, function=function: function(x),
                    autograph=False,
                    jit_compile=how == "xla",
                )
            # The first of a pixel's outputs grows with its level.
            middle = 1.5 * (low + high) + 0.5
            found = np.asarray(run(x)).reshape(3, -1, 2)[..., 0] > middle
            np.testing.assert_array_equal(found, wanted, str((function, how)))

    wrapper = KerasModelWrapper.of(model)
    proved = network.trace(wrapper, wrapper.input_shape)
    levels = input_bounds(proved, x, x).center.numpy()[..., 0]
    np.testing.assert_array_equal(levels > (low + high) / 2, wanted)


def test_a_certificate_holds_for_the_model_compiled_as_a_whole():
    """Rounded twice the threshold is 0, rounded once it is 3e-8."""
    value_range = (-1, 2)
    model = keras.Sequential(
        [
            keras.Input((1,)),
            QuantLayer(2, 50.0, hard=True, value_range=value_range),
            keras.layers.Dense(2),
        ]
    )
    model.set_weights(
        [
            np.float32([[1 / 3]]),
            np.array([[0.0, 4 / 3]], "float32"),
            np.array([0.0, -2 / 3], "float32"),
        ]
    )
    edges = np.float32([0.0, 1e-8, 2e-8, 3e-8, 1e-7])
    eps = 0.125
    x = np.concatenate([edges + np.float32(eps), edges - np.float32(eps)])
    x = np.append(x, np.float32([0.5, -0.5]))[:, None]
    y = np.asarray(model(x)).argmax(1)
    found = certify(model, x, y, eps=eps, value_range=(-1.0, 2.0), verbose=0)
    whole = tf.function(model, autograph=False, jit_compile=True)
    for end in norms.ball(x, eps, -1.0, 2.0):
        agree = np.asarray(whole(end)).argmax(1) == y
        assert agree[found.certified].all()
    assert found.certified[-2:].all()
