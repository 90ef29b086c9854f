"""A zoo of masks: networks whose robustness is known, behind what hides it.

Each is undefended: at an L-infinity radius of 0.3 its accuracy is 0 %, or what
an attack written by hand for it leaves.
"""

import dataclasses
import io
import typing

import keras
import numpy as np
import PIL.Image
import tensorflow as tf

from keras_qsn.defenses import BitDepthReduction
from keras_qsn.defenses import FeatureSqueezingDetector
from keras_qsn.defenses import MedianSmoothing
from keras_qsn.layers import ConstantQuantization
from keras_qsn.models import with_preprocessing

layers = keras.layers
SHAPE = (28, 28, 1)


@keras.saving.register_keras_serializable("masks")
class Rounding(layers.Layer):
    def __init__(self, levels=8, **kwargs):
        super().__init__(**kwargs)
        self.levels = levels

    def call(self, x):
        return tf.round(x * (self.levels - 1)) / (self.levels - 1)

    def get_config(self):
        return {**super().get_config(), "levels": self.levels}


@keras.saving.register_keras_serializable("masks")
class Thermometer(layers.Layer):
    """Buckman et al., 2018: which of `levels` thresholds a pixel reaches."""

    def __init__(self, levels=8, **kwargs):
        super().__init__(**kwargs)
        self.levels = levels

    def call(self, x):
        thresholds = (tf.range(self.levels, dtype=x.dtype) + 1) / (
            self.levels + 1
        )
        return tf.cast(x >= thresholds, x.dtype)

    def get_config(self):
        return {**super().get_config(), "levels": self.levels}


class Noise(layers.Layer):
    def __init__(self, stddev=0.3, **kwargs):
        super().__init__(**kwargs)
        self.stddev = stddev
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x):
        return x + self.stddev * keras.random.normal(
            tf.shape(x), seed=self.seeds
        )


class ResizePad(layers.Layer):
    """Xie et al., 2018: a random size, in a random place."""

    def __init__(self, least=22, **kwargs):
        super().__init__(**kwargs)
        self.least = least
        self.seeds = keras.random.SeedGenerator(6)

    def call(self, x):
        whole = x.shape[1]
        size, top, left = (
            keras.random.uniform((), seed=self.seeds) for _ in range(3)
        )
        size = self.least + tf.cast(size * (whole + 1 - self.least), tf.int32)
        room = tf.cast(whole - size + 1, tf.float32)
        top, left = (tf.cast(share * room, tf.int32) for share in (top, left))
        small = tf.image.resize(x, [size, size])
        after = [whole - size - top, whole - size - left]
        y = tf.pad(small, [[0, 0], [top, after[0]], [left, after[1]], [0, 0]])
        return tf.ensure_shape(y, x.shape)


class Shift(layers.Layer):
    """A random shift, by up to `most` pixels along each axis."""

    def __init__(self, most=3, **kwargs):
        super().__init__(**kwargs)
        self.most = most
        self.seeds = keras.random.SeedGenerator(8)

    def call(self, x):
        down, right = (
            keras.random.randint((), 0, 2 * self.most + 1, seed=self.seeds)
            for _ in range(2)
        )
        room = [self.most, self.most]
        y = tf.pad(x, [[0, 0], room, room, [0, 0]])
        y = y[:, down : down + x.shape[1], right : right + x.shape[2]]
        return tf.ensure_shape(y, x.shape)


