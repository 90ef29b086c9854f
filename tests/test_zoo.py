"""Any classifier: trained, attacked, evaluated, saved, each from end to end."""

import dataclasses
import inspect
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn import attacks
from keras_qsn.attacks import norms
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.models import KerasModelWrapper
from keras_qsn.training import QuSecNet

layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Member:
    """A kind of classifier, and the data it takes."""

    make: typing.Callable
    shape: tuple
    classes: int
    eps: float = 0.1
    low: typing.Any = 0.0
    high: typing.Any = 1.0
    loss: str = "sparse_categorical_crossentropy"
    from_logits: bool = True


def sequential(*rest, shape=(12, 12, 3), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *rest])


def convolutions(classes, activation=None):
    return [
        layers.Conv2D(6, 3, strides=2, activation="relu"),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(classes, activation),
    ]


@keras.saving.register_keras_serializable("zoo")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = layers.Conv2D(6, 3, strides=2, activation="relu")
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(self.flatten(self.convolution(x)))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 12, 12, 3), "float32"))
    return model


def nested():
    inside = sequential(*convolutions(4, "softmax"))
    x = keras.Input((12, 12, 3))
    return keras.Model(x, inside(layers.Dropout(0.2)(x)))


@keras.saving.register_keras_serializable("zoo")
def softmax_of(z):
    return tf.nn.softmax(z)


def hidden_softmax():
    return sequential(*convolutions(4), layers.Lambda(softmax_of))


def channels_first():
    return sequential(
        layers.Permute((2, 3, 1)), *convolutions(4), shape=(3, 12, 12)
    )


# Features of a table, each in units of its own.
SCALE = 10.0 ** (np.arange(30) % 3 - 1).astype("float32")

ZOO = {
    "subclassed": Member(subclassed, (12, 12, 3), 4),
    "sigmoid": Member(
        lambda: sequential(*convolutions(1, "sigmoid")),
        (12, 12, 3),
        2,
        loss="binary_crossentropy",
        from_logits=False,
    ),
    "two logits": Member(lambda: sequential(*convolutions(2)), (12, 12, 3), 2),
    "3 classes": Member(lambda: sequential(*convolutions(3)), (12, 12, 3), 3),
    "100 classes": Member(
        lambda: sequential(*convolutions(100)), (12, 12, 3), 100
    ),
    "table": Member(
        lambda: sequential(
            layers.Dense(16, "relu"), layers.Dense(4), shape=(30,)
        ),
        (30,),
        4,
        low=-SCALE,
        high=SCALE,
    ),
    "sequence": Member(
        lambda: sequential(layers.GRU(8), layers.Dense(4), shape=(9, 3)),
        (9, 3),
        4,
    ),
    "0 to 255": Member(
        lambda: sequential(layers.Rescaling(1 / 255), *convolutions(4)),
        (12, 12, 3),
        4,
        eps=16.0,
        high=255.0,
    ),
    "bytes": Member(
        lambda: sequential(
            layers.Rescaling(1 / 127.5, -1), *convolutions(4), dtype="uint8"
        ),
        (12, 12, 3),
        4,
        eps=16.0,
        high=255.0,
    ),
    "any size": Member(
        lambda: sequential(*convolutions(4), shape=(None, None, 3)),
        (12, 12, 3),
        4,
    ),
    "channels first": Member(channels_first, (3, 12, 12), 4),
    "nested": Member(nested, (12, 12, 3), 4, from_logits=False),
    "hidden softmax": Member(hidden_softmax, (12, 12, 3), 4, from_logits=False),
}
# The families of `keras.applications`, at a size that tests can afford.
FAMILIES = {
    "MobileNetV2": (keras.applications.MobileNetV2, -1.0, 1.0, 0.05),
    "ResNet50": (keras.applications.ResNet50, 0.0, 255.0, 8.0),
    "EfficientNetV2B0": (
        keras.applications.EfficientNetV2B0,
        0.0,
        255.0,
        8.0,
    ),
    "ConvNeXtTiny": (keras.applications.ConvNeXtTiny, 0.0, 255.0, 8.0),
}

# Few steps: whether an attack works on a model, not how well.
SMALL = {
    attacks.AdditiveGaussianNoiseAttack: {},
    attacks.AutoAttack: {"nb_iter": 3, "nb_queries": 5},
    attacks.AutoProjectedGradientDescent: {"nb_iter": 4, "loss": "dlr"},
    attacks.BasicIterativeMethod: {"nb_iter": 3},
    attacks.CarliniWagnerL2: {"binary_search_steps": 2, "max_iterations": 5},
    attacks.DecoupledDirectionNorm: {"nb_iter": 5},
    attacks.DeepFool: {"max_iter": 5},
    attacks.FastAdaptiveBoundary: {"nb_iter": 3},
    attacks.FastGradientMethod: {},
    attacks.FastMinimumNorm: {"nb_iter": 5},
    attacks.HopSkipJumpAttack: {"num_iterations": 2, "max_num_evals": 50},
    attacks.LocalSearchAttack: {},
    attacks.MomentumIterativeMethod: {"nb_iter": 3},
    attacks.PointwiseAttack: {},
    attacks.ProjectedGradientDescent: {"nb_iter": 3, "nb_restarts": 2},
    attacks.SPSA: {"nb_iter": 2},
    attacks.SaliencyMapMethod: {},
    attacks.SigmaZero: {"nb_iter": 5},
    attacks.SinglePixelAttack: {},
    attacks.SquareAttack: {"nb_queries": 5},
}

