"""Running an attack: data, progress, interrupts, models it is blind on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from keras_qsn import attacks

EPS = 0.2


@pytest.fixture
def images(digits):
    return digits.x_test[:50], digits.y_test[:50]


def batches(*parts, size=20):
    return tf.data.Dataset.from_tensor_slices(parts).batch(size)


class TestData:
    def test_datasets_are_the_arrays_they_hold(self, trained, images):
        x, y = images
        attack, model = attacks.FastGradientMethod(EPS), trained["none"]
        wanted = attack.run(model, x, y)
        weights = np.ones(len(x))
        for data, labels in (
            (batches(x, y), None),
            (batches(x, np.eye(10)[y]), None),
            (batches(x, y, weights), None),
            (tf.data.Dataset.from_tensor_slices(x).batch(20), y),
        ):
            result = attack.run(model, data, labels)
            for ours, theirs in zip(result, wanted):
                np.testing.assert_array_equal(ours, theirs)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data.repeat(), "must end. .*endless"),
            (lambda data: data.take(0), "at least one batch"),
        ],
    )
    def test_datasets_without_an_end_or_start(
        self, change, message, trained, images
    ):
        with pytest.raises(ValueError, match=message):
            attacks.FastGradientMethod().run(
                trained["none"], change(batches(*images))
            )

    def test_labels_twice(self, trained, images):
        with pytest.raises(ValueError, match="`y` must be None"):
            attacks.FastGradientMethod().run(
                trained["none"], batches(*images), images[1]
            )

    def test_bytes(self, trained, images):
        x, y = images
        x = np.round(255 * x).astype("uint8")
        model = keras.Sequential(
            [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)]
        )
        model.add(trained["none"])
        attack = attacks.FastGradientMethod(51, clip_max=255)
        x_adv = attack.generate(model, x, y)
        assert x_adv.dtype == np.float32 and x_adv.max() > 1
        np.testing.assert_array_equal(
            x_adv, attack.generate(model, x.astype("float32"), y)
        )

    @pytest.mark.parametrize(("norm", "largest"), [(2, "28"), (1, "784")])
    def test_a_ball_larger_than_all_images(
        self, norm, largest, trained, images
    ):
        attack = attacks.FastGradientMethod(785, norm)
        with pytest.raises(
            ValueError, match=f"`eps` must be at most {largest}"
        ):
            attack.run(trained["none"], *images)

    def test_batch_size(self, trained, images):
        with pytest.raises(ValueError, match="`batch_size` must be a whole"):
            attacks.FastGradientMethod().run(
                trained["none"], *images, batch_size=0
            )


class TestProgress:
    def test_a_bar_where_it_is_asked_for(self, trained, images, capsys):
        attack = attacks.FastGradientMethod(EPS)
        for verbose in (0, "auto"):
            attack.run(trained["none"], *images, verbose=verbose)
            assert capsys.readouterr().out == ""
        attack.run(trained["none"], *images, batch_size=25, verbose=1)
        assert "50/50" in capsys.readouterr().out
        with pytest.raises(ValueError, match="`verbose` must be 0, 1 or"):
            attack.run(trained["none"], *images, verbose="yes")
        with pytest.raises(TypeError, match="`progress` must be a function"):
            attack.run(trained["none"], *images, progress=3)

    def test_a_bar_on_long_work(self, trained, images, capsys, monkeypatch):
        clock = iter(range(0, 100, 2))
        monkeypatch.setattr(
            "keras_qsn._core.progress.time.perf_counter", lambda: next(clock)
        )
        attacks.FastGradientMethod(EPS).run(
            trained["none"], *images, batch_size=25
        )
        assert "25/50" in capsys.readouterr().out

    def test_an_interrupt_keeps_what_is_done(self, trained, images):
        x, y = images
        attack = attacks.ProjectedGradientDescent(EPS, nb_iter=2)
        whole = attack.run(trained["none"], x, y, batch_size=20)

        def interrupt(name, done, total):
            if done == 40:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt, match="40 images") as error:
            attack.run(trained["none"], x, y, batch_size=20, progress=interrupt)
        assert isinstance(error.value, attacks.AttackInterrupted)
        for kept, full in zip(error.value.result, whole):
            np.testing.assert_array_equal(kept, full[:40])


def with_rounding(model, rounding):
    """`model` behind a layer that computes `rounding`."""
    return keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Lambda(rounding), model]
    )


def name_of(value):
    return getattr(value, "__name__", type(value).__name__)


BLIND = [
    attacks.FastGradientMethod(EPS),
    attacks.ProjectedGradientDescent(EPS, nb_iter=2),
    attacks.AutoProjectedGradientDescent(EPS, nb_iter=2),
    attacks.AutoProjectedGradientDescent(EPS, loss="dlr", nb_iter=2),
    attacks.CarliniWagnerL2(max_iterations=2, binary_search_steps=1),
    attacks.DeepFool(max_iter=2),
    attacks.FastMinimumNorm(nb_iter=2),
    attacks.SaliencyMapMethod(),
    attacks.SigmaZero(nb_iter=2),
]


# TensorFlow's rounding has no gradient, its sign one of zero.
@pytest.mark.parametrize(
    ("attack", "rounding"),
    [(BLIND[0], keras.ops.sign), *((a, keras.ops.round) for a in BLIND)],
    ids=name_of,
)
def test_a_hidden_gradient_is_said(attack, rounding, trained, images):
    x, _ = images
    model = with_rounding(trained["none"], rounding)
    y = model.predict(x, verbose=0).argmax(-1)
    with pytest.warns(RuntimeWarning, match="gradient of zero at 50 of 50"):
        result = attack.run(model, x, y)
    assert result.blind.all() and not result.success.all()


@pytest.mark.parametrize("attack", BLIND, ids=name_of)
def test_a_visible_gradient_is_not_complained_about(attack, trained, images):
    result = attack.run(trained["soft"], *images)
    assert not result.blind.any()


def test_a_saturated_softmax_blinds_nobody(trained, images):
    x, y = images
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), trained["none"]]
        + [keras.layers.Rescaling(1e4)]
    )
    for attack in (
        attacks.FastGradientMethod(EPS),
        attacks.AutoProjectedGradientDescent(EPS, loss="dlr", nb_iter=5),
    ):
        assert not attack.run(model, x, y).blind.any()


class Thermometer(keras.layers.Layer):
    """A thermometer code, which passes no gradient on."""

    def call(self, x):
        return tf.reduce_mean(
            [tf.where(x >= t, 1.0, 0.0) for t in (0.25, 0.5, 0.75)], 0
        )


@pytest.mark.parametrize(
    "attack",
    [
        *BLIND,
        attacks.FastAdaptiveBoundary(EPS, nb_iter=2),
        attacks.FastAdaptiveBoundary(EPS, nb_iter=2, nb_targets=2),
        attacks.AutoProjectedGradientDescent(
            EPS, loss="targeted-dlr", nb_iter=2
        ),
    ],
    ids=name_of,
)
def test_where_the_gradient_ends_is_said(attack, trained, images):
    x, _ = images
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), Thermometer(name="code"), trained["none"]]
    )
    y = model.predict(x, verbose=0).argmax(-1)
    with pytest.warns(RuntimeWarning, match="gradient, which ends at .*code"):
        result = attack.run(model, x, y)
    assert result.blind.all() and not result.success.all()


def test_automatic_attacks_go_on_without_a_gradient(trained, images):
    x, y = images
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), Thermometer(), trained["none"]]
    )
    attack = attacks.AutoAttack(0.6, nb_iter=2, nb_queries=40)
    assert attack.run(model, x, y).success.mean() > 0.5


def test_attacks_without_gradients_see_behind_it(trained, images):
    model = with_rounding(trained["none"], keras.ops.round)
    result = attacks.SquareAttack(0.6, nb_queries=30).run(model, *images)
    assert not result.blind.any() and result.success.mean() > 0.5


@pytest.mark.parametrize("attack", [*BLIND, attacks.SquareAttack(nb_queries=2)])
def test_a_model_that_is_not_finite(attack, images):
    model = small_cnn()
    weights = model.get_weights()
    weights[-1][0] = np.nan
    model.set_weights(weights)
    with pytest.raises(ValueError, match="NaN or infinite for 50 of 50"):
        attack.run(model, *images)
