"""FAB: projection, closed forms, ball, targets, early stop, errors."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linprog

from conftest import linear_model
from keras_qsn.attacks.white_box import hyperplane
from keras_qsn.attacks.white_box.deepfool import DeepFool
from keras_qsn.attacks.white_box.fab import FastAdaptiveBoundary

EPS = {np.inf: 0.1, 2: 1.0, 1: 5.0}
DUAL = {np.inf: 1, 2: 2, 1: np.inf}
RESTARTED = {"nb_targets": 1, "nb_restarts": 2}
NORMS = pytest.mark.parametrize("norm", [np.inf, 2, 1])


def make(norm=np.inf, eps=None, nb_iter=10, **kwargs):
    eps = EPS[norm] if eps is None else eps
    return FastAdaptiveBoundary(eps, norm, nb_iter, **kwargs)


def sizes(delta, norm):
    flat = delta.reshape(len(delta), -1).astype("float64")
    return np.linalg.norm(flat, norm, axis=1)


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


def least_size(x, w, gap, norm):
    """Size of the smallest `d` with `w.d = -gap`, `0 <= x + d <= 1`."""
    n = len(x)
    if norm == 2:
        return least_length(x, w, gap)
    box = [*zip(-x, 1 - x)]
    if norm == np.inf:
        # Of variables d, t: the least t with -t <= d <= t.
        t = np.ones((n, 1))
        below = np.block([[np.eye(n), -t], [-np.eye(n), -t]])
        cost, row = np.eye(n + 1)[n], np.append(w, 0)
        box += [(0, None)]
    else:
        # Of variables d, s: the least sum of s with -s <= d <= s.
        below = np.kron([[1, -1], [-1, -1]], np.eye(n))
        cost, row = np.repeat([0, 1], n), np.append(w, 0 * w)
        box += [(0, None)] * n
    found = linprog(cost, below, np.zeros(2 * n), row[None], [-gap], box)
    return found.fun if found.success else None


def least_length(x, w, gap):
    """Every choice of pixels that are at an end of their range."""
    lengths = []
    for ends in itertools.product([0, 1, None], repeat=len(x)):
        free = np.array([end is None for end in ends])
        d = np.array([0.0 if e is None else e - p for e, p in zip(ends, x)])
        rest = -gap - w @ d
        slope = w[free] @ w[free]
        if slope > 0:
            d[free] = rest / slope * w[free]
        inside = (x + d >= -1e-9).all() and (x + d <= 1 + 1e-9).all()
        if inside and abs(w @ d + gap) < 1e-9:
            lengths.append(np.linalg.norm(d))
    return min(lengths, default=None)


@NORMS
def test_projection_is_that_of_a_solver(norm):
    rng = np.random.default_rng(0)
    x = rng.random((60, 5)).astype("float32")
    w = rng.normal(size=x.shape).astype("float32")
    # Pixels at the ends of their range, without slope, of the same slope.
    x[10:20] = x[10:20].round()
    w[15:30] = w[15:30].round()
    gap = rng.normal(size=60).astype("float32")
    d = hyperplane.project(*map(tf.constant, (x, w, gap)), norm, 0.0, 1.0)
    x, w, gap, d = (np.asarray(t, "float64") for t in (x, w, gap, d))
    assert (x + d).min() >= -1e-6 and (x + d).max() <= 1 + 1e-6
    uphill = -np.sign(w) * np.sign(gap)[:, None]
    corner = np.where(uphill > 0, 1, np.where(uphill < 0, 0, x)) - x
    reachable = np.abs((w * corner).sum(1)) >= np.abs(gap)
    assert 5 < reachable.sum() < 55
    np.testing.assert_allclose(d[~reachable], corner[~reachable], atol=1e-6)
    for i in np.flatnonzero(reachable):
        assert w[i] @ d[i] == pytest.approx(-gap[i], abs=1e-5)
        wanted = least_size(x[i], w[i], gap[i], norm)
        assert np.linalg.norm(d[i], norm) == pytest.approx(wanted, abs=1e-5)


@NORMS
def test_projection_of_many_pixels_with_slopes_far_apart(norm):
    rng = np.random.default_rng(0)
    x = rng.random((20, 28, 28, 1)).astype("float32")
    w = rng.normal(size=x.shape) * 10 ** rng.uniform(-9, 0, x.shape)
    w = w.astype("float32")
    reach = np.where(w > 0, x * w, (x - 1) * w).sum((1, 2, 3))
    gap = (reach * np.linspace(0.0, 0.99, 20)).astype("float32")
    d = hyperplane.project(*map(tf.constant, (x, w, gap)), norm, 0.0, 1.0)
    assert np.min(x + d) >= -1e-6 and np.max(x + d) <= 1 + 1e-6
    reached = -(w.astype("float64") * d.numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(reached, gap, rtol=1e-5)


def craft(attack, model, x, labels, targeted=False):
    """Without compiling: faster on models as small as these."""
    return attack.craft(
        model,
        tf.constant(x),
        tf.constant(labels, tf.int32),
        tf.constant(attack.eps),
        tf.constant([[attack.seed, i] for i in range(len(x))]),
        targeted,
    ).numpy()


@pytest.fixture
def linear_4():
    """Twelve flat images, and the kernel of a linear model of 4 classes."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(8, 4)).astype("float32")
    return rng.normal(size=(12, 8)).astype("float32"), kernel


