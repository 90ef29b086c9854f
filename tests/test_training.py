import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from keras_qsn.attacks import DeepFool
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.callbacks import AttackAccuracy
from keras_qsn.callbacks import EpsScheduler
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import TrainableQuantization
from keras_qsn.losses import ProbabilityMeanSquaredError
from keras_qsn.training import AdversarialTraining
from keras_qsn.training import Objective
from keras_qsn.training import QuSecNet
from keras_qsn.training import ThresholdTraining
from keras_qsn.training.objectives.adversarial import num_clean

TESTS = Path(__file__).parent
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(quantizer=None, dropout=False):
    keras.utils.set_random_seed(0)
    model = small_cnn(quantizer)
    if dropout:
        layers = model.layers
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                *layers[:-1],
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5, seed=1),
                layers[-1],
            ]
        )
    return model


def compiled(net, **kwargs):
    kwargs = {"metrics": ["accuracy"], **kwargs}
    net.compile(keras.optimizers.Adam(0.005), LOSS, **kwargs)
    return net


@pytest.fixture
def data(digits):
    rng = np.random.default_rng(0)
    order = rng.permutation(4000)[:600]
    return digits.x_train[order], digits.y_train[order]


def same_weights(a, b):
    return all(
        np.array_equal(u, v)
        for u, v in zip(a.get_weights(), b.get_weights(), strict=True)
    )


@pytest.mark.parametrize("clean_share", [0.0, 0.3])
@pytest.mark.parametrize("quantizer", [None, TrainableQuantization])
def test_eps_zero_is_plain_fit_to_the_bit(clean_share, quantizer, data):
    def fit(wrap):
        inner = network(quantizer and quantizer(), dropout=True)
        compiled(wrap(inner)).fit(*data, epochs=2, shuffle=False, verbose=0)
        return inner

    plain = fit(lambda inner: inner)
    mixed = AdversarialTraining(FastGradientMethod(eps=0.0), clean_share)
    wrapped = fit(lambda inner: QuSecNet(inner, mixed))
    assert same_weights(plain, wrapped)


def test_eps_above_zero_is_not_plain_fit(data):
    a, b = network(), network()
    compiled(a).fit(*data, shuffle=False, verbose=0)
    net = QuSecNet(b, FastGradientMethod(eps=0.2))
    compiled(net).fit(*data, shuffle=False, verbose=0)
    assert not same_weights(a, b)


def test_adversarial_training_pays_under_attack(digits):
    attack = FastGradientMethod(eps=0.1)
    results = []
    for given in (None, attack):
        inner = network()
        compiled(QuSecNet(inner, given)).fit(
            digits.x_train, digits.y_train, epochs=4, verbose=0
        )
        net = compiled(QuSecNet(inner, attack))
        results.append(
            net.evaluate(
                digits.x_test, digits.y_test, verbose=0, return_dict=True
            )
        )
    plain, adversarial = results
    assert adversarial["adv_accuracy"] > plain["adv_accuracy"] + 0.2
    assert adversarial["accuracy"] > 0.85


def test_evaluate_reports_what_the_attack_leaves(trained, digits):
    model = trained["none"]
    x, y = digits.x_test, digits.y_test
    attack = FastGradientMethod(eps=0.1)
    net = compiled(QuSecNet(model, attack))
    found = net.evaluate(x, y, verbose=0, return_dict=True)
    clean = (np.asarray(model(x)).argmax(-1) == y).mean()
    left = 1 - attack.run(model, x, y).success.mean()
    assert found["accuracy"] == pytest.approx(clean, abs=1e-6)
    assert found["adv_accuracy"] == pytest.approx(left, abs=1e-6)
    assert found["adv_accuracy"] < found["accuracy"]


def test_crafting_leaves_batch_statistics_and_dropout_alone(data):
    net = compiled(QuSecNet(network(dropout=True), FastGradientMethod(0.2)))
    before = [w.copy() for w in net.model.get_weights()]
    net.evaluate(*data, verbose=0)
    for u, v in zip(before, net.model.get_weights()):
        np.testing.assert_array_equal(u, v)


