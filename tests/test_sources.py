"""Models trained to transfer from: new weights, their data, what cannot be."""

import fractions

import keras
import numpy as np
import pytest

from keras_qsn._core.kept import Folder
from keras_qsn.classifier.rebuilt import CannotRebuild
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import sources
from keras_qsn.evaluation.checks import registry
from keras_qsn.evaluation.untrained import untrained
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import TrainableQuantization
from keras_qsn.models import KerasModelWrapper

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.random((60, 8, 8, 1), "float32")
# Sorted by class.
Y = np.repeat([0, 1, 2], 20)


class Own(keras.Model):
    """Subclassed, with layers in an attribute and in a list."""

    def __init__(self, units=6):
        super().__init__()
        self.quantizer = TrainableQuantization(2, hard=True)
        self.inside = [layers.Flatten(), layers.Dense(units, "relu")]
        self.scores = layers.Dense(3)

    def build(self, input_shape):
        self.call(keras.Input(batch_shape=input_shape))

    def call(self, x):
        x = self.quantizer(x)
        for layer in self.inside:
            x = layer(x)
        return self.scores(x)


class Opaque(keras.Model):
    """Its configuration does not tell what it is made of."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def call(self, x):
        return self.inside(x)


def moved(model):
    """The model after some training, as far as it can be trained."""
    for variable in model.trainable_variables:
        variable.assign_add(0.01 * RNG.random(variable.shape, "float32"))
    return model


def sequential(*inside):
    return moved(keras.Sequential([keras.Input((8, 8, 1)), *inside]))


def own():
    model = Own()
    model(X[:1])
    return moved(model)


def weights(model):
    return {w.path.rpartition("/")[2]: w.numpy() for w in model.weights}


class TestNewWeights:
    def test_thresholds_start_where_the_layer_starts_them(self):
        model = sequential(
            TrainableQuantization(3, shared_axes=None),
            layers.Flatten(),
            layers.Dense(3),
        )
        new = untrained(model, X[:1], seed=1)
        thresholds = new.layers[-3].thresholds.numpy()
        assert thresholds.shape == (8, 8, 1, 2)
        assert (thresholds == np.float32([1 / 3, 2 / 3])).all()

    def test_every_layer_draws_its_own_from_the_seed(self):
        model = sequential(
            layers.SeparableConv2D(4, 3),
            layers.PReLU("he_normal"),
            layers.BatchNormalization(gamma_initializer="random_uniform"),
            layers.Reshape((-1, 4)),
            layers.GRU(5),
            layers.Dense(
                3, kernel_initializer=keras.initializers.HeNormal(seed=7)
            ),
        )
        first, again, other = (
            untrained(model, X[:1], seed=seed) for seed in (1, 1, 2)
        )
        drawn = 0
        for old, a, b, c in zip(
            *(m.weights for m in (model, first, again, other)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
            if np.std(a) > 0 and len(a.shape) > 0:
                drawn += 1
                assert not np.array_equal(a, c), a.path
                assert not np.array_equal(a, old), a.path
        # Depthwise, pointwise, alpha, gamma, the cell's two, the kernel.
        assert drawn == 7

    def test_embeddings_too(self):
        inputs = keras.Input((4,), dtype="int32")
        x = layers.Flatten()(layers.Embedding(9, 2)(inputs))
        model = keras.Model(inputs, layers.Dense(3)(x))
        new, other = (untrained(model, np.eye(4)[:1], s) for s in (1, 2))
        for a, b in zip(new.weights[:2], other.weights[:2]):
            assert np.abs(a.numpy() - b.numpy()).max() > 0

    def test_what_is_not_trained_stays(self):
        normalization = layers.Normalization()
        normalization.adapt(X)
        frozen = layers.Conv2D(2, 3)
        model = sequential(normalization, frozen, layers.Flatten())
        frozen.trainable = False
        inner = keras.Sequential([keras.Input((8, 8, 1)), model])
        new = untrained(inner, X[:1], seed=1)
        np.testing.assert_array_equal(new(X[:4]), inner(X[:4]))
        assert not new.trainable_variables

    def test_a_twin_has_no_quantizer(self):
        for model in (
            sequential(
                ConstantQuantization(2, hard=True),
                layers.Flatten(),
                layers.Dense(3),
            ),
            own(),
        ):
            twin, sibling = (
                untrained(model, X[:1], 1, quantized)
                for quantized in (False, True)
            )
            # A quantizer leaves nothing of a change below its thresholds.
            low = X / 3
            assert np.ptp(sibling(low), axis=0).max() == 0
            assert np.ptp(twin(low), axis=0).min() > 0

    def test_losses_lambdas_and_activations_of_the_users_own(self):
        def steep(x):
            return keras.ops.relu(3 * x)

        model = sequential(
            layers.Lambda(lambda x: 2 * x - 1),
            layers.Flatten(),
            layers.Dense(4, steep),
            layers.Dense(3),
        )
        model.compile(loss=lambda y, p: keras.ops.mean(p))
        model.compile(loss=steep)
        new = untrained(model, X[:1], seed=1)
        new.set_weights(model.get_weights())
        np.testing.assert_array_equal(new(X), model(X))

    def test_what_cannot_be_made_is_refused(self):
        model = Opaque(sequential(layers.Flatten(), layers.Dense(3)))
        model(X[:1])
        with pytest.raises(CannotRebuild, match="must override `get_config"):
            untrained(model, X[:1], seed=1)


def trained_sources(model, plan, folder=None, x=X, y=Y):
    wrapper = KerasModelWrapper.of(model)
    folder = Folder(folder)
    return sources.trained_sources(wrapper, x, y, plan, 0, folder, print)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(
        sources, "_EPOCHS", dict.fromkeys(("quick", "standard"), 1)
    )
    taught = []

    def teach(black_box, x, *args, **kwargs):
        taught.append(x)

    monkeypatch.setattr(sources, "train_substitute", teach)
    return taught


class TestTrained:
    def test_on_all_classes_of_sorted_data(self, short, monkeypatch):
        monkeypatch.setattr(sources, "_IMAGES", {"standard": 20})
        monkeypatch.setattr(sources, "_SEED_IMAGES", 20)
        seen = []

        class Batches(sources.ShuffledBatches):
            def __init__(self, x, y, *args):
                seen.append((x, y))
                super().__init__(x, y, *args)

        monkeypatch.setattr(sources, "ShuffledBatches", Batches)
        model = sequential(layers.Flatten(), layers.Dense(3))
        trained_sources(model, "standard")
        ((x, y),) = seen
        (asked,) = short
        assert len(x) == len(y) == len(asked) == 20
        for images in (x, asked):
            rows = [np.flatnonzero((X == i).all((1, 2, 3)))[0] for i in images]
            assert set(Y[rows]) == {0, 1, 2}
        assert set(y) == {0, 1, 2}

    @pytest.mark.parametrize(
        "make",
        [
            own,
            lambda: sequential(
                ConstantQuantization(2),
                layers.Flatten(),
                layers.Dropout(0.5),
                layers.Dense(3),
            ),
        ],
    )
    def test_same_seed_same_weights_and_out_of_the_folder(
        self, short, make, tmp_path
    ):
        model = make()
        first, again = (trained_sources(model, "standard")[0] for _ in "ab")
        assert set(first) == {"twin", "sibling", "substitute"}
        kept, found = (
            trained_sources(model, "standard", tmp_path)[0] for _ in "ab"
        )
        for name, wrapper in first.items():
            shape = X.shape[1:]
            same = {
                w.fingerprint(shape)
                for w in (wrapper, again[name], kept[name], found[name])
            }
            assert len(same) == 1, name

    @pytest.mark.parametrize(
        "head",
        [("sigmoid", 1), (None, 1), ("softmax", 3), (None, 3)],
    )
    def test_on_the_loss_of_what_the_model_returns(self, short, head):
        activation, units = head
        y = np.minimum(Y, 1) if units == 1 else Y
        x = np.zeros_like(X)
        x[np.arange(60), y, 0] = 1
        model = sequential(layers.Flatten(), layers.Dense(units, activation))
        found, _ = trained_sources(model, "quick", None, x, y)
        loss = found["sibling"].model.loss
        assert loss.from_logits == (activation is None)
        assert ("Binary" in type(loss).__name__) == (units == 1)

    def test_without_a_configuration_only_a_substitute(self, short):
        model = Opaque(sequential(layers.Flatten(), layers.Dense(3)))
        model(X[:1])
        with pytest.warns(UserWarning, match="No sibling to transfer.*Opaque"):
            found, missing = trained_sources(model, "quick")
        assert set(found) == {"substitute"}
        assert "must override `get_config()`" in missing["sibling"]

    def test_the_evaluation_says_so(self, short, monkeypatch):
        class Scaled(layers.Layer):
            """Takes what no configuration holds."""

            def __init__(self, factor):
                super().__init__()
                self.factor = factor

            def call(self, x):
                return x * float(self.factor)

        first = {"eps-zero": registry.ENTRIES["eps-zero"]}
        monkeypatch.setattr(registry, "ENTRIES", first)
        scaled = Scaled(fractions.Fraction(3, 2))
        model = sequential(layers.Flatten(), layers.Dense(3), scaled)
        y = np.asarray(model(X)).argmax(-1)
        with pytest.warns(UserWarning, match="No sibling"):
            found = evaluate_robustness(
                model, X, y, 0.01, plan="quick", train_data=(X, Y), verbose=0
            )
        assert "sibling" in found.settings["missing_sources"]
        names = [outcome.step.name for outcome in found.outcomes]
        assert "PGD from substitute" in names