@NORMS
@pytest.mark.parametrize(
    "kwargs", [{}, {"nb_targets": 3}, {"nb_targets": 3, "eta": 1.0}]
)
def test_nearest_of_many_boundaries(norm, kwargs, linear_4):
    """The least of the distances to each."""
    x, kernel = linear_4
    scores = x @ kernel
    y = scores.argmax(1)
    gap = scores.max(1)[:, None] - scores
    w = kernel.T - kernel.T[y][:, None]
    length = np.linalg.norm(w, DUAL[norm], axis=2)
    length[np.arange(12), y] = np.nan
    attack = make(norm, 9.0, clip_min=-9, clip_max=9, **kwargs)
    x_adv = craft(attack, lambda x: x @ kernel, x, y)
    assert ((x_adv @ kernel).argmax(1) != y).all()
    wanted = np.nanmin(gap / length, 1)
    np.testing.assert_allclose(sizes(x_adv - x, norm), wanted, rtol=1e-3)


@NORMS
def test_a_target_is_to_beat_every_other_class(norm, linear_4):
    x, kernel = linear_4
    target = (x @ kernel).argsort(1)[:, 1]
    eps = 90.0 if norm == 1 else 18.0
    attack = make(norm, eps, 30, clip_min=-9, clip_max=9)
    x_adv = craft(attack, lambda x: x @ kernel, x, target, True)
    np.testing.assert_array_equal((x_adv @ kernel).argmax(1), target)


@NORMS
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-25])
def test_linear_model_in_its_range(norm, targeted, scale):
    """Pixels at the end of it; slopes whose squares are 0 in float32."""
    w = np.array([3.0, -1.0, 0.5, -2.0, 1.0], "float32")
    x = np.array([[0.5, 0.1, 0.0, 1.0, 0.3]], "float32")
    model = linear_model(scale * w, bias=scale)
    label = predicted(model, x)[0]
    attack = make(norm, 1.0 if norm == np.inf else 9.0)
    x_adv = craft(
        attack, model, x, [1 - label if targeted else label], targeted
    )
    assert predicted(model, x_adv)[0] == 1 - label
    wanted = least_size(x[0], w, float(w @ x[0] + 1), norm)
    assert sizes(x_adv - x, norm)[0] == pytest.approx(wanted, rel=1e-4)


def test_steps_are_those_of_the_paper():
    """Along the normal of a boundary at distance 1."""
    w = np.array([[0.6], [0.8]], "float32")
    seen = []

    def linear(x):
        seen.append(x.numpy() @ w)
        return tf.concat([x @ w, tf.ones((len(x), 1))], 1)

    attack = FastAdaptiveBoundary(
        9, 2, 4, alpha_max=0.3, eta=1.2, beta=0.5, clip_min=-9, clip_max=9
    )
    craft(attack, linear, np.zeros((1, 2), "float32"), [1])
    point, wanted, pulls = 0.0, [], []
    for _ in range(4):
        d = 1 - point
        pulls.append(min(d / (d + 1), 0.3))
        moved = (1 - pulls[-1]) * (point + 1.2 * d) + pulls[-1] * 1.2
        assert moved > 1
        wanted += [point, moved]
        point = 0.5 * moved
    assert 0 < min(pulls) < max(pulls) == 0.3
    np.testing.assert_allclose(np.ravel(seen)[1:9], wanted, atol=1e-4)


@NORMS
def test_stays_in_the_ball_and_eps_zero_is_the_identity(norm, trained, images):
    x, y = images
    model = trained["none"]
    result = make(norm, nb_targets=3).run(model, x, y)
    assert sizes(result.x_adv - x, norm).max() <= EPS[norm] * (1 + 1e-6)
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    wrong = predicted(model, x) != y
    assert result.success.mean() > wrong.mean() + 0.3
    # Nothing is to be done where the model is wrong already.
    np.testing.assert_array_equal(result.x_adv[wrong], x[wrong])
    still = make(norm, 0.0, nb_targets=3).run(model, x, y)
    np.testing.assert_array_equal(still.x_adv, x)
    np.testing.assert_array_equal(still.success, wrong)