def test_every_clean_share_is_kept(data):
    seen = []

    class Recording(FastGradientMethod):
        def _perturb(self, logits_fn, x, labels, *args):
            tf.py_function(lambda n: seen.append(int(n)), [tf.shape(x)[0]], [])
            return super()._perturb(logits_fn, x, labels, *args)

    for share, expected in ((0.0, 20), (0.29, 15), (0.99, 1)):
        mixed = AdversarialTraining(Recording(0.1), share)
        net = compiled(QuSecNet(network(), mixed))
        net.fit(data[0][:40], data[1][:40], batch_size=20, verbose=0)
        assert seen == [expected, expected]
        seen.clear()


@pytest.mark.parametrize(
    "count, share, clean",
    [(100, 0.53, 53), (300, 0.21, 63), (100, 0.29, 29), (20, 0.29, 5)],
)
def test_clean_images_are_counted_exactly(count, share, clean):
    assert num_clean(count, share) == clean


class TestPlacesDecideStarts:
    """Evaluations repeat, and leave training alone."""

    def attack(self, **kwargs):
        return ProjectedGradientDescent(0.08, nb_iter=1, **kwargs)

    def test_evaluate_repeats_and_is_what_the_attack_leaves(
        self, trained, digits
    ):
        x, y = digits.x_test[:300], digits.y_test[:300]
        net = compiled(QuSecNet(trained["none"], self.attack()))
        found = [net.evaluate(x, y, verbose=0) for _ in range(3)]
        assert found[0] == found[1] == found[2]
        success = self.attack().run(trained["none"], x, y).success
        assert found[0][-1] == pytest.approx(1 - success.mean(), abs=1e-6)

    def test_validation_does_not_change_training(self, digits, data):
        def fit(**kwargs):
            net = compiled(QuSecNet(network(), self.attack()))
            net.fit(*data, epochs=2, shuffle=False, verbose=0, **kwargs)
            return net.model

        held_out = digits.x_test[:100], digits.y_test[:100]
        assert same_weights(fit(), fit(validation_data=held_out))

    def test_replicas_share_no_start(self):
        """Two devices give the numbers, and the starts, of one."""
        done = subprocess.run(
            [sys.executable, "-c", REPLICAS],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent))),
            },
        )
        assert done.returncode == 0, done.stderr

    def test_every_seed_of_an_attack_is_another(self, data):
        x, y = data[0][:40], data[1][:40]
        found = []
        for seed in (0, 2**31 - 1, -1):
            net = compiled(QuSecNet(network(), self.attack(seed=seed)))
            net.fit(x, y, verbose=0)
            found.append(np.concatenate(list(map(np.ravel, net.get_weights()))))
        for i, j in ((0, 1), (1, 2), (0, 2)):
            assert (found[i] != found[j]).any()


REPLICAS = """
import keras
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
from conftest import small_cnn
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.training import AdversarialTraining
from keras_qsn.training import QuSecNet

seen = []


class Recording(ProjectedGradientDescent):
    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        def record(seeds):
            seen.extend(seeds.numpy()[:, 1].tolist())

        tf.py_function(record, [seeds], [])
        return super()._perturb(logits_fn, x, labels, eps, seeds, targeted)


def numbers(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        attack = Recording(0.1, nb_iter=2)
        net = QuSecNet(small_cnn(), AdversarialTraining(attack, 0.0))
        net.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    x = np.random.default_rng(0).random((50, 28, 28, 1), "float32")
    y = np.arange(50) % 10
    found = net.evaluate(x, y, batch_size=16, verbose=0)
    assert sorted(seen) == list(range(50)), seen
    seen.clear()
    history = net.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    assert sorted(seen) == list(range(50)), seen
    seen.clear()
    return found, history["adv_accuracy"], net.get_weights()


one = numbers(tf.distribute.get_strategy())
two = numbers(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
np.testing.assert_allclose(one[0], two[0], atol=1e-6)
np.testing.assert_allclose(one[1], two[1], atol=1e-6)
for a, b in zip(one[2], two[2], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
"""


