"""Full CROWN, rounding, and which method is chosen."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from certified_models import hard
from certified_models import images
from certified_models import margin_of
from certified_models import predicted
from certified_models import randomized
from certified_models import sequential
from keras_qsn.attacks import norms
from keras_qsn.certification import certify
from keras_qsn.certification.bounds import compiled
from keras_qsn.certification.rules import enclosures
from keras_qsn.certification.rules.registry import rules_of
from keras_qsn.models import KerasModelWrapper

layers = keras.layers


def deep(seed=0):
    return randomized(
        sequential(
            (6,),
            layers.Dense(8, "relu"),
            layers.Dense(7, "relu"),
            layers.Dense(6, "relu"),
            layers.Dense(3),
        ),
        seed,
    )


def full_crown(model, low, high, rows):
    """Zhang et al. (2018) for dense ReLU networks, in a few lines of NumPy.

    Neurons that intervals decide keep these; the others have backward bounds,
    or intervals where they are tighter.
    """
    stack = [q.get_weights() for q in model.layers]
    stack = [[w.astype("float64") for w in weights] for weights in stack]
    ends, plain = [(low, high)], (low, high)

    def backward(depth, matrix):
        constant = np.zeros(len(matrix))
        for k in range(depth, -1, -1):
            weight, bias = stack[k]
            constant += matrix @ bias
            matrix = matrix @ weight.T
            if k == 0:
                break
            down, up = ends[k]
            roof = np.where(down >= 0, 1.0, up.clip(0) / (up.clip(0) - down))
            below = 1.0 * (up > -down)
            shift = np.where((down < 0) & (up > 0), -down * roof, 0.0)
            constant += np.minimum(matrix, 0) @ shift
            matrix = np.where(matrix > 0, matrix * below, matrix * roof)
        return constant + (matrix * np.where(matrix > 0, low, high)).sum(1)

    def forward(depth, down, up):
        weight, bias = stack[depth]
        if depth:
            down, up = np.maximum(down, 0), np.maximum(up, 0)
        middle = (down + up) / 2 @ weight + bias
        reach = (up - down) / 2 @ abs(weight)
        return middle - reach, middle + reach

    for depth in range(len(stack) - 1):
        down, up = forward(depth, *ends[-1])
        plain = forward(depth, *plain)
        undecided = (plain[0] < 0) & (plain[1] > 0)
        every = np.eye(len(up))
        down = np.where(
            undecided, np.maximum(down, backward(depth, every)), down
        )
        up = np.where(undecided, np.minimum(up, -backward(depth, -every)), up)
        ends.append((down, up))
    return backward(len(stack) - 1, rows)


@pytest.mark.parametrize("seed", range(4))
def test_full_crown_against_numpy(seed):
    model = deep(seed)
    x, eps = images(5, (6,)), 0.1
    y = predicted(model, x)
    full, plain = (
        certify(model, x, y, eps, method) for method in ("crown-full", "crown")
    )
    low, high = (end.numpy() for end in norms.ball(x, eps))
    rng = np.random.default_rng(seed)
    for i in range(len(x)):
        rows = np.eye(3)[y[i]] - np.delete(np.eye(3), y[i], 0)
        ends = low[i].astype("float64"), high[i].astype("float64")
        expected = full_crown(model, *ends, rows).min()
        assert full.margin[i] == pytest.approx(expected, abs=1e-4)
        assert plain.margin[i] <= full.margin[i] + 1e-9
        points = low[i] + rng.random((4000, 6)).round(1) * (high[i] - low[i])
        points = np.clip(points, low[i], high[i]).astype("float32")
        assert full.margin[i] <= margin_of(model(points).numpy(), y[i]).min()
    assert (full.margin > plain.margin + 0.01).any()


def test_methods_escalate():
    """Each keeps what the cheaper ones proved, and adds to it."""
    model = deep(1)
    x = images(40, (6,), 2)
    y = predicted(model, x)
    found = certify(model, x, y, 0.2)
    assert {"interval", "crown", "crown-full"} <= set(found.method)
    cheap = certify(model, x, y, 0.2, ("interval", "crown"))
    assert (found.margin >= cheap.margin).all()
    assert found.certified.sum() > cheap.certified.sum()


def test_full_crown_is_chosen_by_cost(monkeypatch):
    model = deep(1)
    x = images(40, (6,), 2)
    y = predicted(model, x)
    wrapper = KerasModelWrapper(model)
    # Of the second and the third hidden layer, and the 51 values there are.
    assert compiled.CompiledBounds(wrapper, (6,)).cost_of_crown == (7 + 6) * 51
    module = sys.modules["keras_qsn.certification.certifying"]
    monkeypatch.setattr(module, "_AFFORDABLE", (7 + 6) * 51)
    assert "crown-full" in certify(model, x, y, 0.2).method
    monkeypatch.setattr(module, "_AFFORDABLE", (7 + 6) * 51 - 1)
    assert "crown-full" not in certify(model, x, y, 0.2).method
    asked = certify(model, x, y, 0.2, ("crown", "crown-full"))
    assert "crown-full" in asked.method


def test_full_crown_out_of_time_is_crown():
    model = deep(1)
    x = images(10, (6,), 2)
    y = predicted(model, x)
    plain = certify(model, x, y, 0.1, "crown")
    late = certify(model, x, y, 0.1, "crown-full", time_limit=1e-9)
    np.testing.assert_allclose(late.margin, plain.margin, atol=1e-9)


def test_full_crown_behind_a_quantizer():
    model = sequential((6,), hard(4), deep(2))
    randomized(model, 2)
    model.layers[0].set_weights([np.full((6, 3), [0.25, 0.5, 0.75])])
    x = images(20, (6,), 3)
    y = predicted(model, x)
    complete = certify(model, x, y, 0.2)
    full = certify(model, x, y, 0.2, ("interval", "crown", "crown-full"))
    proved = full.certified & complete.certified
    assert "crown-full" in full.method
    assert (full.certified <= complete.certified).all()
    assert (full.margin[proved] > 0).all()


@pytest.mark.parametrize("held", [1, 300])
def test_chunks_change_nothing(held, monkeypatch):
    model = deep(3)
    x = images(3, (6,))
    y = predicted(model, x)
    whole = certify(model, x, y, 0.1, "crown-full")
    monkeypatch.setattr("keras_qsn.certification.bounds.compiled._HELD", held)
    parts = certify(model, x, y, 0.1, "crown-full")
    np.testing.assert_allclose(parts.margin, whole.margin, atol=1e-9)


# What float32 rounds off.


def summed(terms, rng, order):
    """A float32 sum of products in some order, one addition at a time."""
    w, x = terms
    parts = list(w * x)
    if order == "shuffled":
        rng.shuffle(parts)
    if order == "by sign":
        parts.sort()
    if order == "pairs":
        while len(parts) > 1:
            rest = parts[len(parts) // 2 * 2 :]
            parts = [a + b for a, b in zip(parts[::2], parts[1::2])] + rest
        return parts[0]
    total = np.float32(0)
    for part in parts:
        total = total + part
    return total


@pytest.mark.parametrize("order", ["given", "shuffled", "by sign", "pairs"])
@pytest.mark.parametrize("kind", ["cancelling", "positive", "sparse", "large"])
def test_no_order_of_a_float32_sum_loses_more(order, kind):
    rng = np.random.default_rng(0)
    layer = layers.Dense(1)
    layer.build((None, 200))
    ratios = []
    for _ in range(40):
        w, x = rng.normal(0, 1, (2, 200)).astype("float32")
        if kind == "positive":
            w, x = abs(w), abs(x)
        if kind == "sparse":
            x[rng.random(200) < 0.9] = 0
        if kind == "large":
            w, x = w * np.exp(6 * x), x * np.exp(6 * w)
        w, x = w.astype("float32"), x.astype("float32")
        exact = w.astype("float64") @ x.astype("float64")
        off = abs(float(summed((w, x), rng, order)) - exact)
        layer.set_weights([w[:, None], np.zeros(1)])
        (rule,) = rules_of(layer, (200,))
        point = enclosures.Bounds(
            *(tf.constant(v[None]) for v in (x * 1.0, 0 * x))
        )
        point = enclosures.Bounds(
            *(tf.cast(part, tf.float64) for part in point)
        )
        ratios.append(off / float(rule.error(point)[0, 0]))
    assert 0 < max(ratios) < 1


def test_what_is_zero_rounds_nothing_off():
    """And half of what is added is never in one partial sum of a zero."""
    layer = layers.Conv2D(4, 5, groups=2)
    layer.build((None, 9, 9, 4))
    (rule,) = rules_of(layer, (9, 9, 4))
    rng = np.random.default_rng(0)
    x = rng.random((3, 9, 9, 4))
    x[1, 3:] = 0
    x[1, :, :, 1:] = 0
    x[2, ...] = 0
    found = rule.nonzero(tf.constant((x > 0) * 1.0))
    assert found.shape == (3, 1, 1, 1)
    assert found.numpy().ravel().tolist() == [50, 15, 0]
    layer = layers.Dense(2)
    layer.build((None, 5, 7))
    (rule,) = rules_of(layer, (5, 7))
    x = np.zeros((2, 5, 7))
    x[0, 2, :4] = 1
    assert rule.nonzero(tf.constant(x)).numpy().ravel().tolist() == [4, 0]