class Dropping(layers.Dropout):
    """Dropout that goes on at inference."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class StochasticQuantizer(layers.Layer):
    """Up or down to one of a few levels, as likely as each is near."""

    def __init__(self, levels=8, **kwargs):
        super().__init__(**kwargs)
        self.levels = levels
        self.seeds = keras.random.SeedGenerator(7)

    def call(self, x):
        draw = keras.random.uniform(tf.shape(x), seed=self.seeds)
        return tf.floor(x * (self.levels - 1) + draw) / (self.levels - 1)


@keras.saving.register_keras_serializable("masks")
class Winners(layers.Layer):
    """Xiao et al., 2020: of the values of an image the largest ones."""

    def __init__(self, share=0.2, **kwargs):
        super().__init__(**kwargs)
        self.share = share

    def call(self, x):
        flat = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
        count = int(self.share * flat.shape[1])
        least = tf.math.top_k(flat, count).values[:, -1]
        least = tf.reshape(least, [-1] + [1] * (len(x.shape) - 1))
        return tf.where(x >= least, x, 0)

    def get_config(self):
        return {**super().get_config(), "share": self.share}


@tf.custom_gradient
def straight_sign(x):
    return tf.sign(x), lambda up: tf.where(tf.abs(x) <= 1, up, 0)


@keras.saving.register_keras_serializable("masks")
class Sign(layers.Layer):
    """Trained straight through; what is deployed has no such gradient."""

    def __init__(self, bare=False, **kwargs):
        super().__init__(**kwargs)
        self.bare = bare

    def call(self, x):
        return tf.sign(x) if self.bare else straight_sign(x)


def jpeg(x, quality=75):
    """Images as they come out of a file."""
    made = np.empty_like(x)
    for image, out in zip(x, made):
        pixels = np.round(255 * np.clip(image[..., 0], 0, 1)).astype("uint8")
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        out[..., 0] = np.asarray(PIL.Image.open(file), "float32") / 255
    return made


def before(model, *first):
    return keras.Sequential([keras.Input(SHAPE), *first, model])


def after(model, *last):
    return keras.Sequential([keras.Input(SHAPE), model, *last])


def network(first=(), between=(), activation="relu"):
    return keras.Sequential(
        [keras.Input(SHAPE), *first]
        + [layers.Conv2D(8, 5, strides=3, activation=activation)]
        + [layers.Conv2D(16, 3, strides=2, activation=activation)]
        + [*between, layers.Flatten(), layers.Dense(10)]
    )


def fit(model, digits, epochs=3):
    model.compile(
        keras.optimizers.Adam(5e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(digits.x_train, digits.y_train, epochs=epochs, verbose=0)
    return model


def deployed(make, digits, **bare):
    """Trained with a gradient that what is deployed does not have."""
    trained = fit(make(), digits, epochs=5)
    model = make(**bare)
    model.set_weights(trained.get_weights())
    return model


def distilled(digits, temperature=100.0):
    """Papernot et al., 2016: trained at a temperature, by the labels and then
    by a teacher's answers, and deployed without one."""

    def fit_to(y):
        model = network()
        hot = after(model, layers.Rescaling(1 / temperature), layers.Softmax())
        hot.compile(keras.optimizers.Adam(5e-3), "categorical_crossentropy")
        hot.fit(digits.x_train, y, epochs=5, verbose=0)
        return model, hot

    _, teacher = fit_to(keras.utils.to_categorical(digits.y_train))
    student, _ = fit_to(teacher.predict(digits.x_train, verbose=0))
    return student


def inhibited(model, tau=0.3):
    """Liu et al., 2018: weights and `tau` times their sign."""
    made = keras.models.clone_model(model)
    made.set_weights([w + tau * np.sign(w) for w in model.get_weights()])
    return made


def ensemble(digits, quantizers):
    """Networks of different bits, by the mean of their logits."""
    x = keras.Input(SHAPE)
    answers = [fit(network([quantizer]), digits)(x) for quantizer in quantizers]
    return keras.Model(x, layers.Average()(answers))


def in_float16(model, factor):
    """The same network of few bits, its logits scaled."""
    policy = {"dtype": "float16"}
    made = [
        type(layer).from_config({**layer.get_config(), **policy})
        for layer in model.layers
    ]
    rescaling = layers.Rescaling(factor, **policy)
    made = keras.Sequential([keras.Input(SHAPE), *made, rescaling])
    made.set_weights(model.get_weights())
    return made


def signs_between(bare=False):
    return network(between=[Sign(bare, name="sign")])


def signs_as_activation(bare=False):
    return network(activation=tf.sign if bare else straight_sign)


def straight_through(model, x, y, eps, nb_iter=50, nb_restarts=5):
    """Which images of an `ensemble` this leaves: PGD by hand, on the margin,
    each quantizer taken for the identity on the way back."""
    networks = [part.layers for part in model.layers if hasattr(part, "layers")]

    @tf.function
    def slope(x_adv):
        with tf.GradientTape() as tape:
            tape.watch(x_adv)
            logits = 0.0
            for quantizer, *rest in networks:
                h = x_adv + tf.stop_gradient(quantizer(x_adv) - x_adv)
                for layer in rest:
                    h = layer(h)
                logits += h
            own = tf.one_hot(y, 10)
            others = tf.reduce_max(logits - 1e9 * own, 1)
            margin = others - tf.reduce_sum(own * logits, 1)
        return tape.gradient(margin, x_adv)

    rng = np.random.default_rng(0)
    left = np.asarray(model(x)).argmax(-1) == y
    for _ in range(nb_restarts):
        x_adv = x + rng.uniform(-eps, eps, x.shape)
        for i in range(nb_iter):
            x_adv = np.clip(x_adv, 0, 1).astype("float32")
            left &= np.asarray(model(x_adv)).argmax(-1) == y
            step = 2 * eps * (1 - i / nb_iter)
            x_adv = x_adv + step * np.sign(slope(tf.constant(x_adv)))
            x_adv = np.clip(x_adv, x - eps, x + eps)
    return left