class TestThresholds:
    def test_move_with_the_weights(self, data):
        layer = TrainableQuantization()
        net = compiled(QuSecNet(network(layer), FastGradientMethod(0.2)))
        before = layer.thresholds.numpy()
        net.fit(*data, verbose=0)
        assert (layer.thresholds.numpy() != before).any()

    @pytest.mark.parametrize("cost", [None, ProbabilityMeanSquaredError()])
    def test_own_update_is_equation_3(self, cost, data):
        """One step against t - eta * d cost / dt by autodiff."""
        eta = 2.0
        layer = TrainableQuantization(3)
        inner = network(layer)
        x, y = data[0][:50], data[1][:50]
        with tf.GradientTape() as tape:
            value = (cost or LOSS)(y, inner(x, training=True))
        gradient = tape.gradient(value, layer.thresholds.value).numpy()
        before = layer.thresholds.numpy()
        net = QuSecNet(inner, ThresholdTraining(cost, eta))
        compiled(net).fit(x, y, batch_size=50, verbose=0)
        wanted = np.clip(before - eta * gradient, 0, 1)
        np.testing.assert_allclose(layer.thresholds, wanted, atol=1e-6)
        assert np.abs(wanted - before).max() > 1e-5

    def test_own_update_leaves_the_weights_as_they_would_be(self, data):
        x, y = data[0][:50], data[1][:50]
        results = []
        for own in (None, ThresholdTraining(learning_rate=0.5)):
            inner = network(TrainableQuantization())
            net = QuSecNet(inner, own)
            compiled(net).fit(x, y, batch_size=50, verbose=0)
            results.append(inner.get_weights()[1:])
        for u, v in zip(*results):
            np.testing.assert_allclose(u, v, atol=1e-6)

    @pytest.mark.parametrize("cost", [None, ProbabilityMeanSquaredError()])
    def test_own_update_takes_one_pass(self, cost, data):
        """Statistics and dropout as in plain `fit` of fixed thresholds."""

        def fit(wrap):
            layer = TrainableQuantization()
            inner = network(layer, dropout=True)
            net = wrap(inner, layer)
            compiled(net).fit(*data, epochs=2, shuffle=False, verbose=0)
            return inner

        def fixed(inner, layer):
            layer.trainable = False
            return inner

        def own(inner, layer):
            return QuSecNet(inner, ThresholdTraining(cost, 1e-12))

        plain, wrapped = fit(fixed), fit(own)
        for layer, same in zip(plain.layers, wrapped.layers, strict=True):
            for u, v in zip(layer.get_weights(), same.get_weights()):
                np.testing.assert_allclose(u, v, atol=1e-6)

    def test_loss_scaling_changes_nothing(self, data):
        results = []
        for scale in (False, True):
            inner = network(TrainableQuantization())
            net = QuSecNet(inner, ThresholdTraining(learning_rate=0.5))
            optimizer = keras.optimizers.SGD(0.1)
            if scale:
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            net.compile(optimizer, LOSS)
            net.fit(*data, shuffle=False, verbose=0)
            results.append(inner.get_weights())
        for u, v in zip(*results):
            np.testing.assert_allclose(u, v, atol=1e-6)

    def test_losses_of_layers_count(self, data):
        found = []
        for factor in (0.0, 0.1):
            keras.utils.set_random_seed(0)
            inner = keras.Sequential(
                [
                    keras.Input((28, 28, 1)),
                    TrainableQuantization(),
                    keras.layers.Flatten(),
                    keras.layers.Dense(
                        10, kernel_regularizer=keras.regularizers.L2(factor)
                    ),
                ]
            )
            net = QuSecNet(inner, ThresholdTraining(learning_rate=0.5))
            history = compiled(net).fit(*data, verbose=0).history
            found.append(history["loss"][0])
        assert found[1] > found[0] + 0.05

    def test_none_to_train(self):
        for layer in (None, ConstantQuantization()):
            with pytest.raises(ValueError, match="with trainable thresholds"):
                QuSecNet(network(layer), ThresholdTraining())


