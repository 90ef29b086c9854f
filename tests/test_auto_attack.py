"""AutoAttack: its parts, worst case, skipping, one trace, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from keras_qsn.attacks import steps
from keras_qsn.attacks.white_box.auto_attack import _PARTS
from keras_qsn.attacks.white_box.auto_attack import AutoAttack
from keras_qsn.models import KerasModelWrapper

EPS = {np.inf: 0.1, 2: 1.5}
MODELS = {np.inf: "none", 2: "soft"}
NORMS = pytest.mark.parametrize("norm", EPS)


def make(norm=np.inf, eps=None, **kwargs):
    """With few steps; the same for all, so that compiled attacks are shared."""
    eps = EPS[norm] if eps is None else eps
    return AutoAttack(eps, norm, **{"nb_iter": 5, "nb_queries": 30, **kwargs})


def sizes(delta, norm):
    flat = delta.reshape(len(delta), -1).astype("float64")
    return np.linalg.norm(flat, norm, axis=1)


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


@pytest.fixture(scope="module")
def deaf(trained):
    """A quantized model without any gradient."""
    model = keras.Sequential([keras.Input((28, 28, 1))])
    model.add(keras.layers.Lambda(lambda t: tf.stop_gradient(t) + 0.0 * t))
    model.add(trained["hard"])
    return model


def parts(attack):
    return [
        (
            type(part).__name__,
            getattr(part, "loss", None),
            part.nb_restarts,
            getattr(part, "nb_iter", None) or part.nb_queries,
        )
        for part in attack.attacks
    ]


@NORMS
def test_the_parts_are_those_of_the_paper(norm):
    attack = AutoAttack(0.5, norm, clip_min=-1.0, clip_max=2.0)
    assert parts(attack) == [
        ("AutoProjectedGradientDescent", "ce", 1, 100),
        ("AutoProjectedGradientDescent", "targeted-dlr", 1, 100),
        ("FastAdaptiveBoundary", None, 1, 100),
        ("SquareAttack", None, 1, 5000),
    ]
    _, apgd_t, fab_t, square = attack.attacks
    assert apgd_t.nb_targets == fab_t.nb_targets == 9
    assert fab_t.early_stop and square.p_init == 0.8
    for part in attack.attacks:
        assert (part.eps, part.norm) == (0.5, norm)
        assert (part.clip_min, part.clip_max) == (-1.0, 2.0)


def test_the_parts_of_the_larger_version():
    attack = AutoAttack(version="plus", nb_iter=7, nb_queries=8)
    assert parts(attack) == [
        ("AutoProjectedGradientDescent", "ce", 5, 7),
        ("AutoProjectedGradientDescent", "dlr", 5, 7),
        ("FastAdaptiveBoundary", None, 5, 7),
        ("SquareAttack", None, 1, 8),
        ("AutoProjectedGradientDescent", "targeted-dlr", 1, 7),
        ("FastAdaptiveBoundary", None, 1, 7),
    ]
    assert attack.attacks[2].nb_targets is None
    assert attack.attacks[5].nb_targets == 9


@NORMS
def test_fools_the_model_inside_the_ball(norm, trained, images):
    x, y = images
    model = trained[MODELS[norm]]
    result = make(norm).run(model, x, y)
    assert sizes(result.x_adv - x, norm).max() <= EPS[norm] * (1 + 1e-6)
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    # Nothing is to be done where the model is wrong already.
    clean = predicted(model, x) != y
    assert clean.any() and result.success.mean() > clean.mean() + 0.3
    np.testing.assert_array_equal(result.x_adv[clean], x[clean])


def test_no_apgd_alone_fools_more(trained, images):
    x, y = images
    attack, model = make(), trained["none"]
    together = attack.run(model, x, y).success.sum()
    seeds = tf.constant([[attack.seed, i] for i in range(len(x))])
    for i, part in enumerate(attack.attacks[:2]):
        x_adv = part.attacked(
            KerasModelWrapper(model),
            False,
            tf.constant(x),
            tf.constant(y, tf.int32),
            tf.constant(attack.eps),
            # From the starts that it has among the others.
            steps.restarted(seeds, i, _PARTS),
        )
        assert (predicted(model, x_adv) != y).sum() <= together


def test_failures_are_reported(trained, images):
    x, y = images
    model = trained["none"]
    clean = predicted(model, x) != y
    still = make(eps=0.0).run(model, x, y)
    np.testing.assert_array_equal(still.x_adv, x)
    np.testing.assert_array_equal(still.success, clean)
    assert not clean.all()


def test_an_image_that_is_not_fooled_comes_nearest_to_it(trained, images):
    x, _ = images
    model = trained["none"]
    y = predicted(model, x)

    def lead(x):
        z = np.asarray(model(x))
        own = np.take_along_axis(z, y[:, None], 1)[:, 0]
        return (z + np.where(np.eye(10)[y], -np.inf, 0)).max(1) - own

    attack = make(eps=0.01)
    result = attack.run(model, x, y)
    failed = ~result.success
    assert failed.sum() > 10
    # The first part of the ensemble, which has the same start by itself.
    first = lead(attack.attacks[0].generate(model, x, y))
    reached = lead(result.x_adv)
    assert (reached >= first - 1e-3)[failed].all()
    assert (first > lead(x) + 1e-3)[failed].all()


def test_parts_are_skipped_once_all_are_fooled(trained, images):
    x, _ = images
    passes = []

    def counting(x):
        passes.append(len(x))
        return trained["none"](x)

    def count(eps, labels):
        passes.clear()
        make(nb_iter=2, nb_queries=3).craft(
            counting,
            x[:5],
            tf.constant(labels[:5], tf.int32),
            tf.constant(eps),
            tf.constant([[0, i] for i in range(5)]),
        )
        return len(passes)

    right = predicted(trained["none"], x)
    assert count(0.3, (right + 1) % 10) == 1
    # One of the clean images, 3 points of APGD, and 9 times 3 of APGD-T.
    everything = count(0.001, right)
    assert everything > 1 + 3 + 9 * 3
    passes_of_first_part = 1 + 3 + 1
    assert 1 < count(0.9, right) < everything - passes_of_first_part


def test_traced_once_and_square_fools_what_the_others_cannot(
    deaf, images, monkeypatch
):
    x, y = images
    traces = []
    get_logits = KerasModelWrapper.get_logits

    def counting(self, x):
        if x.shape[0] is None:
            traces.append(x)
        return get_logits(self, x)

    monkeypatch.setattr(KerasModelWrapper, "get_logits", counting)
    make(eps=0.01).run(deaf, x[:2], y[:2])
    once = len(traces)
    attack = make(eps=0.45, seed=5)
    result = attack.run(deaf, x, y, batch_size=30)
    assert len(traces) == once > 0
    with pytest.warns(RuntimeWarning, match="gradient of zero"):
        by_gradient = attack.attacks[0].run(deaf, x, y).success.mean()
    assert result.success.mean() > by_gradient + 0.1


@NORMS
def test_same_seed_same_examples_whatever_the_batch_size(norm, trained, images):
    x, y = images
    model = trained[MODELS[norm]]
    whole = make(norm, seed=3).run(model, x, y)
    again = make(norm, seed=3).run(model, x, y)
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    parts = make(norm, seed=3).run(model, x, y, batch_size=7)
    np.testing.assert_array_equal(whole.success, parts.success)
    np.testing.assert_allclose(whole.x_adv, parts.x_adv, atol=1e-4)
    other = make(norm, seed=4).run(model, x, y)
    assert (other.x_adv != whole.x_adv).mean() > 0.1


def test_a_model_of_few_classes(images):
    x, y = images[0][:6], images[1][:6] % 3
    for classes in (2, 3):
        for version in ("standard", "plus"):
            attack = make(version=version, nb_iter=1, nb_queries=1, eps=0.5)
            model = small_cnn(num_classes=classes)
            result = attack.run(model, x, y % classes)
            assert result.success.any()
    # With as many targets as there are other classes.
    layers = [keras.layers.Flatten(), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    result = make(version="plus", nb_iter=1, nb_queries=1).run(model, x)
    assert result.x_adv.shape == x.shape and result.success.any()


def test_targets_are_refused(trained, images):
    x, y = images
    with pytest.raises(ValueError, match="`AutoAttack` is untargeted"):
        make().run(trained["none"], x, y_target=y)


def test_config_rebuilds_the_attack():
    attack = make(2, 0.7, version="plus", clip_min=-1.0, clip_max=2.0, seed=9)
    again = AutoAttack.from_config(attack.get_config())
    assert again.get_config() == attack.get_config()
    for part in ("eps=0.7", "version='plus'", "nb_iter=5", "nb_queries=30"):
        assert part in repr(again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1}, "`eps` must be a finite number >= 0. Received: eps=-1"),
        ({"norm": 1}, "`norm` must be one of np.inf, 2. Received: norm=1"),
        ({"version": "rand"}, "'standard' or 'plus'. .* version='rand'"),
        ({"nb_iter": 0}, "`nb_iter` must be .* Received: nb_iter=0"),
        ({"nb_queries": 1.5}, "`nb_queries` must be .* nb_queries=1.5"),
        ({"clip_min": 1.0}, "`clip_min` must be below `clip_max`"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoAttack(**arguments)