@pytest.mark.parametrize("name", ["soft", "hard"])
def test_quantized_models(name, trained, images):
    x, y = images
    clean = (predicted(trained[name], x) != y).mean()
    attack = make(eps=0.3, nb_targets=1, early_stop=True)
    assert attack.run(trained[name], x, y).success.mean() > clean + 0.05


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_is_nearer_than_deepfool_and_on_the_boundary(norm, trained, images):
    x, y = images
    model = trained["none"]
    ours = make(norm, 1.0 if norm == np.inf else 9.0, nb_targets=3)
    ours = ours.run(model, x, y)
    theirs = DeepFool(norm, nb_candidate=4).run(model, x, y)
    right = predicted(model, x) == y
    assert ours.success.all() and theirs.success.all()
    near, far = (sizes(r.x_adv - x, norm)[right] for r in (ours, theirs))
    assert np.median(near / far) < 0.985 and (near < 1.02 * far).all()
    before = x + 0.999 * (ours.x_adv - x)
    assert (predicted(model, before) == y)[right].all()


def test_more_boundaries_fool_no_fewer(trained, digits):
    x, y = digits.x_test[::5], digits.y_test[::5]
    one, three, every = (
        make(**kwargs).run(trained["none"], x, y).success.sum()
        for kwargs in (RESTARTED, {"nb_targets": 3}, {})
    )
    assert one < three and abs(every - three) <= 0.02 * len(x)


def test_early_stop_succeeds_on_the_same_images(trained, images):
    x, y = images
    model = trained["none"]
    whole = make(nb_targets=3).run(model, x, y)
    early = make(nb_targets=3, early_stop=True).run(model, x, y)
    np.testing.assert_array_equal(whole.success, early.success)
    found = whole.success & (predicted(model, x) == y)
    near, far = (sizes(r.x_adv - x, np.inf)[found] for r in (whole, early))
    assert (near <= far * 1.001).all() and near.mean() < 0.99 * far.mean()


def test_passes_through_the_model(trained, images):
    x = images[0][:20]
    y = predicted(trained["none"], x)

    def count(labels, nb_targets=2, **kwargs):
        seen = []

        def counting(x):
            seen.append(len(x))
            return trained["none"](x)

        runs = {"nb_targets": nb_targets, "nb_restarts": nb_targets}
        attack = make(nb_iter=3, **runs, **kwargs)
        craft(attack, counting, x, labels)
        return seen

    # The image, two passes for each step of each run, and the final search.
    ends, steps = 1 + 1 + 3, 2 * 2 * 3
    assert count(y) == [len(x)] * (2 * steps + ends)
    # An image the model has wrong needs no step.
    assert count((y + 1) % 10) == [len(x)] * ends
    # One leaves as soon as it is fooled in the ball, and the last ends it all.
    assert 0 < min(count(y, nb_targets=1, early_stop=True)) < len(x)
    assert len(count(y, eps=0.9, early_stop=True)) < steps + ends


def test_an_image_without_gradient_leaves_the_batch(trained, images):
    x, _ = images
    seen = []

    def blind(x):
        seen.append(len(x))
        return trained["none"](tf.stop_gradient(x)) + 0.0 * tf.reduce_sum(x)

    y = predicted(trained["none"], x)
    x_adv = craft(make(nb_targets=1), blind, x, y)
    np.testing.assert_array_equal(x_adv, x)
    assert len(seen) == 1 + 2 + 1 + 3


@NORMS
def test_restarts_begin_at_random_half_way(norm):
    x = np.full((3, 28, 28, 1), 0.5, "float32")

    def starts(seed):
        seen = []

        def flat(x):
            """Of no slope, so that a run has one step and finds nothing."""
            seen.append(x.numpy() - 0.5)
            return tf.constant([[1.0, 0.0]] * 3) + 0.0 * tf.reduce_sum(x)

        attack = make(norm, nb_targets=1, nb_restarts=3, seed=seed)
        craft(attack, flat, x, [0, 0, 0])
        return seen[1:7:2]

    first, second, third = starts(0)
    assert not first.any()
    for start in (second, third):
        np.testing.assert_allclose(sizes(start, norm), EPS[norm] / 2, rtol=1e-4)
    directions = [*second, *third, *starts(1)[1]]
    for a, b in itertools.combinations(directions, 2):
        assert abs((a * b).sum()) < 0.2 * (a * a).sum()
    np.testing.assert_array_equal(third, starts(0)[2])