class TestKerasFeatures:
    def test_weights_callbacks_validation_and_clipping(self, digits, data):
        net = QuSecNet(network(), FastGradientMethod(0.1))
        net.compile(
            keras.optimizers.Adam(0.01, clipnorm=1.0),
            LOSS,
            metrics=["accuracy"],
            weighted_metrics=["accuracy"],
            steps_per_execution=3,
        )
        stop = keras.callbacks.EarlyStopping("val_adv_accuracy")
        history = net.fit(
            *data,
            sample_weight=np.linspace(0, 1, len(data[0])),
            epochs=2,
            validation_data=(digits.x_test[:100], digits.y_test[:100]),
            callbacks=[stop],
            verbose=0,
        ).history
        wanted = {"loss", "accuracy", "adv_accuracy", "weighted_accuracy"}
        assert set(history) == wanted | {f"val_{name}" for name in wanted}
        net.fit(*data, class_weight={3: 2.0, 4: 0.5}, verbose=0)

    def test_callbacks_know_that_more_is_better(self, digits, data, tmp_path):
        found = keras.callbacks.EarlyStopping("val_adv_accuracy", patience=9)
        plateau = keras.callbacks.ReduceLROnPlateau("adv_accuracy")
        best = keras.callbacks.ModelCheckpoint(
            tmp_path / "best.keras", "val_adv_accuracy", save_best_only=True
        )
        net = compiled(QuSecNet(network(), FastGradientMethod(0.02)))
        history = net.fit(
            *data,
            epochs=3,
            validation_data=(digits.x_test[:100], digits.y_test[:100]),
            callbacks=[found, plateau, best],
            verbose=0,
        ).history["val_adv_accuracy"]
        assert max(history) > min(history)
        assert found.best == best.best == max(history)
        assert plateau.monitor_op is keras.ops.greater

    def test_sample_weights_do_not_count_as_in_accuracy(self, data):
        x, y = data[0][:100], data[1][:100]
        net = compiled(QuSecNet(network(), FastGradientMethod(0.0)))
        weights = np.where(y == 3, 1.0, 0.0)
        found = net.evaluate(
            x, y, sample_weight=weights, verbose=0, return_dict=True
        )
        assert found["adv_accuracy"] == found["accuracy"]
        assert net.evaluate(x, y, sample_weight=weights, verbose=0) == list(
            found[name] for name in ("loss", "accuracy", "adv_accuracy")
        )

    def test_one_hot_labels_and_tf_data(self, data):
        x, y = data
        attack = ProjectedGradientDescent(0.1, nb_iter=2)
        net = QuSecNet(network(), attack)
        net.compile(
            "adam", keras.losses.CategoricalCrossentropy(from_logits=True)
        )
        hot = np.eye(10, dtype="float32")[y]
        net.fit(x, hot, verbose=0)
        batches = tf.data.Dataset.from_tensor_slices((x, hot)).batch(50)
        net.fit(batches, shuffle=False, verbose=0)
        found = net.evaluate(batches, verbose=0, return_dict=True)
        assert 0 <= found["adv_accuracy"] <= 1

    def test_class_weights_change_training(self, data):
        results = []
        for class_weight in (None, {i: float(i) for i in range(10)}):
            net = compiled(QuSecNet(network(), FastGradientMethod(0.1)))
            net.fit(*data, class_weight=class_weight, shuffle=False, verbose=0)
            results.append(net.model)
        assert not same_weights(*results)

    def test_xla(self, data):
        net = QuSecNet(
            network(TrainableQuantization()),
            ProjectedGradientDescent(0.1, nb_iter=2),
        )
        compiled(net, jit_compile=True)
        x, y = data[0][:64], data[1][:64]
        net.fit(x, y, verbose=0)
        assert np.isfinite(net.evaluate(x, y, verbose=0)).all()

    def test_the_inner_model_is_saved_and_exported(self, data, tmp_path):
        net = compiled(QuSecNet(network(TrainableQuantization())))
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras")
        net.fit(*data, callbacks=[checkpoint], verbose=0)
        net.save(tmp_path / "model.keras")
        for name in ("model.keras", "best.keras"):
            loaded = keras.models.load_model(tmp_path / name)
            assert type(loaded) is keras.Sequential
            assert same_weights(loaded, net.model)
        net.export(tmp_path / "served", verbose=False)
        served = tf.saved_model.load(tmp_path / "served")
        np.testing.assert_allclose(
            served.serve(data[0][:5]),
            net.predict(data[0][:5], verbose=0),
            atol=1e-5,
        )

    def test_an_interrupted_fit_goes_on_to_the_same_weights(
        self, data, tmp_path
    ):
        class Kill(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    raise KeyboardInterrupt

        def fit(*callbacks):
            net = compiled(
                QuSecNet(network(), ProjectedGradientDescent(0.1, nb_iter=2))
            )
            net.fit(
                *data,
                epochs=2,
                shuffle=False,
                callbacks=list(callbacks),
                verbose=0,
            )
            return net.model

        def backup():
            return keras.callbacks.BackupAndRestore(tmp_path / "backup")

        whole = fit()
        with pytest.raises(KeyboardInterrupt):
            fit(backup(), Kill())
        assert same_weights(whole, fit(backup()))


class Counted(Objective):
    """Counts how often Python runs a step: once for each trace."""

    traced = {"training": 0, "evaluation": 0}

    def images(self, x, labels):
        self.traced["training"] += 1
        return x

    def evaluate(self, x, labels):
        self.traced["evaluation"] += 1


@pytest.mark.parametrize("as_tf_data", [False, True])
def test_no_step_is_traced_twice(as_tf_data, data, monkeypatch):
    monkeypatch.setattr(Counted, "traced", {"training": 0, "evaluation": 0})
    net = QuSecNet(network(), Counted())
    x, y = (part[:64] for part in data)
    given = (x, keras.utils.to_categorical(y))
    net.compile(
        keras.optimizers.Adam(0.005),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        weighted_metrics=["mse"],
    )
    if as_tf_data:
        batches = tf.data.Dataset.from_tensor_slices(given)
        given = (batches.batch(32),)
    size = None if as_tf_data else 32
    history = net.fit(*given, batch_size=size, shuffle=False, verbose=0)
    assert set(history.history) == {"accuracy", "loss", "mse"}
    net.evaluate(*given, batch_size=size, verbose=0)
    assert Counted.traced == {"training": 1, "evaluation": 1}


class OwnCall(keras.Model):
    """A subclassed classifier."""

    def __init__(self, columns, activation=None):
        super().__init__()
        self.convolution = keras.layers.Conv2D(4, 5, strides=3)
        self.pool = keras.layers.GlobalMaxPooling2D()
        self.head = keras.layers.Dense(columns, activation)
        self(np.zeros((1, 28, 28, 1), "float32"))

    def call(self, inputs, training=None):
        return self.head(self.pool(self.convolution(inputs)))


def of_any_size():
    return keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(4, 5, strides=3, activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(2),
        ]
    )