# They look at neighbours or at single pixels.
IMAGES_ONLY = (
    attacks.LocalSearchAttack,
    attacks.SinglePixelAttack,
)


def images_of(member, count, seed=0):
    rng = np.random.default_rng(seed)
    unit = rng.random((count, *member.shape))
    low, high = np.asarray(member.low), np.asarray(member.high)
    x = (low + (high - low) * unit).astype("float32")
    return np.clip(x, low, high).astype("float32")


def loss_of(member):
    if member.loss == "binary_crossentropy":
        return keras.losses.BinaryCrossentropy(member.from_logits)
    return keras.losses.SparseCategoricalCrossentropy(member.from_logits)


def attack_of(kind, member, **arguments):
    own = {"eps": member.eps, "clip_min": member.low, "clip_max": member.high}
    accepted = inspect.signature(kind).parameters
    own = {name: v for name, v in own.items() if name in accepted}
    return kind(**own, **arguments)


@pytest.fixture(scope="module")
def zoo():
    """Each member, trained for a moment under attack, and its data."""
    kept = {}

    def member(name):
        if name not in kept:
            kept[name] = trained(ZOO[name])
        return kept[name]

    return member


def trained(member):
    keras.utils.set_random_seed(0)
    model, x = member.make(), images_of(member, 32)
    y = np.arange(32) % member.classes
    attack = attack_of(attacks.FastGradientMethod, member)
    net = QuSecNet(model, attack)
    net.compile("adam", loss_of(member), metrics=["accuracy"])
    history = net.fit(x, y, batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert 0 <= net.evaluate(x, y, verbose=0, return_dict=True)["adv_accuracy"]
    # Attacked images are those that the model itself gets right.
    return model, x, KerasModelWrapper(model).predict(x)


@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ZOO)
def test_attacks(zoo, name, kind):
    member = ZOO[name]
    model, x, y = zoo(name)
    attack = attack_of(kind, member, **SMALL[kind])
    images, labels = x[:6], y[:6]
    if kind in IMAGES_ONLY and len(member.shape) < 3:
        with pytest.raises(ValueError, match="images.*Received"):
            attack.run(model, images, labels, verbose=0)
        return
    result = attack.run(model, images, labels, verbose=0)
    assert (result.x_adv >= np.asarray(member.low, "float32")).all()
    assert (result.x_adv <= np.asarray(member.high, "float32")).all()
    if attack.eps is not None:
        assert norms.inside(images, result.x_adv, attack.eps, np.inf).all()
    predicted = KerasModelWrapper(model).predict(result.x_adv)
    np.testing.assert_array_equal(result.prediction, predicted)
    np.testing.assert_array_equal(result.success, predicted != labels)


@pytest.mark.parametrize("name", ZOO)
def test_evaluation_report_and_file(zoo, name, tmp_path):
    member = ZOO[name]
    model, x, y = zoo(name)
    check_evaluated(model, x[:12], y[:12], member, tmp_path)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fingerprints = [
        KerasModelWrapper(m).fingerprint(member.shape) for m in (model, loaded)
    ]
    assert len({*fingerprints}) == 1


def check_evaluated(model, x, y, member, folder, checks="all"):
    evaluation = evaluate_robustness(
        model,
        x,
        y,
        eps=member.eps,
        plan="quick",
        value_range=(member.low, member.high),
        checks=checks,
        verbose=0,
    )
    assert evaluation.clean_accuracy == 1
    assert evaluation.robust_accuracy <= evaluation.clean_accuracy
    broken = ~evaluation.robust
    x_adv = evaluation.x_adv
    assert norms.inside(x, x_adv, member.eps, np.inf).all()
    predicted = KerasModelWrapper(model).predict(x_adv)
    np.testing.assert_array_equal(predicted != y, broken)
    paths = evaluation.write(folder)
    assert all(path.stat().st_size for path in paths)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_real_networks(name, tmp_path):
    make, low, high, eps = FAMILIES[name]
    keras.utils.set_random_seed(0)
    model = make(weights=None, input_shape=(96, 96, 3), classes=10)
    member = Member(None, (96, 96, 3), 10, eps, low, high, from_logits=False)
    x = images_of(member, 4)
    net = QuSecNet(model, attack_of(attacks.FastGradientMethod, member))
    net.compile(keras.optimizers.SGD(1e-3), loss_of(member))
    history = net.fit(x, np.arange(4), batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    wrapper = KerasModelWrapper(model)
    # Of the largest, all checks take two minutes.
    checks = "light" if name == "ConvNeXtTiny" else "all"
    check_evaluated(model, x, wrapper.predict(x), member, tmp_path, checks)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert wrapper.fingerprint(member.shape) == KerasModelWrapper(
        loaded
    ).fingerprint(member.shape)


def test_a_declared_range_needs_no_telling():
    member = ZOO["0 to 255"]
    model = member.make()
    x = images_of(member, 8)
    evaluation = evaluate_robustness(
        model,
        x,
        KerasModelWrapper(model).predict(x),
        eps=member.eps,
        plan=[attack_of(attacks.FastGradientMethod, member)],
        checks=None,
        verbose=0,
    )
    assert evaluation.clean_accuracy == 1
