"""Training a `Network` cell."""

import keras
import numpy as np

from keras_qsn import datasets
from keras_qsn._core.tracing import layers_of
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.defenses import BitDepthReduction
from keras_qsn.defenses import MedianSmoothing
from keras_qsn.defenses import gaussian_augmentation
from keras_qsn.defenses import squeezed
from keras_qsn.defenses import with_bounded_relu
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.layers import TrainableQuantization
from keras_qsn.losses import ProbabilityMeanSquaredError
from keras_qsn.models import cleverhans_cnn
from keras_qsn.training import QuSecNet
from keras_qsn.training import ThresholdTraining

BATCH_SIZE = 128

# A slope so steep that float32 knows none beside the threshold: what DQA's
# signum gives to backpropagation.
_SIGNUM_STEEPNESS = 1e4

# Adversarial accuracy of each epoch is measured on this many test images.
_WATCHED = 1000

# Of the noisy copies, by data set: recalled from the paper of BReLU + GDA.
_SIGMA = {"cifar10": 0.05}
_COPIES = 1

SQUEEZERS = {
    "Q2": lambda: ConstantQuantization(2, name="squeezer"),
    "Q3": lambda: ConstantQuantization(3, name="squeezer"),
    "1 bit": lambda: BitDepthReduction(1, name="squeezer"),
    "5 bits": lambda: BitDepthReduction(5, name="squeezer"),
    "median 2x2": lambda: MedianSmoothing(2, name="squeezer"),
}


def quantizer_of(network):
    """The quantization layer a network is trained behind, or `None`."""
    if network.defence == "signum":
        return QuantLayer(
            network.num_levels, _SIGNUM_STEEPNESS, hard=True, trainable=False
        )
    kinds = {"CQ": ConstantQuantization, "TQ": TrainableQuantization}
    if network.defence not in kinds:
        return None
    names = ("num_levels", "steepness", "hard", "variant", "gradient")
    settings = {name: getattr(network, name) for name in names}
    if network.steepness is None:
        del settings["steepness"]
    return kinds[network.defence](**settings)


def train(network, data):
    """Train a `Network` without squeezer on its data set.

    Returns:
        The Keras model, and what its training showed, as plain values.
    """
    x, y = datasets.seeded_subset(
        data.x_train, data.y_train, network.train_images, network.seed
    )
    model = cleverhans_cnn(
        x.shape[1:], quantizer=quantizer_of(network), seed=network.seed
    )
    if network.initializer == "cleverhans":
        _initialize_as_cleverhans(model, network.seed)
    if network.defence == "BReLU+GDA":
        model = with_bounded_relu(model)
        sigma = _SIGMA.get(network.data, 0.3)
        x, y = gaussian_augmentation(x, y, sigma, _COPIES, network.seed)
    objectives = []
    if network.adversarial_eps:
        objectives.append(FastGradientMethod(network.adversarial_eps))
    if network.threshold_cost == "Eq. 2":
        objectives.append(ThresholdTraining(ProbabilityMeanSquaredError()))
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
        shuffle=False,
        verbose=0,
    ).history
    return model, {
        "history": {k: [float(v) for v in vs] for k, vs in history.items()},
        "thresholds": threshold_facts(model),
        "train_images": len(x),
    }


def _initialize_as_cleverhans(model, seed):
    """New kernels, `N(0, 1 / fan_in)`: its `HeReLuNormalInitializer`."""
    rng = np.random.default_rng(seed)
    for layer in layers_of(model):
        if hasattr(layer, "kernel"):
            shape = layer.kernel.shape
            draw = rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
            layer.kernel.assign(draw)


def squeeze(network, model):
    """The model with the network's squeezer in front."""
    return squeezed(model, SQUEEZERS[network.squeezer]())


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