def with_head(columns, activation=None):
    model = small_cnn(num_classes=columns)
    model.add(keras.layers.Activation(activation or "linear"))
    return model


class TestClassifiers:
    """Adversarial training of whatever is a classifier of two digits."""

    SPARSE = keras.losses.SparseCategoricalCrossentropy
    BINARY = keras.losses.BinaryCrossentropy
    MODELS = {
        "one sigmoid": (with_head, (1, "sigmoid"), BINARY()),
        "one logit": (with_head, (1,), BINARY(from_logits=True)),
        "softmax": (with_head, (2, "softmax"), SPARSE()),
        "logits": (with_head, (2,), SPARSE(from_logits=True)),
        "subclassed": (OwnCall, (2,), SPARSE(from_logits=True)),
        "subclassed sigmoid": (OwnCall, (1, "sigmoid"), BINARY()),
        "any size": (of_any_size, (), SPARSE(from_logits=True)),
    }

    @pytest.fixture
    def pair(self, data):
        two = data[1] < 2
        return data[0][two][:60], data[1][two][:60]

    @pytest.mark.parametrize("kind", MODELS)
    def test_learn_under_attack(self, kind, pair):
        make, arguments, loss = self.MODELS[kind]
        x, y = pair
        model = make(*arguments)
        net = QuSecNet(model, ProjectedGradientDescent(0.05, nb_iter=2))
        net.compile(keras.optimizers.Adam(0.02), loss)
        for labels in (y, y[:, None].astype("float32")):
            net.fit(x, labels, epochs=4, batch_size=20, verbose=0)
            found = net.evaluate(x, labels, verbose=0, return_dict=True)
        # Fewer than on the clean images, as predicted by the model itself.
        returned = np.asarray(model(x))
        even = 0.0 if kind == "one logit" else 0.5
        predicted = (
            returned[:, 0] > even
            if returned.shape[1] == 1
            else returned.argmax(1)
        )
        clean = (predicted == y).mean()
        assert 0.7 < found["adv_accuracy"] <= clean

    @pytest.mark.parametrize("kind", MODELS)
    def test_no_attack_is_no_change(self, kind, pair):
        """At radius 0 the accuracy under attack is that of the model."""
        make, arguments, loss = self.MODELS[kind]
        x, y = pair
        attacked = AdversarialTraining(FastGradientMethod(0.0), 0.0)
        net = QuSecNet(make(*arguments), attacked)
        even = 0.0 if kind == "one logit" else 0.5
        metric = "accuracy"
        if arguments[:1] == (1,):
            metric = keras.metrics.BinaryAccuracy("accuracy", threshold=even)
        net.compile(keras.optimizers.Adam(0.02), loss, metrics=[metric])
        history = net.fit(x, y, epochs=2, verbose=0).history
        assert history["adv_accuracy"] == history["accuracy"]
        found = net.evaluate(x, y, verbose=0, return_dict=True)
        assert found["adv_accuracy"] == found["accuracy"]

    def test_bytes(self, pair):
        """A model of bytes learns from examples between them."""
        x, y = pair
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1), dtype="uint8"),
                layers.Rescaling(1 / 255),
                *small_cnn(num_classes=2).layers,
            ]
        )
        attack = FastGradientMethod(0.4, clip_max=255)
        net = compiled(QuSecNet(model, AdversarialTraining(attack, 0.0)))
        moved = np.full((1, 28, 28, 1), 100.9, "float32")
        assert (net(moved) != net(moved - 0.9)).numpy().any()
        pixels = (255 * x).astype("uint8")
        net.fit(pixels, y, batch_size=20, epochs=4, verbose=0)
        found = net.evaluate(pixels, y, verbose=0, return_dict=True)
        assert 0.7 < found["adv_accuracy"] <= found["accuracy"]

    def test_the_range_of_the_model_is_checked(self, pair):
        x, y = pair
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Rescaling(1 / 255),
                *small_cnn(num_classes=2).layers,
            ]
        )
        net = compiled(QuSecNet(model))
        net.fit(255 * x, y, verbose=0)
        with pytest.raises(ValueError, match=r"must lie in \[0.0, 255.0\]"):
            net.fit(as_tf_data([(-x, y)]), shuffle=False, verbose=0)


