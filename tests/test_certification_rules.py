"""Rules of certificates: each layer against grids and random points."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qsn as qsn
from certified_models import hard
from certified_models import images
from certified_models import input_bounds
from certified_models import margin_rows
from certified_models import predicted
from certified_models import randomized
from certified_models import sequential
from keras_qsn.attacks import norms
from keras_qsn.certification import Activation
from keras_qsn.certification import Affine
from keras_qsn.certification import Rule
from keras_qsn.certification import certify
from keras_qsn.certification import register_rule
from keras_qsn.certification.bounds import crown
from keras_qsn.certification.bounds import interval
from keras_qsn.certification.bounds import zonotope
from keras_qsn.certification.branching import elimination
from keras_qsn.certification.network import Network
from keras_qsn.certification.network import trace
from keras_qsn.certification.rules import smooth
from keras_qsn.certification.rules.activation import biases
from keras_qsn.certification.rules.enclosures import Bounds
from keras_qsn.certification.rules.registry import rules_of
from keras_qsn.models import KerasModelWrapper

layers = keras.layers


def prelu(alpha):
    constant = keras.initializers.Constant(alpha)
    return layers.PReLU(constant, shared_axes=[1])


def numpy_relu(max_value=np.inf, negative_slope=0.0, threshold=0.0):
    max_value, negative_slope, threshold = (
        float(np.float32(number))
        for number in (max_value, negative_slope, threshold)
    )
    return lambda x: np.where(
        x > threshold,
        np.minimum(x, max_value),
        negative_slope * (x - threshold),
    )


def numpy_elu(alpha):
    alpha = float(np.float32(alpha))
    return lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def logistic(x):
    return 1 / (1 + np.exp(-x))


RELUS = [
    {},
    {"max_value": 1.0},
    {"negative_slope": 0.1},
    {"max_value": 0.5, "negative_slope": 0.3},
    {"threshold": 0.4},
    {"threshold": 0.4, "max_value": 0.7, "negative_slope": 0.2},
    {"max_value": 6},
    {"negative_slope": 2.0},
    {"max_value": 0.3, "threshold": 0.6},
]
ACTIVATIONS = {
    **{
        f"relu {arguments}": (layers.ReLU(**arguments), numpy_relu(**arguments))
        for arguments in RELUS
    },
    **{
        f"prelu {alpha}": (prelu(alpha), numpy_relu(negative_slope=alpha))
        for alpha in (-2.5, -0.5, 0.0, 0.3, 1.7)
    },
    **{
        f"elu {alpha}": (layers.ELU(alpha), numpy_elu(alpha))
        for alpha in (0.0, 0.3, 1.0, 2.5)
    },
    "elu": (layers.Activation("elu"), numpy_elu(1.0)),
    "sigmoid": (layers.Activation("sigmoid"), logistic),
    "tanh": (layers.Activation("tanh"), np.tanh),
}


@pytest.mark.parametrize("reach", [0.01, 2.0, 30.0])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_bounds_against_a_grid(name, reach):
    """Values between interval ends, lines below and above, on a fine grid."""
    layer, function = ACTIVATIONS[name]
    layer = layer.from_config(layer.get_config())
    layer.build((None, 2))
    (rule,) = rules_of(layer, (2,))
    rng = np.random.default_rng(0)
    ends = rng.uniform(-2, 2, (100, 1)) + reach * rng.uniform(-1, 1, (100, 2))
    ends = np.sort(ends, 1)
    # A point, and ends at zero.
    ends[0], ends[1], ends[2] = 0.3, (0.0, reach), (-reach, 0.0)
    low, high = tf.constant(ends[:, 0]), tf.constant(ends[:, 1])
    x = Bounds.between(low, high)
    grid = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * np.linspace(0, 1, 201)
    exact = function(grid)
    # The same function in float64 as in float32.
    np.testing.assert_allclose(rule.function(tf.constant(grid)), exact, 1e-12)
    single = grid.astype("float32")
    value = layer(single.reshape(-1, 2)).numpy().reshape(single.shape)
    off = np.abs(value - function(single.astype("float64")))
    assert (off <= rule.error(x).numpy()[:, None]).all()
    bottom, top = (end.numpy() for end in rule.bounds(x).ends)
    leap = "threshold" in name
    tolerance = 1e-5 * (1 + reach) + (reach / 100 if "-" in name else 0)
    np.testing.assert_allclose(bottom, exact.min(1), atol=tolerance)
    np.testing.assert_allclose(top, exact.max(1), atol=tolerance)
    assert (bottom <= exact.min(1)).all() and (top >= exact.max(1)).all()
    lines = [
        [part.numpy()[:, None] for part in line] for line in rule.relaxation(x)
    ]
    (below, base), (above, roof) = lines
    assert (below * grid + base <= exact + 1e-12).all()
    assert (above * grid + roof >= exact - 1e-12).all()
    slope, base, roof = (part.numpy()[:, None] for part in rule.parallel(x))
    assert (slope * grid + base <= exact + 1e-12).all()
    assert (slope * grid + roof >= exact - 1e-12).all()
    if not leap:
        assert_least_area(lines, ends, function)


def assert_least_area(lines, ends, function):
    """At the middle they meet the hull of the activation's points."""
    points = np.linspace(*ends.T, 101, axis=1)
    kinks = np.arange(-60, 70) / 10 * np.ones((len(ends), 1))
    points = np.concatenate([points, kinks.clip(*ends.T[..., None])], 1)
    middle = ends.mean(1)
    left = np.minimum(points, middle[:, None])[:, :, None]
    right = np.maximum(points, middle[:, None])[:, None]
    width = np.maximum(right - left, 1e-300)
    weight = (right - middle[:, None, None]) / width
    chords = function(left) * weight + function(right) * (1 - weight)
    chords = np.where(right > left, chords, function(middle)[:, None, None])
    tolerance = 1e-3 * (ends[:, 1] - ends[:, 0]) + 1e-9
    hull = chords.min((1, 2)), chords.max((1, 2))
    for (slope, base), value in zip(lines, hull):
        reached = slope[:, 0] * middle + base[:, 0]
        assert (np.abs(reached - value) <= tolerance).all()


