"""Making the model of a `Network` cell."""

import keras
import numpy as np

from keras_qsn import datasets
from keras_qsn._core.tracing import layers_of
from keras_qsn.callbacks import EpsScheduler
from keras_qsn.layers import QuantLayer
from keras_qsn.models import cleverhans_cnn
from keras_qsn.paper.defences import AFTER
from keras_qsn.paper.defences import AIMS
from keras_qsn.paper.defences import BUILT
from keras_qsn.training import QuSecNet

BATCH_SIZE = 128

# Adversarial accuracy of each epoch is measured on this many test images.
_WATCHED = 1000


def quantizer_of(network):
    """The quantization layer a network is trained behind, or `None`."""
    return BUILT[network.defence].quantizer(network)


def built(network, input_shape):
    """The model of a `Network`, as it is before training."""
    make = _ARCHITECTURES[network.architecture]
    model = make(
        input_shape, quantizer=quantizer_of(network), seed=network.seed
    )
    if network.initializer == "cleverhans":
        _initialize_as_cleverhans(model, network.seed)
    rebuilt = BUILT[network.defence].rebuilt
    return rebuilt(model, **network.own(network.defence))


def train(network, companion, data):
    """Train a `Network` to which nothing is done after training.

    Args:
        network: The `Network`.
        companion: The model of its aim's companion; `None` if it has none.
        data: Its data set.

    Returns:
        The Keras model, and what its training showed, as plain values.
    """
    x, y = datasets.seeded_subset(
        data.x_train, data.y_train, network.train_images, network.seed
    )
    model = built(network, x.shape[1:])
    x, y = BUILT[network.defence].images(x, y, network)
    aim = AIMS[network.aim]
    objectives = aim.objectives(network, companion, **network.own(network.aim))
    net = QuSecNet(model, objectives)
    net.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=network.label_smoothing
        ),
        metrics=["accuracy"],
    )
    watched = None
    if network.adversarial_eps and network.watched:
        watched = datasets.seeded_subset(
            data.x_test, one_hot(data.y_test), _WATCHED, network.seed
        )
    history = net.fit(
        datasets.ShuffledBatches(x, one_hot(y), BATCH_SIZE, network.seed),
        validation_data=watched,
        epochs=network.epochs,
        callbacks=[_ramp(network)] if aim.ramp else [],
        shuffle=False,
        verbose=0,
    ).history
    return model, {
        "history": {k: [float(v) for v in vs] for k, vs in history.items()},
        "thresholds": threshold_facts(model),
        "train_images": len(x),
        "parameters": parameters(model),
    }


def deployed(network, model, data):
    """What a `Network` makes of the trained model, and plain values."""
    after, settings = AFTER[network.after], network.own(network.after)
    chosen = after.chosen(model, network, data, **settings)
    model = after.put(model, network, data, **settings, **chosen)
    return model, {"parameters": parameters(model), "chosen": chosen}


def detector_of(network, model, data):
    """The detector that stands beside a model; `None` where none does."""
    if not network.detector:
        return None
    make = AFTER[network.after].detector
    return make(model, network, data, **network.own(network.after))


def parameters(model):
    """How many numbers training could change."""
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def small_cnn(input_shape, quantizer=None, seed=0):
    """A network of a thirtieth of the paper's size, for quick looks."""
    seeds = np.random.default_rng(seed).integers(2**31, size=3).tolist()
    starts = [keras.initializers.HeNormal(each) for each in seeds]
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *([] if quantizer is None else [quantizer]),
            layers.Conv2D(
                16, 5, 2, activation="relu", kernel_initializer=starts[0]
            ),
            layers.Conv2D(
                32, 5, 2, activation="relu", kernel_initializer=starts[1]
            ),
            layers.Flatten(),
            layers.Dense(10, kernel_initializer=starts[2], name="logits"),
        ]
    )


_ARCHITECTURES = {"cleverhans": cleverhans_cnn, "small": small_cnn}


def _ramp(network):
    """The radius of training: whole from the middle of the epochs on."""
    first = max(network.epochs // 2, 1)
    return EpsScheduler(
        lambda epoch: network.adversarial_eps * min((epoch + 1) / first, 1)
    )


def _initialize_as_cleverhans(model, seed):
    """New kernels, `N(0, 1 / fan_in)`: its `HeReLuNormalInitializer`."""
    rng = np.random.default_rng(seed)
    for layer in layers_of(model):
        if hasattr(layer, "kernel"):
            shape = layer.kernel.shape
            draw = rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
            layer.kernel.assign(draw)


def threshold_facts(model):
    """Where trained thresholds lie: quantiles, and the share that moved."""
    layer = model.layers[0]
    if not isinstance(layer, QuantLayer):
        return None
    start = QuantLayer.from_config(layer.get_config())
    start.build(model.input_shape)
    now, then = (np.asarray(each.thresholds) for each in (layer, start))
    return {
        "quantiles": np.quantile(now, [0, 0.05, 0.5, 0.95, 1]).tolist(),
        "moved": float((np.abs(now - then) > 0.01).mean()),
    }


def one_hot(y):
    """Class numbers as float32 rows."""
    return keras.utils.to_categorical(y, 10)