class TestEpsScheduler:
    def test_training_follows_and_validation_does_not(self, digits, data):
        attacked = AdversarialTraining(FastGradientMethod(eps=0.1), 0.0)
        net = compiled(QuSecNet(network(), attacked))
        eps = [0.0, 0.05, 0.1]
        history = net.fit(
            *data,
            epochs=3,
            validation_data=(digits.x_test[:200], digits.y_test[:200]),
            callbacks=[EpsScheduler(lambda epoch: eps[epoch])],
            verbose=0,
        ).history
        np.testing.assert_allclose(history["eps"], eps, atol=1e-7)
        assert history["adv_accuracy"][0] == history["accuracy"][0]
        assert history["val_adv_accuracy"][0] < history["val_accuracy"][0]

    def test_needs_an_attack(self, data):
        with pytest.raises(ValueError, match="`EpsScheduler` needs a `QuSec"):
            compiled(QuSecNet(network())).fit(
                *data, callbacks=[EpsScheduler(lambda epoch: 0.1)], verbose=0
            )

    def test_refuses_a_negative_eps(self, data):
        net = compiled(QuSecNet(network(), FastGradientMethod(0.1)))
        with pytest.raises(ValueError, match="must return a finite number"):
            net.fit(
                *data, callbacks=[EpsScheduler(lambda epoch: -1)], verbose=0
            )


