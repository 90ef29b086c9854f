"""Training for certificates: schedule, bounds, loss, what `fit` reports."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import small_cnn
from keras_qsn.attacks import CubeAttack
from keras_qsn.certification import certify
from keras_qsn.certification.network import trace
from keras_qsn.constraints import ThresholdRange
from keras_qsn.datasets import ShuffledBatches
from keras_qsn.initializers import initialize_for_intervals
from keras_qsn.layers import QuantLayer
from keras_qsn.layers import TrainableQuantization
from keras_qsn.models import KerasModelWrapper
from keras_qsn.training import AdversarialTraining
from keras_qsn.training import Batch
from keras_qsn.training import IntervalTraining
from keras_qsn.training import QuSecNet
from keras_qsn.training.objectives import intervals

EPS = 0.1
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def hard_cnn(seed=0, **kwargs):
    quantizer = QuantLayer(2, 50.0, hard=True, trainable=False, **kwargs)
    keras.utils.set_random_seed(seed)
    model = small_cnn(quantizer)
    initialize_for_intervals(model, seed)
    return model


def graph_of(model):
    return trace(KerasModelWrapper(model), model.input_shape[1:])


@pytest.fixture
def batch(digits):
    return digits.x_train[::500], digits.y_train[::500]


class TestSchedule:
    def test_grows_from_nothing_to_all_without_a_leap(self):
        training = IntervalTraining(EPS, warmup_epochs=2, ramp_epochs=8)
        assert training.growth(0) == training.growth(2) == 0
        assert training.growth(10) == pytest.approx(1)
        assert training.growth(99) == pytest.approx(1)
        growth = [training.growth(e) for e in np.linspace(2, 10, 401)]
        steps = np.diff(growth)
        assert (steps >= 0).all() and steps.max() < 0.005
        # A fourth power first, then a line.
        assert growth[50] / growth[25] == pytest.approx(16)
        np.testing.assert_allclose(steps[101:], steps[-1], rtol=1e-6)

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"eps": 0.0}, "`eps` must lie in"),
            ({"eps": 2.0}, r"in \(0, 1\], the width of `value_range`"),
            ({"eps": 0.3, "value_range": (0, 0.2)}, r"in \(0, 0.2\]"),
            ({"eps": 0.1, "clean_share": 1.0}, "`clean_share` must lie in"),
            ({"eps": 0.1, "box_share": 0.0}, r"`box_share` must lie in \(0, 1"),
            (
                {"eps": 0.1, "regularizer": -1.0},
                "`regularizer` must be",
            ),
            ({"eps": 0.1, "ramp_epochs": 0}, "`ramp_epochs` must be a whole"),
            ({"eps": 0.1, "warmup_epochs": -1}, "`warmup_epochs` must be a"),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            IntervalTraining(**settings)

    @pytest.mark.parametrize(
        "name", ["eps", "clean_share", "box_share", "regularizer"]
    )
    def test_no_number(self, name):
        with pytest.raises(TypeError, match=f"`{name}` must be a number"):
            IntervalTraining(**{"eps": EPS, name: "0.5"})


class TestBounds:
    @pytest.mark.parametrize("hard", [True, False])
    def test_hold_for_random_images_of_the_ball(self, batch, hard):
        model = hard_cnn() if hard else small_cnn()
        x, y = batch
        graph = graph_of(model)
        bounds = IntervalTraining(EPS).bounds(graph, tf.constant(x), 1.0)
        worst = intervals.worst_logits(graph, bounds, y).numpy()
        rng = np.random.default_rng(0)
        for kind in range(20):
            step = rng.uniform(-EPS, EPS, x.shape)
            step = EPS * np.sign(step) if kind % 2 else step
            moved = np.clip(x + step, 0, 1).astype("float32")
            logits = model.predict(moved, verbose=0)
            lead = logits - np.take_along_axis(logits, y[:, None], 1)
            assert (lead <= worst + 1e-4).all()

    def test_no_box_is_the_image_itself(self, batch):
        model, (x, y) = hard_cnn(), batch
        graph = graph_of(model)
        bounds = IntervalTraining(EPS).bounds(graph, tf.constant(x), 0.0)
        worst = intervals.worst_logits(graph, bounds, y).numpy()
        logits = model.predict(x, verbose=0)
        lead = logits - np.take_along_axis(logits, y[:, None], 1)
        np.testing.assert_allclose(worst, lead, atol=1e-3)

    def test_a_larger_box_is_worse(self, batch):
        model, (x, y) = hard_cnn(), batch
        graph = graph_of(model)
        training = IntervalTraining(0.3)
        worst = [
            intervals.worst_logits(
                graph, training.bounds(graph, tf.constant(x), growth), y
            ).numpy()
            for growth in (0.0, 0.3, 1.0)
        ]
        assert (worst[0] <= worst[1] + 1e-5).all()
        assert (worst[1] <= worst[2] + 1e-5).all()
        assert worst[2].max() > worst[0].max() + 0.1

    def test_a_smaller_box_lies_in_the_whole_one(self, batch):
        model, (x, _) = hard_cnn(), batch
        graph = graph_of(model)
        rng = np.random.default_rng(0)
        given = x + EPS * rng.choice([-1, 1], x.shape).astype("float32")
        given = tf.constant(np.clip(given, 0, 1))
        x = tf.constant(x)
        training = IntervalTraining(EPS)
        low, high = training.bounds(graph, x, 1.0)[0].ends
        middle = graph.quantized(given)
        bottom, top = training.bounds(graph, x, 0.25, given)[0].ends
        for found, end in ((bottom, low), (top, high)):
            expected = middle + 0.25 * (end - middle)
            np.testing.assert_allclose(found, expected, atol=1e-6)
        assert ((middle == 0) & (high == 1)).numpy().any()


class TestRegularization:
    def test_loose_bounds_cost_and_tight_ones_do_not(self, batch):
        model, (x, _) = hard_cnn(), batch
        graph = graph_of(model)

        def cost(scale):
            for layer in model.layers[1:3]:
                layer.kernel.assign(layer.kernel * scale)
            bounds = IntervalTraining(0.3).bounds(graph, tf.constant(x), 1.0)
            layers = [bounds[p] for p in graph.pre_activations]
            wide = [float(tf.reduce_mean(each.radius)) for each in layers]
            return float(intervals.regularization(graph, bounds)), wide

        (start, before), (later, after) = cost(1.0), cost(30.0)
        assert 0 <= start < later
        assert after[0] > before[0]

    def test_no_activation_costs_nothing(self):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        graph = graph_of(model)
        x = tf.zeros((3, 4))
        bounds = IntervalTraining(EPS).bounds(graph, x, 1.0)
        assert intervals.regularization(graph, bounds) == 0


class TestInitialization:
    def test_rows_sum_to_two_and_seeds_decide(self):
        one, same, other = hard_cnn(0), hard_cnn(0), hard_cnn(1)
        kernels = [np.asarray(m.layers[2].kernel) for m in (one, same, other)]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert (kernels[0] != kernels[2]).any()
        sums = np.abs(kernels[0]).sum((0, 1, 2))
        assert sums.mean() == pytest.approx(2, rel=0.1)
        assert not np.asarray(one.layers[1].bias).any()

    def test_the_last_layer_keeps_its_weights(self):
        model = small_cnn()
        before = np.asarray(model.layers[-1].kernel)
        initialize_for_intervals(model, 0)
        np.testing.assert_array_equal(before, model.layers[-1].kernel)


def mixed(net, growth, x, y, outputs):
    """The loss of a batch, so much of the box grown."""
    (objective,) = net.objectives
    objective.grown.assign(growth)
    x = tf.constant(x)
    loss = net.compute_loss(x, y, outputs)
    return objective.loss(Batch(x, y, y, None, x, outputs, None), loss)


class TestLoss:
    @pytest.mark.parametrize("share, growth", [(0.0, 1.0), (0.3, 0.6)])
    def test_is_the_mixture_it_says(self, batch, share, growth):
        model, (x, y) = hard_cnn(), batch
        training = IntervalTraining(EPS, clean_share=share)
        net = QuSecNet(model, training)
        net.compile("sgd", LOSS)
        logits = model(x)
        found = mixed(net, growth, x, y, logits)
        graph = graph_of(model)
        bounds = training.bounds(graph, tf.constant(x), growth)
        worst = intervals.worst_logits(graph, bounds, y)
        k = 1 - (1 - share) * growth
        expected = k * LOSS(y, logits) + (1 - k) * LOSS(y, worst)
        expected += 0.5 * (1 - growth) * intervals.regularization(graph, bounds)
        assert float(found) == pytest.approx(float(expected), rel=1e-5)

    def test_probabilities_are_compared_with_probabilities(self, batch):
        model, (x, y) = hard_cnn(), batch
        soft = keras.Sequential(
            [keras.Input((28, 28, 1)), *model.layers, keras.layers.Softmax()]
        )
        found = []
        for inner, from_logits in ((model, True), (soft, False)):
            net = QuSecNet(inner, IntervalTraining(EPS))
            net.compile(
                "sgd",
                keras.losses.SparseCategoricalCrossentropy(from_logits),
            )
            found.append(mixed(net, 0.5, x, y, inner(x)))
        assert float(found[0]) == pytest.approx(float(found[1]), rel=1e-4)

    @pytest.mark.parametrize("share, taken", [(0.0, False), (0.3, True)])
    def test_no_gradient_of_images_that_weigh_nothing(
        self, batch, share, taken
    ):
        model, (x, _) = hard_cnn(), batch
        net = QuSecNet(model, IntervalTraining(EPS, clean_share=share))
        net.objectives[0].grown.assign(1.0)
        kernel = model.layers[1].kernel.value
        with tf.GradientTape() as tape:
            logits = net(tf.constant(x), training=True)
            cost = tf.reduce_sum(logits**2)
        gradient = tape.gradient(
            cost, kernel, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        np.testing.assert_allclose(logits, model(x), atol=1e-5)
        assert bool(np.any(gradient)) == taken


class TestFit:
    @pytest.fixture(scope="class", params=["fixed", "trained"])
    @classmethod
    def trained(cls, request, digits):
        quantizer = QuantLayer(2, 50.0, hard=True, trainable=False)
        if request.param == "trained":
            quantizer = TrainableQuantization(
                2,
                20.0,
                hard=True,
                threshold_constraint=ThresholdRange(0.2, 0.8),
            )
        keras.utils.set_random_seed(0)
        model = small_cnn(quantizer)
        initialize_for_intervals(model, 0)
        training = IntervalTraining(EPS, warmup_epochs=1, ramp_epochs=3)
        net = QuSecNet(model, training)
        net.compile(keras.optimizers.Adam(3e-3), LOSS, metrics=["accuracy"])
        batches = ShuffledBatches(digits.x_train, digits.y_train, 64, 0)
        history = net.fit(batches, epochs=8, shuffle=False, verbose=0).history
        return net, history

    def test_learns_to_be_certified(self, trained, digits):
        net, history = trained
        assert set(history) == {"accuracy", "cert_accuracy", "loss", "box"}
        assert history["box"][0] == 0 and history["box"][-1] == 1
        found = net.evaluate(
            digits.x_test, digits.y_test, verbose=0, return_dict=True
        )
        assert found["accuracy"] > 0.8 and found["cert_accuracy"] > 0.4
        plain = hard_cnn()
        plain.compile(keras.optimizers.Adam(3e-3), LOSS)
        plain.fit(digits.x_train, digits.y_train, epochs=3, verbose=0)
        few = digits.x_test[::5], digits.y_test[::5]
        proved = certify(
            net.model, *few, eps=EPS, methods="interval", verbose=0
        )
        without = certify(plain, *few, eps=EPS, methods="interval", verbose=0)
        # The estimate of training is what is proved, to rounding.
        estimate = net.evaluate(*few, verbose=0, return_dict=True)
        assert estimate["cert_accuracy"] == pytest.approx(
            proved.certified_accuracy, abs=0.02
        )
        assert proved.certified_accuracy > without.certified_accuracy + 0.2

    def test_thresholds_stay_where_they_may(self, trained):
        net, _ = trained
        thresholds = np.asarray(net.model.layers[0].thresholds)
        assert thresholds.min() >= 0.2 - 1e-6
        assert thresholds.max() <= 0.8 + 1e-6

    def test_the_model_inside_is_a_plain_one(self, trained, tmp_path, digits):
        net, _ = trained
        net.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(
            loaded(digits.x_test[:4]), net.model(digits.x_test[:4])
        )

    def test_together_with_an_attack(self, batch):
        """Boxes lie around the clean images, not around the examples."""
        model, (x, y) = hard_cnn(), batch
        attack = CubeAttack(EPS, nb_iter=2, nb_restarts=1, nb_polish=0)
        training = IntervalTraining(EPS, warmup_epochs=0, ramp_epochs=1)
        net = QuSecNet(model, [AdversarialTraining(attack, 0.0), training])
        net.compile("adam", LOSS, metrics=["accuracy"])
        history = net.fit(x, y, epochs=2, batch_size=4, verbose=0).history
        assert {"adv_accuracy", "cert_accuracy"} <= set(history)
        found = net.evaluate(x, y, verbose=0, return_dict=True)
        assert found["cert_accuracy"] <= found["adv_accuracy"]
        assert found["adv_accuracy"] <= found["accuracy"]

    def test_same_seed_same_weights(self, batch):
        kernels = []
        for _ in range(2):
            model, (x, y) = hard_cnn(), batch
            net = QuSecNet(model, IntervalTraining(EPS))
            net.compile(keras.optimizers.Adam(1e-3), LOSS)
            net.fit(ShuffledBatches(x, y, 4, 0), shuffle=False, verbose=0)
            kernels.append(np.asarray(model.layers[1].kernel))
        np.testing.assert_allclose(*kernels, atol=1e-6)


class TestGrowingBox:
    """How much of the box counts, batch by batch, whatever the data."""

    # Of data whose length Keras does not know before they end.
    pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out")
    SETTINGS = dict(warmup_epochs=0, ramp_epochs=4)

    def grown(self, data, **kwargs):
        """The growth that each batch was trained with."""
        training = IntervalTraining(EPS, **self.SETTINGS)
        net = QuSecNet(hard_cnn(), training)
        net.compile("sgd", LOSS)
        found = []

        class Recorder(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                found.append(float(net.objectives[0].grown.numpy()))

        net.fit(data, callbacks=Recorder(), shuffle=False, verbose=0, **kwargs)
        return found

    def expected(self, *epochs):
        training = IntervalTraining(EPS, **self.SETTINGS)
        return [training.growth(epoch) for epoch in epochs]

    def unknown(self, batch):
        known = tf.data.Dataset.from_tensor_slices(batch).batch(3)
        assert known.cardinality() == 3
        return known.filter(lambda x, y: True)

    def test_of_unknown_length(self, batch):
        found = self.grown(self.unknown(batch), epochs=4)
        wanted = [0, 0, 0] + [e + k / 3 for e in (1, 2, 3) for k in range(3)]
        np.testing.assert_allclose(found, self.expected(*wanted), atol=1e-6)

    def test_of_unknown_length_from_a_later_epoch(self, batch):
        found = self.grown(self.unknown(batch), epochs=4, initial_epoch=2)
        wanted = [2, 2, 2, 3, 3 + 1 / 3, 3 + 2 / 3]
        np.testing.assert_allclose(found, self.expected(*wanted), atol=1e-6)

    def test_never_runs_ahead_of_longer_epochs(self):
        training = IntervalTraining(EPS, **self.SETTINGS)
        net = QuSecNet(hard_cnn(), training)
        box = intervals.GrowingBox(net.objectives[0])
        box.set_model(net)
        box.set_params({"steps": None})
        box.on_train_begin()
        found = []
        for epoch, batches in enumerate((2, 4, 1, 3)):
            box.on_epoch_begin(epoch)
            # Keras begins one more, and finds no data for it.
            for batch in range(batches + 1):
                box.on_train_batch_begin(batch)
                found.append(float(net.objectives[0].grown.numpy()))
            box.on_epoch_end(epoch)
        wanted = [0, 0, 0, 1, 1.5, 2, 2, 2, 2, 2.5, 3, 3.5, 4, 4]
        np.testing.assert_allclose(found, self.expected(*wanted), atol=1e-6)

    def test_with_steps_an_epoch(self, batch):
        found = self.grown(
            self.unknown(batch).repeat(), epochs=3, steps_per_epoch=2
        )
        wanted = [0, 0.5, 1, 1.5, 2, 2.5]
        np.testing.assert_allclose(found, self.expected(*wanted), atol=1e-6)

    def test_callbacks_by_position_alone_and_in_a_list_of_keras(self, batch):
        x, y = batch
        training = IntervalTraining(EPS, warmup_epochs=0, ramp_epochs=1)
        net = QuSecNet(hard_cnn(), training)
        net.compile("sgd", LOSS)
        seen = []

        def callback():
            return keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: seen.append(logs["box"])
            )

        history = net.fit(x, y, 4, 2, 0, [callback()]).history
        assert history["box"] == seen
        seen.clear()
        net.fit(x, y, batch_size=4, verbose=0, callbacks=callback())
        listed = keras.callbacks.CallbackList(
            [callback()], add_history=True, model=net, epochs=1
        )
        history = net.fit(x, y, batch_size=4, verbose=0, callbacks=listed)
        assert history.history["box"] == seen[1:]
        assert len(seen) == 2


class TestProducts:
    """Products in bfloat16, in training and nowhere else."""

    ATTACK = CubeAttack(EPS, nb_iter=2, nb_restarts=1, nb_polish=0)
    INTERVALS = IntervalTraining(
        EPS, clean_share=0.5, warmup_epochs=0, ramp_epochs=1
    )

    def net(self, product_dtype, *objectives):
        net = QuSecNet(hard_cnn(), objectives, product_dtype=product_dtype)
        net.compile(keras.optimizers.SGD(0.01), LOSS, metrics=["accuracy"])
        return net

    @pytest.mark.parametrize("growth", [0.0, 1.0])
    def test_nearly_the_same_step(self, batch, growth):
        x, y = (tf.constant(part) for part in batch)
        steps = []
        for product_dtype in ("float32", "bfloat16"):
            net = self.net(product_dtype, self.INTERVALS)
            net.objectives[0].grown.assign(growth)
            before = [np.asarray(w) for w in net.trainable_weights]
            tf.function(net.train_step, autograph=False)((x, y))
            after = [np.asarray(w) for w in net.trainable_weights]
            steps.append(
                np.concatenate([np.ravel(b - a) for b, a in zip(before, after)])
            )
        exact, rounded = steps
        error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
        assert 1e-4 < error < 0.1

    def test_evaluation_is_exact(self, batch):
        x, y = batch
        found = [
            self.net(product_dtype, self.ATTACK, self.INTERVALS).evaluate(
                x, y, verbose=0
            )
            for product_dtype in ("float32", "bfloat16")
        ]
        np.testing.assert_array_equal(*found)

    def test_the_model_computes_in_float32_afterwards(self, batch):
        x, y = batch
        net = self.net("bfloat16", self.ATTACK, self.INTERVALS)
        net.fit(x, y, verbose=0)
        again = hard_cnn(seed=1)
        again.set_weights(net.model.get_weights())
        np.testing.assert_array_equal(net.model(x), again(x))


class TestRefusals:
    def test_an_unknown_dtype_of_products(self):
        with pytest.raises(ValueError, match="float32.*Received.*int8"):
            QuSecNet(hard_cnn(), product_dtype="int8")

    def test_a_layer_without_a_rule(self):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3, activation="silu"),
                keras.layers.Dense(2),
            ]
        )
        with pytest.raises(ValueError, match="silu"):
            QuSecNet(model, IntervalTraining(EPS))