def nothing(model, x, y, eps):
    """Of an undefended network nothing is left."""
    return np.zeros(len(x), bool)


@dataclasses.dataclass(frozen=True)
class Member:
    """A mask, and how a report names it.

    Attributes:
        make: From an undefended network and the digits to one behind it.
        named: Texts that the facts or the checks of its report hold.
        left: Which images are robust in truth: a function of the model,
            images, classes and eps. Defaults to none.
        detector: From the network and the digits to a detector beside it.
    """

    make: typing.Callable
    named: tuple = ()
    left: typing.Callable = nothing
    detector: typing.Callable = lambda model, digits: None


def squeezing(model, digits, squeezers=None):
    """Feature squeezing, fitted on digits that are not attacked."""
    squeezers = squeezers or [BitDepthReduction(4), MedianSmoothing(2)]
    detector = FeatureSqueezingDetector(model, squeezers)
    return detector.fit(digits.x_test[1::7])


RANDOM = "Answers at random"
ZOO = {
    "logits times 100": Member(
        lambda model, digits: after(model, layers.Rescaling(100.0)),
        ("range 1",),
    ),
    "softmax": Member(
        lambda model, digits: after(
            model, layers.Rescaling(30.0), layers.Softmax()
        )
    ),
    "float16": Member(
        lambda model, digits: in_float16(model, 30.0), ("float32 twin",)
    ),
    "rounding": Member(
        lambda model, digits: before(model, Rounding(name="rounding")),
        ("rounding (none), through the identity",),
    ),
    "thermometer": Member(
        lambda model, digits: fit(
            network([Thermometer(name="thermometer")]), digits
        ),
        ("thermometer (none), through a small network that imitates it",),
    ),
    "JPEG": Member(
        lambda model, digits: with_preprocessing(jpeg, model),
        ("jpeg_outside (none), through the identity",),
    ),
    "median": Member(
        lambda model, digits: before(model, MedianSmoothing(3, name="median")),
        ("median (misleading), through the identity",),
    ),
    "noise": Member(
        lambda model, digits: fit(network([Noise()]), digits), (RANDOM,)
    ),
    "resize and pad": Member(
        lambda model, digits: fit(network([ResizePad()]), digits), (RANDOM,)
    ),
    "dropout": Member(
        lambda model, digits: fit(network(between=[Dropping(0.5)]), digits),
        (RANDOM,),
    ),
    "signs": Member(
        lambda model, digits: deployed(signs_between, digits, bare=True),
        ("sign (zero), through the identity",),
    ),
    "sign activations": Member(
        lambda model, digits: deployed(signs_as_activation, digits, bare=True),
        ("/activation (zero), through the identity",),
    ),
    "distillation": Member(lambda model, digits: distilled(digits)),
    "gradient inhibition": Member(lambda model, digits: inhibited(model)),
    "shift": Member(
        lambda model, digits: fit(network([Shift()]), digits), (RANDOM,)
    ),
    "quantized ensemble": Member(
        lambda model, digits: ensemble(
            digits, [Rounding(n, name=f"levels_{n}") for n in (2, 4, 16)]
        ),
        tuple(f"levels_{n} (none), through the identity" for n in (2, 4, 16)),
        straight_through,
    ),
    "mixed ensemble": Member(
        lambda model, digits: ensemble(
            digits,
            [ConstantQuantization(2, hard=True), Rounding(4, name="levels_4")],
        ),
        ("levels_4 (none), through the identity",),
        straight_through,
    ),
    "k winners": Member(
        lambda model, digits: fit(network(between=[Winners()]), digits)
    ),
    "detector": Member(
        lambda model, digits: model, ("FeatureSqueezing",), detector=squeezing
    ),
    "stochastic quantizer": Member(
        lambda model, digits: before(model, StochasticQuantizer(name="dice")),
        ("dice (none), through the identity", RANDOM),
    ),
}