class TestAttackAccuracy:
    def test_follows_the_model_inside(self, data):
        x, y = data[0][:40], data[1][:40]
        net = compiled(QuSecNet(network(), FastGradientMethod(0.1)))
        callback = AttackAccuracy(FastGradientMethod(0.1), x, y, "fgsm")
        history = net.fit(x, y, callbacks=callback, verbose=0).history
        found = net.evaluate(x, y, verbose=0, return_dict=True)
        assert history["fgsm"] == [pytest.approx(found["adv_accuracy"])]

    def test_refuses_before_training(self, data):
        x, y = data[0][:40], data[1][:40]
        attack = FastGradientMethod(0.1)
        with pytest.raises(ValueError, match="`batch_size` must be"):
            AttackAccuracy(attack, x, y, batch_size=0)
        net = compiled(QuSecNet(network(), attack))
        before = net.get_weights()
        for given, message in (
            ((255 * x, y), "must lie in"),
            ((x, y + 5), "from 0 to 9"),
        ):
            with pytest.raises(ValueError, match=message):
                net.fit(
                    x, y, verbose=0, callbacks=AttackAccuracy(attack, *given)
                )
        for u, v in zip(before, net.get_weights()):
            np.testing.assert_array_equal(u, v)


class TestBadInput:
    def test_constructor(self):
        with pytest.raises(TypeError, match="must be a Keras model"):
            QuSecNet("model")
        for given in ("fgsm", ["fgsm"], 0.3):
            with pytest.raises(TypeError, match="must be a `keras_qsn.attack"):
                QuSecNet(network(), given)
        with pytest.raises(TypeError, match="must be a `keras_qsn.attacks"):
            AdversarialTraining("fgsm")
        with pytest.raises(ValueError, match=r"`clean_share` must lie in"):
            AdversarialTraining(FastGradientMethod(0.1), 1.0)

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("attack", r"AdversarialTraining\(attack\).*Received: attack=0.5"),
            ("clean_share", r"AdversarialTraining\(attack, clean_share\)"),
            ("certification", "`objective=IntervalTraining"),
            ("threshold_loss", "`objective=ThresholdTraining"),
            ("threshold_learning_rate", "`objective=ThresholdTraining"),
        ],
    )
    def test_arguments_of_old_say_where_they_are(self, argument, message):
        with pytest.raises(TypeError, match=message):
            QuSecNet(network(), **{argument: 0.5})

    def test_objectives_of_different_ranges(self):
        attack = FastGradientMethod(2.0, clip_max=255)
        with pytest.raises(ValueError, match="the same range of pixels"):
            QuSecNet(network(), [attack, FastGradientMethod(0.1)])

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda x, y: (255 * x, y), ValueError, r"must lie in \[0"),
            (lambda x, y: (x * np.nan, y), ValueError, "NaN or infinite"),
            (lambda x, y: (x.astype("uint8"), y), TypeError, "dtype=uint8"),
            (lambda x, y: (x[:0], y[:0]), ValueError, "at least one image"),
            (lambda x, y: (x, y + 5), ValueError, "from 0 to 9"),
            (lambda x, y: (x, y[:-1]), ValueError, "one label for each"),
            (lambda x, y: (x[:, 2:], y), ValueError, "expects images of"),
        ],
    )
    @pytest.mark.parametrize("method", ["fit", "evaluate"])
    @pytest.mark.parametrize("quantizer", [None, ConstantQuantization])
    def test_data(self, change, error, message, method, quantizer, data):
        attack = None if quantizer else FastGradientMethod(0.1)
        net = compiled(QuSecNet(network(quantizer and quantizer()), attack))
        before = net.model.get_weights()
        with pytest.raises(error, match=message):
            getattr(net, method)(*change(*data), verbose=0)
        for u, v in zip(before, net.model.get_weights()):
            np.testing.assert_array_equal(u, v)

    def test_tf_data_and_validation_data(self, data):
        x, y = data
        net = compiled(QuSecNet(network(), FastGradientMethod(0.1)))
        bad = tf.data.Dataset.from_tensor_slices((255 * x, y)).batch(50)
        with pytest.raises(ValueError, match=r"must lie in \[0"):
            net.fit(bad, shuffle=False, verbose=0)
        single = tf.data.Dataset.from_tensor_slices((x, y))
        with pytest.raises(ValueError, match="Batch it"):
            net.fit(single, shuffle=False, verbose=0)
        with pytest.raises(ValueError, match="empty tf.data.Dataset"):
            net.fit(bad.take(0), shuffle=False, verbose=0)
        for validation in (bad, (255 * x, y)):
            with pytest.raises(ValueError, match=r"must lie in \[0"):
                net.fit(x, y, validation_data=validation, verbose=0)

    def test_a_frozen_model(self, data):
        model = network()
        model.trainable = False
        net = compiled(QuSecNet(model, FastGradientMethod(0.1)))
        with pytest.raises(ValueError, match="must have weights to train"):
            net.fit(*data, verbose=0)
        assert net.evaluate(*data, verbose=0, return_dict=True)["loss"] > 0

    def test_no_wrapper_around_a_wrapper(self):
        with pytest.raises(TypeError, match="Give `model.model`"):
            QuSecNet(QuSecNet(network()))

    def test_no_attack_without_a_radius(self):
        with pytest.raises(ValueError, match="must have a radius.*DeepFool"):
            QuSecNet(network(), DeepFool())


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def as_generator(batches):
    yield from batches


