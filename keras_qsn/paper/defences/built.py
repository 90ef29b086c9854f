"""What is built in place of the plain network."""

import dataclasses
import typing

import keras

from keras_qsn import defenses
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.layers import TrainableQuantization

# A slope so steep that float32 knows none beside the threshold: what a
# signum gives to backpropagation.
_SIGNUM_STEEPNESS = 1e4

# Of the noisy copies, by data set: recalled from the paper of BReLU + GDA.
_SIGMA = {"cifar10": 0.05}
_COPIES = 1


@dataclasses.dataclass(frozen=True)
class Built:
    """What is trained in place of the plain network.

    Args:
        quantizer: Function of a `Network`: the layer in front, or `None`.
        rebuilt: Function of the plain network and of settings: what takes its
            place.
        images: Function of images, labels and the `Network`: what it is
            trained on.
    """

    quantizer: typing.Callable = lambda network: None
    rebuilt: typing.Callable = lambda model: model
    images: typing.Callable = lambda x, y, network: (x, y)


def _staircase(kind):
    def make(network):
        names = ("num_levels", "steepness", "hard", "variant", "gradient")
        settings = {name: getattr(network, name) for name in names}
        if network.steepness is None:
            del settings["steepness"]
        return kind(**settings)

    return make


def _signum(network):
    return QuantLayer(
        network.num_levels, _SIGNUM_STEEPNESS, hard=True, trainable=False
    )


def _with_noisy(x, y, network):
    sigma = _SIGMA.get(network.data, 0.3)
    return defenses.gaussian_augmentation(x, y, sigma, _COPIES, network.seed)


def _with_dqa(model, bits=2):
    """A quantized activation in place of each ReLU, as it is trained."""
    layers = [keras.Input(model.input_shape[1:])]
    for layer in model.layers:
        config = layer.get_config()
        rectified = config.get("activation") == "relu"
        if rectified:
            config["activation"] = "linear"
        layers.append(type(layer).from_config(config))
        if rectified:
            layers.append(
                defenses.DynamicQuantizationActivation(
                    bits, gradient="straight_through"
                )
            )
    return keras.Sequential(layers)


BUILT = {
    "none": Built(),
    "CQ": Built(_staircase(ConstantQuantization)),
    "TQ": Built(_staircase(TrainableQuantization)),
    "signum": Built(_signum),
    "BReLU+GDA": Built(rebuilt=defenses.with_bounded_relu, images=_with_noisy),
    "DQA": Built(rebuilt=_with_dqa),
    "hashed": Built(rebuilt=defenses.with_hashed_layers),
}