@pytest.mark.parametrize("jit_compile", [None, False, True])
@pytest.mark.parametrize(
    "name, function",
    [
        ("sigmoid", logistic),
        ("tanh", np.tanh),
        ("elu", numpy_elu(1.0)),
    ],
)
def test_what_float32_may_be_off(name, function, jit_compile):
    """A walk through the bit patterns of float32: eager, compiled, XLA."""
    activation = keras.activations.get(name)
    if jit_compile is not None:
        activation = tf.function(
            activation, autograph=False, jit_compile=jit_compile
        )
    x = np.arange(0, 2**32, 4099, dtype="uint32").view("float32")
    x = x[np.isfinite(x)]
    x = np.concatenate([x, np.linspace(-20, 20, 100001, dtype="float32")])
    with np.errstate(over="ignore"):
        exact = function(x.astype("float64"))
    off = np.abs(activation(tf.constant(x)).numpy() - exact)
    if name == "elu":
        assert (off[x > 0] == 0).all()
    assert 0 < off.max() <= smooth._OFF / 2


def test_relu_lines_are_the_adaptive_ones_of_crown():
    x = Bounds.between(
        tf.constant([-1.0, -3.0, -2.0, 1.0], tf.float64),
        tf.constant([3.0, 1.0, -1.0, 2.0], tf.float64),
    )
    rule = (
        trace(KerasModelWrapper(sequential((2,), layers.ReLU())), (2,))
        .nodes[1]
        .rule
    )
    (below, base), (above, roof) = rule.relaxation(x)
    np.testing.assert_allclose(below, [1, 0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(base, 0, atol=1e-9)
    np.testing.assert_allclose(above, [0.75, 0.25, 0, 1], atol=1e-9)
    np.testing.assert_allclose(roof, [0.75, 0.75, 0, 0], atol=1e-9)


# Every rule against random points.


def residual():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(2, 3, padding="same", activation="relu")(inputs)
    x = layers.Add()([x, inputs, x])
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def joined():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(2, 3, padding="same", activation="relu")(inputs)
    x = layers.Concatenate()([x, inputs, x])
    x = layers.Concatenate(axis=1)([x, layers.AveragePooling2D((2, 1))(x)])
    x = layers.SeparableConv2D(3, 2, activation="relu6")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def application():
    """A block of MobileNet's and one of DenseNet's, behind preprocessing."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Rescaling(2.0, -1.0)(inputs)
    x = layers.Normalization(mean=[0.1, -0.2], variance=[0.3, 0.5])(x)
    y = layers.Conv2D(4, 1, use_bias=False)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(2, 1, use_bias=False)(y))
    x = layers.Add()([x, y])
    y = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Concatenate()([x, layers.Conv2D(3, 3, padding="same")(y)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3, "softmax")(x))


class Square(layers.Layer):
    def call(self, inputs):
        return inputs * inputs


@register_rule(Square)
class SquareRule(Rule):
    def bounds(self, x):
        low, high = x.ends
        least = tf.nn.relu(tf.maximum(low, -high)) ** 2
        return Bounds.between(least, tf.maximum(-low, high) ** 2).rounded()


class Product(layers.Layer):
    def call(self, inputs):
        return inputs[0] * inputs[1]


@register_rule(Product)
class ProductRule(Rule):
    def bounds(self, x, y):
        corners = tf.stack([a * b for a in x.ends for b in y.ends])
        ends = tf.reduce_min(corners, 0), tf.reduce_max(corners, 0)
        return Bounds.between(*ends).rounded()


class Step(layers.Layer):
    def call(self, inputs):
        return tf.cast(inputs >= 0.25, inputs.dtype)


@register_rule(Step)
class StepRule(Activation):
    exact = True

    def function(self, values):
        return tf.cast(values >= 0.25, values.dtype)

    def error(self, x):
        return tf.zeros_like(x.radius)

    def parallel(self, x):
        low, high = self.values(x)
        slope = tf.math.divide_no_nan(high - low, x.radius * 2)
        corners = [(x.ends[0], low), (x.ends[1], high)]
        knot = tf.clip_by_value(0.25 + 0 * low, *x.ends)
        return slope, *biases(slope, [*corners, (knot, low), (knot, high)])


def own_layers():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(2, 3, activation="relu")(inputs)
    x = Product()([x, Square()(x)])
    y = Step()(layers.Conv2D(2, 2)(inputs))
    x = layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(y)])
    return keras.Model(inputs, layers.Dense(3)(x))


def nested():
    inner = sequential(
        (6, 6, 2), layers.Conv2D(3, 2), layers.ReLU(max_value=1.0)
    )
    inputs = keras.Input((6, 6, 2))
    x = layers.Dropout(0.5)(inner(inputs))
    return keras.Model(inputs, layers.Dense(3, "softmax")(layers.Flatten()(x)))


STACKS = {
    "conv": [layers.Conv2D(3, 3, strides=2, padding="same", use_bias=False)],
    "dilated": [layers.Conv2D(3, 2, dilation_rate=2, activation="relu")],
    "grouped": [layers.Conv2D(4, 3, groups=2, activation="relu6")],
    "depthwise": [
        layers.DepthwiseConv2D(3, depth_multiplier=2, activation="leaky_relu")
    ],
    "normalized": [layers.Conv2D(3, 3), layers.BatchNormalization()],
    "normalized plainly": [
        layers.BatchNormalization(axis=1, scale=False, center=False)
    ],
    "max pooling": [layers.MaxPooling2D(3, 2, "same"), layers.ReLU()],
    "max pooling again": [layers.ReLU(), layers.MaxPooling2D(2)],
    "global max": [layers.Conv2D(4, 2), layers.GlobalMaxPooling2D()],
    "average": [layers.AveragePooling2D(3, 2, "same"), layers.LeakyReLU(0.1)],
    "global average": [
        layers.Conv2D(4, 2, activation="relu"),
        layers.GlobalAveragePooling2D(keepdims=True),
    ],
    "padded": [layers.ZeroPadding2D((1, 2)), layers.MaxPooling2D((2, 3))],
    "reshaped": [layers.Reshape((12, 6)), layers.Dense(4, "relu")],
    "deep": [
        layers.Conv2D(4, 3, activation="relu"),
        layers.Activation("linear"),
        layers.Conv2D(4, 3, activation="relu"),
        layers.Activation("relu"),
    ],
    "rescaled": [
        layers.Rescaling([0.5, -2.0], [-0.3, 0.1]),
        layers.Conv2D(3, 3, activation="relu"),
    ],
    "standardized": [
        layers.Normalization(mean=[0.4, 0.6], variance=[0.05, 0.2]),
        layers.Conv2D(3, 3, activation="relu"),
    ],
    "standardized alike": [
        layers.Normalization(axis=None, mean=0.5, variance=0.1),
    ],
    "standardized by column": [
        layers.Normalization(
            axis=2, mean=np.arange(6) / 6, variance=np.arange(1, 7) / 12
        ),
    ],
    "destandardized": [
        layers.Normalization(mean=[0.4, 0.6], variance=[0.2, 3.0], invert=True),
    ],
    "separable": [
        layers.SeparableConv2D(
            4, 3, strides=2, padding="same", depth_multiplier=2
        ),
        layers.ELU(0.5),
        layers.SeparableConv2D(3, 2, dilation_rate=2, use_bias=False),
    ],
    "prelu": [layers.Conv2D(3, 3), layers.PReLU(), layers.Dense(4, "relu")],
    "shared prelu": [
        layers.Conv2D(3, 3),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Dense(4),
        layers.PReLU(),
    ],
    "elu": [
        layers.Conv2D(3, 3, activation="elu"),
        layers.Dense(4),
        layers.ELU(1.8),
    ],
    "sigmoid": [
        layers.Conv2D(3, 3, activation="sigmoid"),
        layers.Dense(4, "tanh"),
        layers.Dense(4),
        layers.Activation("sigmoid"),
    ],
    "fast": [
        qsn._core.convolution.FastConv2D(3, 4, strides=2, activation="relu"),
        layers.Identity(),
        qsn._core.convolution.FastConv2D(4, 2, activation="relu"),
    ],
}
MODELS = {
    name: lambda stack=stack: sequential(
        (6, 6, 2),
        *(layer.from_config(layer.get_config()) for layer in stack),
        layers.Flatten(),
        layers.Dense(3),
    )
    for name, stack in STACKS.items()
} | {
    "residual": residual,
    "nested": nested,
    "joined": joined,
    "application": application,
    "own layers": own_layers,
}


def traced(name):
    model = randomized(MODELS[name]())
    wrapper = KerasModelWrapper(model)
    return model, wrapper, trace(wrapper, (6, 6, 2))


@pytest.mark.parametrize("name", MODELS)
def test_rules_against_random_points(name):
    """Every node's interval, and every bound of the margins, XLA or not."""
    model, wrapper, graph = traced(name)
    x = images(1, (6, 6, 2))
    labels = predicted(model, x)
    low, high = norms.ball(x, 0.1)
    first = input_bounds(graph, low, high)
    unknown = tf.range(72)
    hidden = {
        "interval": interval.propagate(graph, first),
        "forward": zonotope.propagate(graph, first, unknown),
    }
    hidden["sharper"] = interval.propagate(
        graph, first, dict(enumerate(hidden["forward"]))
    )
    margins = {
        (kind, relaxed): crown.margins(graph, bounds, labels, relaxed)[0]
        for kind, bounds in hidden.items()
        for relaxed in (False, True)
    }
    # Half of the points are corners, and so are those that the linear bounds
    # call worst.
    rng = np.random.default_rng(2)
    share = rng.random((3000, 6, 6, 2))
    share[::2] = np.round(share[::2])
    rows = margin_rows(labels, 3)
    last = len(graph.nodes) - 1
    slopes = crown.lower_bound(
        graph, hidden["forward"], last, tf.constant(rows)
    )[1]
    share[:3] = slopes[0] < 0
    points = (low + share * (high - low)).numpy()
    points = np.clip(points, low, high).astype("float32")
    compiled = tf.function(
        wrapper.get_logits, autograph=False, jit_compile=True
    )
    logits = wrapper.get_logits(points).numpy()
    logits = np.concatenate([logits, compiled(tf.constant(points)).numpy()])
    least = (logits[:, labels[0], None] - logits).min(0)
    for found in margins.values():
        assert (found <= least).numpy().all()
    exact = interval.propagate(
        graph, input_bounds(graph, points[:600], points[:600])
    )
    for bounds in hidden.values():
        for node, values in zip(bounds, exact):
            floor, roof = node.ends
            assert (values.center >= floor).numpy().all()
            assert (values.center <= roof).numpy().all()
    floor, roof = (end.numpy() for end in hidden["interval"][-1].ends)
    assert (logits >= floor).all() and (logits <= roof).all()
    # Of a point the bounds are the margin itself, but for rounding.
    at = [Bounds(*(part[:1] for part in node)) for node in exact]
    margin = logits[0, labels[0]] - logits[0]
    for relaxed in (False, True):
        found = crown.margins(graph, at, labels, relaxed).numpy()[0]
        np.testing.assert_allclose(found, margin, rtol=1e-4, atol=1e-3)
        assert (found <= margin).all()


@pytest.mark.parametrize("name", MODELS)
def test_reduced_networks_against_random_points(name, monkeypatch):
    """Sound on boxes inside, and of a point the margin, but for rounding."""
    monkeypatch.setattr(Network, "products", np.inf)
    model, wrapper, graph = traced(name)
    x = images(1, (6, 6, 2))
    low, high = (end.numpy()[0] for end in norms.ball(x, 0.1))
    # A third of the pixels are known.
    rng = np.random.default_rng(3)
    high = np.where(rng.random(low.shape) < 1 / 3, low, high)
    first = input_bounds(graph, low[None], high[None])
    unknown = np.flatnonzero(low != high)
    bounds = zonotope.propagate(graph, first, tf.constant(unknown))
    known = [bounds[p] for p in graph.pre_activations]
    ends = low.astype("float64"), high.astype("float64")
    found = elimination.eliminate(graph, *ends, known, lambda: False)
    low, high = (end.reshape(-1)[unknown] for end in ends)
    rows = margin_rows(predicted(model, x)[0], 3)
    corners = np.sort(rng.random((2, 60, len(unknown))), 0)
    corners[1, :20] = corners[0, :20]
    lows, highs = low + corners * (high - low)
    lows, highs = lows.astype("float32"), highs.astype("float32")
    least, slopes = found.lower_bound(
        *(end.astype("float64") for end in (lows, highs)), rows
    )
    assert slopes.shape == (60, 3, len(unknown))

    def margins(share):
        points = np.repeat(ends[0].reshape(1, -1), 60, 0).astype("float32")
        points[:, unknown] = np.clip(lows + share * (highs - lows), lows, highs)
        logits = wrapper.get_logits(points.reshape(-1, 6, 6, 2))
        return logits.numpy() @ rows.T

    of_points = margins(0)[:20]
    np.testing.assert_allclose(least[:20], of_points, rtol=1e-4, atol=1e-3)
    for share in (0, 1, *rng.random((50, 60, len(unknown))).round(1)):
        assert (least <= margins(share) + 1e-6).all()
    for row in range(3):
        worst = (slopes[:, row] < 0).astype("float64")
        assert (least <= margins(worst) + 1e-6).all()


def test_reduced_networks_have_a_limit(monkeypatch):
    monkeypatch.setattr(
        "keras_qsn.certification.branching.elimination._LARGE", 100
    )
    _, _, graph = traced("deep")
    low = np.zeros((6, 6, 2))
    first = interval.level_bounds(graph, low[None], low[None] + 1)
    known = interval.propagate(graph, first)
    known = [known[p] for p in graph.pre_activations]
    assert elimination.eliminate(graph, low, low + 1, known, bool) is None


# Rules of users, and what is known by what it computes.


@pytest.mark.parametrize("sharpened_after", [1, 64])
def test_layers_of_users_are_branched_on(sharpened_after, monkeypatch):
    """A network with rules of every kind, whole and reduced: all decided."""
    monkeypatch.setattr(Network, "products", np.inf)
    monkeypatch.setattr(
        "keras_qsn.certification.branching.search._SHARPEN_AFTER",
        sharpened_after,
    )
    model = randomized(sequential((6, 6, 2), hard(2), own_layers()), 2)
    model.layers[0].set_weights([np.full((6, 6, 2, 1), 0.5)])
    x = images(6, (6, 6, 2))
    y = predicted(model, x)
    found = certify(model, x, y, 0.05)
    assert set(found.status) == {"certified", "broken"}
    assert "branching" in found.method
    rng = np.random.default_rng(0)
    for i in np.flatnonzero(found.certified):
        points = x[i] + rng.uniform(-0.05, 0.05, (1000, 6, 6, 2))
        points = points.clip(0, 1).astype("float32")
        assert (predicted(model, points) == y[i]).all()


class Named(layers.Dense):
    """Only made in another way."""

    def __init__(self, units, **kwargs):
        super().__init__(units, activation="relu", **kwargs)


class Bits(qsn.layers.QuantLayer):
    def __init__(self, **kwargs):
        super().__init__(2, 50.0, hard=True, **kwargs)


class Turned(Bits):
    def call(self, inputs, training=None):
        return 1 - super().call(inputs)


def test_subclasses_are_known_by_what_they_compute():
    x = images(3, (4,))
    model = sequential((4,), Bits(), Named(5), layers.Dense(2))
    found = certify(model, x, predicted(model, x), 0.01)
    plain = sequential((4,), hard(), layers.Dense(5, "relu"), layers.Dense(2))
    plain.set_weights(model.get_weights())
    same = certify(plain, x, predicted(model, x), 0.01)
    np.testing.assert_array_equal(found.margin, same.margin)
    squeezed = sequential((4,), qsn.defenses.BitDepthReduction(1))
    squeezed.add(layers.Dense(2))
    assert certify(squeezed, x, predicted(squeezed, x), 0.0).certified.all()
    turned = sequential((4,), Turned(), layers.Dense(2))
    with pytest.raises(ValueError, match="Turned.*no sound rule"):
        certify(turned, x, [0, 0, 0], 0.01)


def test_what_cannot_be_registered():
    for kind in (3, object, "relu"):
        with pytest.raises(TypeError, match="a class of Keras layers or an"):
            register_rule(kind)

    class Odd(layers.Layer):
        def call(self, inputs):
            return inputs

    register_rule(Odd)(lambda layer, shape: "nothing")
    with pytest.raises(TypeError, match="Odd must return a `Rule`"):
        rules_of(Odd(), (3,))
    register_rule(Odd)(Rule)
    (rule,) = rules_of(Odd(), (3,))
    with pytest.raises(NotImplementedError, match="must have `bounds"):
        rule.bounds()


def test_a_rule_returns_bounds():
    class Same(layers.Layer):
        def call(self, inputs):
            return inputs

    @register_rule(Same)
    class SameRule(Rule):
        def bounds(self, x):
            return x.ends

    model = sequential((3,), Same(), layers.Dense(2))
    with pytest.raises(TypeError, match="SameRule.bounds. must return .Bounds"):
        certify(model, images(2, (3,)), [0, 1], 0.1)


def test_a_wrong_rule_is_noticed():
    class Doubled(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    register_rule(Doubled)(lambda layer, shape: Affine(lambda x, **_: x))
    model = sequential((3,), layers.Dense(2), Doubled())
    with pytest.raises(RuntimeError, match="the rule of a layer of your own"):
        certify(model, images(2, (3,)), [0, 1], 0.1)


def test_only_rules_are_registered_for_classes_of_layers():
    with pytest.raises(TypeError, match="class of Keras layers or an"):
        register_rule(layers.Dense(3))
    with pytest.raises(TypeError, match="must be a `Rule`, or a function"):
        register_rule(layers.Dense)(dict)