def as_tf_data(batches):
    x, y = (np.concatenate(part) for part in zip(*batches))
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(20)


def run(net, method, *data):
    # Keras would shuffle, and warns that it cannot.
    order = {"shuffle": False} if method == "fit" else {}
    getattr(net, method)(*data, verbose=0, **order)


class TestEveryBatchIsChecked:
    SOURCES = [as_generator, Batches, as_tf_data]
    BAD = [
        (lambda x, y: (255 * x, y), r"must lie in \[0.0, 1.0\].*Rescale"),
        (lambda x, y: (x * np.nan, y), "NaN or infinite pixel"),
        (lambda x, y: (x, y + 5), "whole numbers from 0 to 9.*to 14"),
    ]

    def batches(self, data, change):
        """Four batches, of which the third is bad."""
        x, y = data
        found = [(x[i : i + 20], y[i : i + 20]) for i in range(0, 80, 20)]
        return found[:2] + [change(*found[2])] + found[3:]

    # A generator's length is not known to Keras before it ends.
    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize("method", ["fit", "evaluate"])
    def test_from_every_source(self, source, method, data):
        net = compiled(QuSecNet(network(), FastGradientMethod(0.1)))
        for change, message in self.BAD:
            given = source(self.batches(data, change))
            with pytest.raises(ValueError, match=message):
                run(net, method, given)
        run(net, method, source(self.batches(data, lambda *batch: batch)))

    @pytest.mark.parametrize(
        "how", [{"run_eagerly": True}, {"jit_compile": True}]
    )
    def test_however_it_is_compiled(self, how, data):
        net = compiled(QuSecNet(network(), FastGradientMethod(0.1)), **how)
        before = net.model.get_weights()
        for change, message in self.BAD:
            given = as_tf_data(self.batches(data, change)).skip(2)
            for method in ("fit", "evaluate"):
                with pytest.raises(ValueError, match=message):
                    run(net, method, given)
        for u, v in zip(before, net.model.get_weights()):
            np.testing.assert_array_equal(u, v)

    def test_integers_are_refused_before_a_step(self, data):
        x, y = data
        net = compiled(QuSecNet(network(), FastGradientMethod(0.1)))
        for given in (x.astype("uint8"), x.astype("int64")):
            with pytest.raises(TypeError, match="floating-point"):
                run(net, "fit", as_tf_data([(given, y)]))

    def test_one_class_an_image(self, data):
        x, y = data[0][:40], data[1][:40]
        net = QuSecNet(network(), FastGradientMethod(0.1))
        net.compile(
            "sgd", keras.losses.CategoricalCrossentropy(from_logits=True)
        )
        hot = np.eye(10, dtype="float32")[y]
        several = hot + np.roll(hot, 1, 1)
        for given in ((x, several), (as_tf_data([(x, several)]),)):
            with pytest.raises(ValueError, match="must name one class.*0 row"):
                run(net, "fit", *given)
        net.fit(x, 0.9 * hot + 0.01, verbose=0)

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    def test_no_batch_is_drawn_beforehand(self, data):
        started = []

        def generate():
            started.append(True)
            yield from self.batches(data, lambda *batch: batch)

        given = tf.data.Dataset.from_generator(
            generate,
            output_signature=(
                tf.TensorSpec((None, 28, 28, 1), tf.float32),
                tf.TensorSpec((None,), tf.int64),
            ),
        )
        net = compiled(QuSecNet(network(), FastGradientMethod(0.1)))
        run(net, "fit", given)
        run(net, "evaluate", given)
        assert len(started) == 2
