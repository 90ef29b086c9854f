"""Certificates: closed forms, enumeration, soundness under attack."""

import itertools
import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qsn as qsn
from certified_models import hard
from certified_models import images
from certified_models import input_bounds
from certified_models import margin_of
from certified_models import predicted
from certified_models import randomized
from certified_models import sequential
from conftest import linear_model
from keras_qsn import cli
from keras_qsn.attacks import norms
from keras_qsn.certification import CertificationInterrupted
from keras_qsn.certification import certify
from keras_qsn.certification.bounds import compiled
from keras_qsn.certification.bounds import crown
from keras_qsn.certification.bounds import interval
from keras_qsn.certification.branching import elimination
from keras_qsn.certification.network import trace
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper

layers = keras.layers


# Closed forms.


def test_margin_of_a_linear_model():
    weights = np.array([1.0, -2.0, 0.5, 0.25], "float32")
    model = linear_model(weights, bias=0.1)
    x = np.array([[0.6, 0.2, 0.5, 0.95]], "float32")
    low, high = np.maximum(x - 0.1, 0), np.minimum(x + 0.1, 1)
    least = np.minimum(weights * low, weights * high).sum() + 0.1
    for methods in ("interval", "crown"):
        found = certify(model, x, [1], 0.1, methods=methods)
        assert found.margin[0] == pytest.approx(least, abs=1e-5)
        assert found.margin[0] < least
        assert found.certified[0]
        assert found.method[0] == methods
    assert certify(model, x, [1], 0.25).status[0] == "unknown"


def test_margin_behind_a_quantizer():
    """Only the pixel within `eps` of the threshold counts."""
    dense = layers.Dense(2)
    model = sequential((3,), hard(), dense)
    dense.set_weights(
        [np.array([[0, 4], [0, 1], [0, -2]], "float32"), np.zeros(2, "float32")]
    )
    found = certify(model, np.array([[0.9, 0.45, 0.2]], "float32"), [1], 0.1)
    assert found.margin[0] == pytest.approx(4.0, abs=1e-5)
    assert found.undetermined[0] == 1
    found = certify(model, np.array([[0.9, 0.45, 0.45]], "float32"), [1], 0.1)
    assert found.margin[0] == pytest.approx(2.0, abs=1e-5)


# Exhaustive enumeration.