def test_a_restart_may_find_a_nearer_boundary():
    """Slopes lead to a boundary 0.3 up; behind a ridge, one is 0.1 down."""
    x = np.full((8, 1), 0.5, "float32")

    def ridge(x):
        u = x[:, 0] - 0.5
        lead = tf.where(u > -0.02, 0.3 - u, 4 * (u + 0.1))
        return tf.stack([lead, 0 * lead], 1)

    def distances(**kwargs):
        attack = make(eps=0.9, nb_iter=5, **kwargs)
        x_adv = craft(attack, ridge, x, [0] * 8)
        return np.abs(x_adv - x)[:, 0]

    np.testing.assert_allclose(distances(), 0.3, rtol=1e-3)
    nearest = distances(nb_restarts=2)
    lower = nearest < 0.2
    assert 0 < lower.sum() < 8
    np.testing.assert_allclose(nearest, np.where(lower, 0.1, 0.3), rtol=1e-3)
    others = distances(nb_restarts=2, seed=1)
    assert (others != nearest).any()
    assert distances(nb_restarts=8).max() < 0.2


@pytest.mark.parametrize("norm", [np.inf, 1])
def test_targeted_raises_the_rate_of_the_target(norm, trained, images):
    x, y = images
    model, target = trained["none"], (y + 1) % 10
    result = make(norm, 5 * EPS[norm]).run(model, x, y, y_target=target)
    np.testing.assert_array_equal(result.success, result.prediction == target)
    before = (predicted(model, x) == target).mean()
    assert result.success.mean() > before + 0.5


@pytest.mark.parametrize(
    ("norm", "kwargs"),
    [(np.inf, RESTARTED), (2, {"nb_targets": 3}), (1, {"nb_targets": 3})],
)
def test_same_examples_whatever_the_batch_size(norm, kwargs, trained, images):
    x, y = images[0][::2], images[1][::2]
    model = trained["none"]
    attack = make(norm, **kwargs)
    whole = attack.run(model, x, y)
    np.testing.assert_array_equal(whole.x_adv, attack.generate(model, x, y))
    parts = attack.run(model, x, y, batch_size=7)
    np.testing.assert_allclose(whole.x_adv, parts.x_adv, atol=1e-5)
    np.testing.assert_array_equal(whole.success, parts.success)


def test_config_rebuilds_the_attack():
    attack = FastAdaptiveBoundary(
        3.0, 1, 7, 2, 5, 0.2, 1.1, 0.8, -1.0, 2.0, 9, True
    )
    config = attack.get_config()
    again = FastAdaptiveBoundary.from_config(config)
    assert repr(again) == repr(attack) and again.get_config() == config
    assert [*config.values()] == [
        *(3.0, 1, -1.0, 2.0, 9, 7, 2, 5, 0.2, 1.1, 0.8, True)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1}, "`eps` must be a finite number >= 0. Received: eps=-1"),
        ({"eps": None}, "`eps` must be a number: .* inside a ball"),
        ({"norm": 3}, "`norm` must be one of np.inf, 2, 1. Received: norm=3"),
        ({"nb_iter": 0}, "`nb_iter` must be a whole number of at least 1"),
        ({"nb_restarts": 0}, "`nb_restarts` must be .* nb_restarts=0"),
        ({"nb_targets": 0}, "`nb_targets` must be .* Received: nb_targets=0"),
        ({"alpha_max": 1.1}, "`alpha_max` must be .* from 0 to 1. .*=1.1"),
        ({"alpha_max": np.nan}, "`alpha_max` must be a number from 0 to 1"),
        ({"beta": -0.1}, "`beta` must be a number from 0 to 1. .*beta=-0.1"),
        ({"eta": 0.9}, "`eta` must be a finite number >= 1. .*: eta=0.9"),
        ({"eta": np.inf}, "`eta` must be a finite number >= 1. .*: eta=inf"),
        ({"clip_min": 1.0}, "`clip_min` must be below `clip_max`"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        FastAdaptiveBoundary(**arguments)


def test_more_targets_than_classes():
    x = np.zeros((1, 5), "float32")
    model = linear_model(np.ones(5), bias=1.0)
    many, one = (make(nb_targets=n).run(model, x + 0.4, [1]) for n in (9, 1))
    np.testing.assert_array_equal(many.x_adv, one.x_adv)
    # One boundary, whatever their number.
    found = craft(make(eps=1.0, nb_targets=2), model, x + 0.5, [0], True)
    assert predicted(model, found)[0] == 1