def tiny(quantizer, seed):
    return randomized(
        sequential(
            (3, 4, 1),
            quantizer,
            layers.Conv2D(3, 2, activation="relu"),
            layers.Conv2D(4, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ),
        seed,
    )


def all_images(x, eps, thresholds):
    """An image of the ball for each pattern of levels that it can have."""
    choices = []
    for pixel in x.reshape(-1):
        low = np.float32(max(pixel - np.float32(eps), 0))
        high = np.float32(min(pixel + np.float32(eps), 1))
        inside = [t for t in thresholds if low < t <= high]
        choices.append([low, *inside])
    return np.array([*itertools.product(*choices)]).reshape(-1, *x.shape)


@pytest.mark.parametrize("sharpened_after", [1, 64])
@pytest.mark.parametrize("thresholds, seed", [([0.5], 3), ([0.35, 0.7], 6)])
def test_branching_agrees_with_enumeration(
    thresholds, seed, sharpened_after, monkeypatch
):
    monkeypatch.setattr(
        "keras_qsn.certification.branching.search._SHARPEN_AFTER",
        sharpened_after,
    )
    quantizer = hard(1 + len(thresholds), threshold_initializer=thresholds)
    model, eps = tiny(quantizer, seed), 0.25
    # `randomized` moved them.
    quantizer.set_weights(
        [np.broadcast_to(thresholds, quantizer.thresholds.shape)]
    )
    x = images(8, (3, 4, 1))
    y = predicted(model, x)
    found = certify(model, x, y, eps)
    bounds = certify(model, x, y, eps, methods=("interval", "crown"))
    for i in range(8):
        points = all_images(x[i], eps, np.float32(thresholds))
        assert np.abs(points - x[i]).max() <= eps + 1e-6
        least = margin_of(model(points).numpy(), y[i]).min()
        assert found.status[i] == ("certified" if least > 0 else "broken")
        assert found.margin[i] <= least + 1e-6
        assert bounds.margin[i] <= least + 1e-6
        assert bounds.status[i] in (found.status[i], "unknown")
        if found.status[i] == "broken":
            broken = found.counterexamples[i]
            assert np.abs(broken - x[i]).max() <= eps + 1e-6
            assert predicted(model, broken[None])[0] != y[i]
    assert set(found.status) == {"certified", "broken"}
    assert "branching" in found.method


def test_branching_alone_is_complete():
    """Its least margin is the true one, when all of it is enumerated."""
    model = tiny(hard(), 3)
    x = images(4, (3, 4, 1), 5)
    y = predicted(model, x)
    found = certify(model, x, y, 0.05, methods="branching")
    assert (found.method == "branching").all()
    assert found.certified.all()
    for i in range(4):
        points = all_images(x[i], 0.05, np.float32([0.5]))
        least = margin_of(model(points).numpy(), y[i]).min()
        assert 0 < found.margin[i] <= least + 1e-6


# Boundary pixels.


@pytest.mark.parametrize("eps", [0.3, 51 / 255, 0.1])
def test_every_grey_level_at_the_boundary(eps):
    """No way of computing `x + eps` leaves what the certificate covers."""
    quantizer = hard(shared_axes=[1])
    model = sequential((1,), quantizer, layers.Dense(2))
    pixels = (np.arange(256) / 255).astype("float32")[:, None]
    found = certify(model, pixels, np.zeros(256, int), eps, methods="interval")
    single, ulp = np.float32(eps), np.float32(2.0**-25)
    moved = [
        pixels - single,
        pixels + single,
        (pixels.astype("float64") - eps).astype("float32"),
        (pixels.astype("float64") + eps).astype("float32"),
        pixels + (single - ulp),
        (np.arange(256)[:, None] / 255 - eps).astype("float32"),
        (np.arange(256)[:, None] / 255 + eps).astype("float32"),
    ]
    level = quantizer(pixels).numpy()
    flipped = [quantizer(np.clip(x, 0, 1)).numpy() != level for x in moved]
    flips = np.any(flipped, 0)[:, 0]
    assert (found.undetermined[flips] == 1).all()
    # No more than the grey levels on the very boundary are given away.
    assert (found.undetermined == 1).sum() <= flips.sum() + 2
    if eps == 0.3:
        assert found.undetermined[[51, 204]].tolist() == [1, 1]
        assert found.undetermined[[50, 205]].tolist() == [0, 0]


def test_radius_zero_is_the_image_itself():
    model = sequential((1,), hard(shared_axes=[1]), layers.Dense(2))
    found = certify(model, np.array([[0.5]], "float32"), [0], 0.0)
    assert found.undetermined.tolist() == [0]


# Soundness on trained models.


@pytest.fixture(scope="module")
def proved(trained, digits):
    x, y = digits.x_test[:60], digits.y_test[:60]
    return x, y, certify(trained["hard"], x, y, 0.1, time_limit=5.0)


def test_escalation(proved):
    """Each method proves what the cheaper one could not."""
    _, _, found = proved
    counts = {name: (found.method == name).sum() for name in found.method}
    assert counts["interval"] > 5 and counts["crown"] > 5
    assert found.certified_accuracy > 0.8
    assert (found.margin[found.certified] > 0).all()
    assert found.certified_accuracy <= found.possible_accuracy
    assert found.possible_accuracy <= found.clean_accuracy


@pytest.mark.parametrize(
    "attack",
    [
        qsn.attacks.CubeAttack(0.1, nb_iter=20, nb_restarts=2),
        qsn.attacks.ProjectedGradientDescent(0.1, nb_iter=10),
        qsn.attacks.SquareAttack(0.1, nb_queries=150),
    ],
    ids=lambda attack: type(attack).__name__,
)
@pytest.mark.filterwarnings("ignore:.*gradient of zero:RuntimeWarning")
def test_no_certified_image_is_broken(proved, trained, attack):
    x, y, found = proved
    result = attack.run(trained["hard"], x, y)
    assert not (result.success & found.certified).any()


def test_no_certified_image_is_broken_at_random(proved, trained):
    """100 000 points, half of them corners."""
    x, y, found = proved
    chosen = np.flatnonzero(found.certified)[:50]
    rng = np.random.default_rng(0)
    predict = tf.function(lambda x: tf.argmax(trained["hard"](x), 1))
    for i in chosen:
        low, high = (end.numpy() for end in norms.ball(x[i], 0.1))
        share = rng.random((2000, *x[i].shape), "float32")
        share[::2] = np.round(share[::2])
        points = np.clip(low + share * (high - low), low, high)
        assert (predict(points).numpy() == y[i]).all()


def test_counterexamples_break_the_model(trained, digits):
    x, y = digits.x_test[:8], digits.y_test[:8]
    found = certify(trained["hard"], x, y, 0.3, time_limit=0.5)
    assert len(found.counterexamples) > 0
    assert set(found.counterexamples) == set(
        np.flatnonzero(found.status == "broken")
    )
    for i, image in found.counterexamples.items():
        assert np.abs(image - x[i]).max() <= 0.3 + 1e-6
        assert image.min() >= 0 and image.max() <= 1
        assert predicted(trained["hard"], image[None])[0] != y[i]


def test_misclassified_images(trained, digits):
    x, y = digits.x_test[:40], (digits.y_test[:40] + 1) % 10
    found = certify(trained["hard"], x, y, 0.0)
    wrong = predicted(trained["hard"], x) != y
    assert (found.status[wrong] == "misclassified").all()
    assert not found.certified[wrong].any()
    assert found.clean_accuracy == np.mean(~wrong)


# Quantizers of other kinds.


@pytest.mark.parametrize(
    "quantizer",
    [
        QuantLayer(2, 5.0),
        QuantLayer(4, 20.0, variant="authors"),
        QuantLayer(3, 50.0, hard=True, variant="authors"),
        QuantLayer(4, 50.0, hard=True, value_range=(-1.0, 1.0)),
        qsn.layers.TrainableQuantization(3),
    ],
    ids=lambda layer: layer.name,
)
def test_quantizers_against_random_points(quantizer):
    quantizer = quantizer.from_config(quantizer.get_config())
    model = tiny(quantizer, 0)
    rng = np.random.default_rng(0)
    trained = rng.random(quantizer.thresholds.shape)
    quantizer.set_weights([np.sort(trained).astype("float32")])
    bottom, top = quantizer.value_range
    x = bottom + (top - bottom) * images(20, (3, 4, 1))
    y = predicted(model, x)
    eps = 0.02 * (top - bottom)
    methods = ("interval", "crown")
    found = certify(model, x, y, eps, methods, value_range=(bottom, top))
    assert found.certified.any()
    low, high = (end.numpy() for end in norms.ball(x, eps, bottom, top))
    for i in range(20):
        share = rng.random((2000, 3, 4, 1))
        share[::2] = np.round(share[::2])
        points = (low[i] + share * (high[i] - low[i])).astype("float32")
        least = margin_of(model(points).numpy(), y[i]).min()
        assert found.margin[i] <= least
        if found.certified[i]:
            assert least > 0


def test_bytes():
    model = tiny(hard(value_range=(0, 255)), 0)
    x = (255 * images(3, (3, 4, 1))).astype("uint8")
    y = predicted(model, x.astype("float32"))
    found = certify(model, x, y, 2.0, methods="interval", value_range=(0, 255))
    unit = tiny(hard(), 0)
    same = certify(unit, x.astype("float32") / 255, y, 2 / 255, "interval")
    assert (found.undetermined == same.undetermined).all()


# Preprocessing inside the model.


@pytest.mark.parametrize("eps", [51.0, 25.5, 76.0])
@pytest.mark.parametrize(
    "rescaling",
    [
        layers.Rescaling(1 / 255),
        layers.Normalization(axis=None, mean=102.0, variance=6500.0),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_rescaled_pixels_at_the_boundary(rescaling, eps):
    """No way of computing the scale leaves what the certificate covers."""
    rescaling = rescaling.from_config(rescaling.get_config())
    before = sequential((1,), rescaling)
    bottom, top = before(np.array([[0.0], [255.0]], "float32")).numpy()[:, 0]
    quantizer = hard(shared_axes=[1], value_range=(float(bottom), float(top)))
    model = sequential((1,), rescaling, quantizer, layers.Dense(2))
    pixels = np.arange(256, dtype="float32")[:, None]
    labels = np.zeros(256, int)
    found = certify(
        model, pixels, labels, eps, "interval", value_range=(0, 255)
    )

    def seen(x):
        return quantizer(rescaling(x))

    compiled = tf.function(seen, autograph=False, jit_compile=True)
    moved = tf.constant(np.concatenate([pixels - eps, pixels + eps]))
    moved = tf.clip_by_value(moved, 0.0, 255.0)
    flips = np.zeros(256, bool)
    for function in (seen, compiled):
        level = np.tile(function(tf.constant(pixels)), [2, 1])
        flips |= (function(moved) != level).numpy().reshape(2, 256).any(0)
    assert 0 < flips.sum() <= (found.undetermined == 1).sum()
    assert (found.undetermined[flips] == 1).all()
    assert (found.undetermined == 1).sum() <= flips.sum() + 2


def test_branching_behind_a_rescaling_agrees_with_enumeration():
    quantizer = hard(3, value_range=(-1.0, 1.0))
    model = tiny(quantizer, 6)
    quantizer.set_weights(
        [np.broadcast_to([0.35, 0.7], quantizer.thresholds.shape)]
    )
    model = sequential((3, 4, 1), layers.Rescaling(2 / 255, -1.0), model)
    x, eps = 255 * images(6, (3, 4, 1)), 60.0
    y = predicted(model, x)
    found = certify(model, x, y, eps, value_range=(0, 255))
    for i in range(6):
        # Just above a threshold, in units of the pixels.
        points = all_images(
            x[i] / 255, eps / 255, np.float32([0.350001, 0.700001])
        )
        least = margin_of(model(255 * points).numpy(), y[i]).min()
        assert found.status[i] == ("certified" if least > 0 else "broken")
        assert found.margin[i] <= least + 1e-6
    assert set(found.status) == {"certified", "broken"}


def test_training_sees_boxes_behind_a_rescaling():
    """The same bounds as of the images that the rescaling makes."""
    quantizer = hard()
    model = tiny(quantizer, 1)
    rescaled = sequential((3, 4, 1), layers.Rescaling(1 / 255), model)
    x = tf.constant(images(4, (3, 4, 1)))
    found, same = (
        qsn.training.IntervalTraining(
            0.1 * scale, value_range=(0, scale)
        ).bounds(trace(KerasModelWrapper(whole), (3, 4, 1)), scale * x, 0.5)
        for whole, scale in ((rescaled, 255.0), (model, 1.0))
    )
    assert found[0].radius.numpy().max() == 0.25
    for bounds, others in zip(found, same):
        np.testing.assert_array_equal(bounds.center, others.center)
        np.testing.assert_array_equal(bounds.radius, others.radius)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_one_logit_is_two_classes(activation):
    """`[0, z]`: the margin is `z`, or less it."""
    dense = layers.Dense(1, activation)
    model = sequential((3,), layers.Rescaling(2.0, -1.0), dense)
    dense.set_weights([np.array([[1.0], [-2.0], [0.5]]), np.array([0.1])])
    x = np.array([[0.9, 0.2, 0.5], [0.2, 0.9, 0.5]], "float32")
    found = certify(model, x, [1, 0], 0.05)
    z = (2 * x - 1) @ [1.0, -2.0, 0.5] + 0.1
    np.testing.assert_allclose(found.margin, np.abs(z) - 0.35, atol=1e-5)
    assert found.certified.all()


def test_adapted_normalization():
    """The constants that `adapt` has found, saved and loaded."""
    normalization = layers.Normalization()
    x = 10 + 3 * images(100, (5,))
    normalization.adapt(x)
    model = sequential((5,), normalization, layers.Dense(3, "tanh"))
    model.add(layers.Dense(3))
    y = predicted(model, x)
    found = certify(model, x, y, 0.01, value_range=(0, 20))
    assert found.certified.sum() > 50
    least = margin_of(model(x).numpy(), 0)[y == 0]
    assert (found.margin[y == 0] <= least).all()
    np.testing.assert_allclose(found.margin[y == 0], least, atol=0.1)


# Rounding.


def test_the_models_own_rounding_is_paid_for(monkeypatch):
    """Without it the model's logits leave their bounds, which is noticed."""
    model = randomized(
        sequential((20, 20, 1), layers.Flatten(), layers.Dense(3))
    )
    x = images(4, (20, 20, 1))
    y = predicted(model, x)
    certify(model, x, y, 0.0)
    monkeypatch.setattr(
        "keras_qsn.certification.rules.affine.rounding",
        lambda additions: [0.0] * 3,
    )
    with pytest.raises(RuntimeError, match="logits must lie in their bounds"):
        certify(model, x, y, 0.0)


def test_the_rounding_of_a_large_bias_is_paid_for():
    dense = layers.Dense(3)
    model = sequential((4,), dense)
    dense.set_weights(
        [images(4, (3,)), np.array([999.1, 998.3, 997.7], "float32")]
    )
    x = images(50, (4,))
    found = certify(model, x, predicted(model, x), 0.0)
    assert found.certified.all()
    assert (found.margin <= margin_of(model(x).numpy(), 0) + 1e-9).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    model = sequential((3, 4, 1), tiny(hard(), 0))
    kernel = model.layers[0].layers[1].kernel
    values = kernel.numpy()
    values[0, 0, 0, :2] = value
    kernel.assign(values)
    name = model.layers[0].layers[1].name
    with pytest.raises(ValueError, match=f"2 value.*{name}/kernel'"):
        certify(model, images(1, (3, 4, 1)), [0], 0.1)


@pytest.mark.parametrize("value", [1e31, 3e38])
def test_weights_that_overflow_prove_nothing(value, monkeypatch):
    """Nor do they blame the device, or wait for the time limit."""
    monkeypatch.delattr("keras_qsn.certification.proving.branch")
    model = tiny(hard(), 0)
    weights = model.get_weights()
    weights[1][0, 0, 0, 0] = value
    model.set_weights(weights)
    x = np.ones((1, 3, 4, 1), "float32")
    found = certify(model, x, predicted(model, x), 0.1)
    assert found.status.tolist() == ["unknown"]
    assert found.margin.tolist() == [-np.inf]


# For training.


def test_bounds_are_differentiable():
    """The gradients of weights and thresholds, against differences."""
    quantizer = QuantLayer(2, 5.0)
    model = tiny(quantizer, 1)
    wrapper = KerasModelWrapper(model)
    graph = trace(wrapper, (3, 4, 1))
    quantizer.set_weights([np.full((3, 4, 1, 1), 0.5, "float32")])
    x, y = images(4, (3, 4, 1)), [0, 1, 2, 0]

    def worst(dtype):
        low, high = norms.ball(x, tf.constant(0.1))
        first = input_bounds(graph, low, high, dtype)
        bounds = interval.propagate(graph, first)
        assert all(bounds[p].radius.dtype == dtype for p in range(len(bounds)))
        return tf.reduce_mean(crown.margins(graph, bounds, y, relaxed=False))

    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        value = worst(tf.float32)
    gradients = tape.gradient(value, [v.value for v in variables])
    np.testing.assert_allclose(value, worst(tf.float64), rtol=1e-4, atol=1e-4)
    assert len(graph.pre_activations) == 2
    for variable, gradient in zip(variables, gradients):
        before = variable.numpy()
        # Small, so that few neurons change their piece.
        step = 1e-3 * np.sign(gradient)
        variable.assign(before + step)
        up = worst(tf.float64)
        variable.assign(before - step)
        down = worst(tf.float64)
        variable.assign(before)
        expected = np.sum(np.abs(gradient)) * 2e-3
        assert float(up - down) == pytest.approx(expected, rel=0.05)


# What is refused.


@keras.saving.register_keras_serializable(package="test_certification")
class Doubled(layers.Conv2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


def branched():
    inputs = keras.Input((3, 4, 1))
    x = layers.Add()([hard()(inputs), inputs])
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def outside():
    inputs = keras.Input((3, 4, 1))
    x = keras.ops.sin(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Dense(2)(x))


def ends_outside():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.ops.square(layers.Dense(2)(inputs)))


REFUSED = {
    "Softplus": ([layers.Activation("softplus")], "activation is softplus"),
    "silu": ([layers.Dense(2, "silu", name="bent")], "'bent' .Dense."),
    "ELU": ([layers.ELU(-0.5, name="odd")], "'odd' .ELU.*below zero"),
    "joined images": (
        [layers.Reshape((12, 1)), layers.Softmax(name="soft")],
        "'soft'.*no sound rule",
    ),
    "turned": (
        [layers.Rescaling(-1.0, 1.0, name="turned"), hard()],
        "'turned'.*its scale is below zero",
    ),
    "recolored": (
        [layers.Rescaling([1.0, 2.0], name="recolored")],
        "'recolored'.*it makes images",
    ),
    "Normalization": ([layers.LayerNormalization()], "LayerNormalization"),
    "subclass": ([Doubled(2, 2)], "Doubled"),
    "noise": ([layers.GaussianNoise(0.1)], "GaussianNoise"),
    "half": ([layers.Dense(2, dtype="mixed_float16")], "mixed_float16"),
    "double": ([layers.Dense(2, dtype="float64")], "float64"),
    "late": ([layers.ReLU(), hard(name="late")], "'late'.*only the first"),
    "twice": ([hard(), hard(name="again")], "'again'.*only the first"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_without_a_rule_are_refused_by_name(name):
    stack, message = REFUSED[name]
    stack = [layer.from_config(layer.get_config()) for layer in stack]
    model = sequential((3, 4, 1), *stack, layers.Flatten(), layers.Dense(2))
    with pytest.raises(ValueError, match=message):
        certify(model, images(1, (3, 4, 1)), [0], 0.1)


@pytest.mark.parametrize(
    "build, message",
    [
        (branched, "Layer 'add.*pixels beside the quantizer"),
        (outside, "Layer 'dense.*reads what no certified layer made"),
        (ends_outside, "The output of the model reads what no"),
    ],
)
def test_what_no_layer_made_is_refused(build, message):
    keras.utils.clear_session()
    model = build()
    with pytest.raises(ValueError, match=message):
        certify(model, images(1, model.input_shape[1:]), [0], 0.1)


class Composed(keras.Model):
    """A subclass that only calls layers."""

    def __init__(self, training=None, looks=False):
        super().__init__()
        self.first = layers.Dense(3, "leaky_relu")
        self.moody = layers.Dropout(0.5, name="moody")
        self.second = layers.Dense(2)
        self.told, self.looks = training, looks

    def call(self, inputs):
        if self.looks and tf.reduce_mean(inputs) > 0.5:
            return self.second(inputs)
        x = self.moody(self.first(inputs), training=self.told)
        return self.second(x)


def test_subclasses():
    """What they call is followed; what is no graph, or random, is refused."""
    x = images(3, (3,))
    for options, error, message in (
        ({}, None, None),
        ({"training": True}, ValueError, "'moody'.*as in training"),
        ({"looks": True}, ValueError, "'composed.*' must take one tensor"),
    ):
        model = Composed(**options)
        y = model(x).numpy().argmax(1)
        model.input_shape = (None, 3)
        if error is None:
            wrapper = KerasModelWrapper(model, from_logits=True)
            assert certify(wrapper, x, y, 0.0).certified.all()
            continue
        with pytest.raises(error, match=message):
            certify(KerasModelWrapper(model, from_logits=True), x, y, 0.0)


class Beside(keras.Model):
    """Calls a layer in front of the quantizer that it does not use."""

    def __init__(self):
        super().__init__()
        self.unused, self.used = layers.Rescaling(3.0), layers.Rescaling(0.5)
        self.quantizer, self.head = hard(), layers.Dense(2)
        self.quantizer.build((None, 3))

    def call(self, inputs):
        self.unused(inputs)
        return self.head(self.quantizer(self.used(inputs)))


def test_what_is_beside_the_way_to_the_quantizer_is_refused():
    model, x = Beside(), images(2, (3,))
    model(x)
    wrapper = KerasModelWrapper(model, from_logits=True)
    with pytest.raises(ValueError, match="only the first layer"):
        certify(wrapper, x, [0, 1], 0.1)


def test_refused_models_still_work():
    model = sequential((3,), layers.Dense(2), layers.Activation("softplus"))
    x = images(2, (3,))
    before = model(x).numpy()
    with pytest.raises(ValueError, match="softplus"):
        certify(model, x, [0, 1], 0.1)
    np.testing.assert_array_equal(model(x), before)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"eps": -0.1}, "`eps` is in pixel units"),
        ({"eps": np.nan}, "`eps` is in pixel units"),
        ({"eps": 1.5}, "from 0 to 1 for pixels in"),
        ({"time_limit": 0}, "`time_limit` must be a number"),
        ({"y": None}, "`y` must hold the true classes"),
        ({"y": [7]}, "whole numbers from 0 to 2"),
        ({"methods": "magic"}, "`methods` must be names out of"),
        ({"methods": ()}, "`methods` must be names out of"),
        ({"batch_size": 0}, "`batch_size` must be a whole number"),
        ({"x": np.full((1, 3, 4, 1), 2.0)}, "`x` must lie in"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"x": images(1, (3, 4, 1)), "y": [0], "eps": 0.1}
    with pytest.raises(ValueError, match=message):
        certify(tiny(hard(), 0), **(arguments | change))


def test_branching_needs_a_hard_quantizer():
    x = images(1, (3, 4, 1))
    with pytest.raises(ValueError, match="only for a model with a hard"):
        certify(tiny(QuantLayer(2, 5.0), 0), x, [0], 0.1, methods="branching")


# Running.


def test_interrupted():
    model = tiny(hard(), 0)
    x = images(8, (3, 4, 1))
    y = predicted(model, x)

    def stop(name, done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(CertificationInterrupted, match="5 images") as caught:
        certify(model, x, y, 0.1, progress=stop, batch_size=3)
    part, whole = caught.value.certificate, certify(model, x, y, 0.1)
    assert len(part) == 5
    np.testing.assert_array_equal(part.status, whole.status[:5])


def test_a_kept_run_goes_on_where_it_was(
    trained, proved, tmp_path, monkeypatch
):
    x, y, found = proved
    model, folder = trained["hard"], tmp_path / "kept"
    # Each image in a file of its own.
    module = sys.modules["keras_qsn.certification.escalation"]
    monkeypatch.setattr(module, "_KEEP_AFTER", -1.0)

    def stop(name, done, total):
        if done == 7:
            raise KeyboardInterrupt

    kwargs = {"eps": 0.1, "batch_size": 5, "folder": folder, "verbose": 0}
    with pytest.raises(CertificationInterrupted, match="7 images"):
        certify(model, x, y, progress=stop, **kwargs)
    told = []

    def tell(name, done, total):
        told.append(done)

    whole = certify(model, x, y, progress=tell, **kwargs)
    assert told[0] == 8 and told[-1] == len(x)
    np.testing.assert_array_equal(whole.status, found.status)
    np.testing.assert_allclose(whole.margin, found.margin, atol=1e-9)
    monkeypatch.delattr("keras_qsn.certification.proving.branch")
    again = certify(model, x, y, **kwargs)
    np.testing.assert_array_equal(again.seconds, whole.seconds)
    assert set(again.counterexamples) == set(found.counterexamples)
    for i, image in found.counterexamples.items():
        np.testing.assert_allclose(again.counterexamples[i], image, atol=1e-6)
    with pytest.raises(ValueError, match="holds other work: it differs in eps"):
        certify(model, x, y, **{**kwargs, "eps": 0.2})


def test_batches_and_datasets_change_nothing(proved, trained):
    x, y, found = proved
    data = tf.data.Dataset.from_tensor_slices((x[:12], y[:12])).batch(4)
    same = certify(trained["hard"], data, eps=0.1, batch_size=5)
    np.testing.assert_array_equal(same.status, found.status[:12])
    np.testing.assert_allclose(same.margin, found.margin[:12], atol=1e-9)


def test_time_limit(digits):
    """Out of time is unknown, with the margin proved so far."""
    model = tiny(hard(), 0)
    x = images(20, (3, 4, 1))
    y = predicted(model, x)
    found = certify(model, x, y, 0.4, time_limit=1e-9)
    crown_only = certify(model, x, y, 0.4, methods=("interval", "crown"))
    np.testing.assert_array_equal(found.status, crown_only.status)
    np.testing.assert_array_equal(found.margin, crown_only.margin)
    assert (found.status == "unknown").any()


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def passes(self, monkeypatch, owner, name, seconds):
        """Let a call take so long; returns the list of what was called."""
        function, calls = getattr(owner, name), []

        def slow(*arguments):
            self.now += seconds
            calls.append(arguments)
            return function(*arguments)

        monkeypatch.setattr(owner, name, slow)
        return calls


def test_building_functions_takes_none_of_the_time(monkeypatch):
    time = Time(monkeypatch)
    module = sys.modules["keras_qsn.certification.bounds.compiled"]
    built = time.passes(monkeypatch, module, "fast_convolutions", 100.0)
    model = tiny(hard(), 3)
    x = images(4, (3, 4, 1), 5)
    y = predicted(model, x)
    found = certify(model, x, y, 0.25, methods="branching", time_limit=1.0)
    assert len(built) >= 3 and "unknown" not in found.status


def test_time_is_up_after_one_more_batch_of_boxes(monkeypatch):
    time = Time(monkeypatch)
    monkeypatch.setattr("keras_qsn.certification.branching.search._DOMAINS", 1)
    bounded = time.passes(
        monkeypatch, compiled.CompiledBounds, "lower_bound", 2.0
    )
    model = tiny(hard(5), 0)
    x = images(20, (3, 4, 1))
    y = predicted(model, x)
    found = certify(model, x, y, 0.2, methods="branching", time_limit=5.0)
    assert (found.status == "unknown").any()
    # The first batch of the first image builds the function.
    assert len(bounded) > len(x)
    assert found.seconds.max() <= 6.0


def test_nothing_else_goes_on_when_time_is_up(monkeypatch):
    """Neither sharper bounds nor the reduced network."""
    model = tiny(hard(5), 0)
    found = compiled.CompiledBounds(KerasModelWrapper(model), (3, 4, 1))
    low, high = np.zeros((1, 3, 4, 1)), np.ones((1, 3, 4, 1))
    early = found.sharper(low, high, lambda: True)
    full = found.sharper(low, high, lambda: False)
    assert (full[1].radius < early[1].radius).numpy().any()
    box = found.network, low[0], high[0], full
    assert elimination.eliminate(*box, lambda: True) is None
    assert elimination.eliminate(*box, lambda: False) is not None


class TestCommand:
    @pytest.fixture
    def command(self, trained, digits, tmp_path):
        trained["hard"].save(tmp_path / "model.keras")
        few = {"x_test": digits.x_test[::50], "y_test": digits.y_test[::50]}
        np.savez(tmp_path / "few.npz", **few)
        return [
            "certify",
            str(tmp_path / "model.keras"),
            "--data",
            str(tmp_path / "few.npz"),
            "--eps",
            "0.1",
            "--out",
            str(tmp_path / "out"),
        ]

    def test_says_which_images_are_proved(self, command, tmp_path, capsys):
        assert cli.main(command) == 0
        shown = " ".join(capsys.readouterr().out.split())
        found = json.loads((tmp_path / "out/certificate.json").read_text())
        assert len(found["images"]) == 20 and found["eps"] == 0.1
        proved = [row["status"] == "certified" for row in found["images"]]
        assert found["certified_accuracy"] == pytest.approx(np.mean(proved))
        assert found["certified_accuracy"] <= found["possible_accuracy"]
        share = f"{100 * found['certified_accuracy']:.1f} %"
        assert f"Certified accuracy {share}" in shown
        assert all(
            (row["margin"] > 0) == (row["status"] == "certified")
            for row in found["images"]
            if row["status"] != "broken"
        )

    def test_status_for_scripts(self, command, capsys):
        short = [*command, "--methods", "interval"]
        assert cli.main([*short, "--at-least", "1.0"]) == 1
        assert cli.main([*short, "--at-least", "0.0"]) == 0
        assert cli.main(["certify", "none.keras", "--data", "digits"]) == 2
        assert "no model file" in capsys.readouterr().err
