"""What is done to a network after training."""

import dataclasses
import typing

import keras
import numpy as np

from keras_qsn import attacks
from keras_qsn import datasets
from keras_qsn import defenses
from keras_qsn.layers import ConstantQuantization
from keras_qsn.paper.defences import quantized
from keras_qsn.paper.defences.held_out import held_out


@dataclasses.dataclass(frozen=True)
class After:
    """What is done to a trained network.

    Args:
        put: Function of the model, its `Network`, the data and of settings:
            the model that is deployed.
        detector: Function of the same: a fitted detector to stand beside it;
            `None` for none.
        chosen: Function of the same as `put`: settings of it that are chosen
            on held-out images, as plain values.
        seconds: That it takes, roughly: for the time left.
    """

    put: typing.Callable = lambda model, network, data: model
    detector: typing.Callable | None = None
    chosen: typing.Callable = lambda model, network, data, **settings: {}
    seconds: float = 1.0


def _in_front(make):
    def put(model, network, data):
        return defenses.squeezed(model, make())

    return After(put)


def _squeezing(model, network, data):
    name = "cifar10" if network.data == "cifar10" else "mnist"
    squeezers = defenses.recommended_squeezers(name)
    detector = defenses.FeatureSqueezingDetector(model, squeezers)
    return detector.fit(held_out(network, data)[0])


def _with_signum(model, network, data):
    """DQA as published: it is trained straight through."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if isinstance(layer, defenses.DynamicQuantizationActivation):
            layer.gradient = "signum"
    return copy


def _inhibited(model, network, data, spread=0.0, max_drop=0.01):
    chosen_on = held_out(network, data)
    tau = defenses.largest_tau(model, *chosen_on, max_drop, spread)
    return defenses.inhibit_gradients(model, tau, spread, network.seed)


def _inhibited_at_random(model, network, data, spread=0.5, max_drop=0.01):
    return _inhibited(model, network, data, spread, max_drop)


def _ape_gan(model, network, data, width=64, epochs=2, learning_rate=2e-4):
    x, y = datasets.seeded_subset(
        data.x_train, data.y_train, network.train_images, network.seed
    )
    # Radii of another's code: those of the authors' own are unknown.
    eps = 0.01 if network.data == "cifar10" else 0.15
    x_adv = attacks.FastGradientMethod(eps).run(model, x, y, verbose=0).x_adv
    networks = defenses.ape_gan_networks(x.shape[1:], width, network.seed)
    gan = defenses.APEGAN(*networks)
    gan.compile(keras.optimizers.Adam(learning_rate, beta_1=0.5))
    # Clean images, too, as seed 001 describes it.
    given, wanted = np.concatenate([x_adv, x]), np.concatenate([x, x])
    batches = datasets.ShuffledBatches(given, wanted, 64, network.seed)
    gan.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    defenses.check_reconstruction(gan.purifier, held_out(network, data)[0])
    return defenses.squeezed(model, gan.purifier)


def _defense_gan(
    model,
    network,
    data,
    latent_dim=128,
    width=64,
    epochs=160,
    critic_steps=5,
    learning_rate=1e-4,
    num_restarts=10,
    num_steps=200,
    step=10.0,
):
    x, y = datasets.seeded_subset(
        data.x_train, data.y_train, network.train_images, network.seed
    )
    networks = defenses.defense_gan_networks(
        x.shape[1:], latent_dim, width, network.seed
    )
    gan = defenses.WassersteinGAN(
        *networks, critic_steps=critic_steps, seed=network.seed
    )
    gan.compile(keras.optimizers.Adam(learning_rate, beta_1=0.5, beta_2=0.9))
    batches = datasets.ShuffledBatches(x, y, 50, network.seed)
    gan.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    projection = defenses.DefenseGANProjection(
        gan.generator,
        num_restarts,
        num_steps,
        step,
        fixed_starts=True,
        seed=network.seed,
        # The generator's weights were trained: they are counted.
        trainable=True,
    )
    some = held_out(network, data)[0][:100]
    defenses.check_reconstruction(projection, some)
    return defenses.squeezed(model, projection)


AFTER = {
    "Q2": _in_front(lambda: ConstantQuantization(2, name="squeezer")),
    "Q3": _in_front(lambda: ConstantQuantization(3, name="squeezer")),
    "1 bit": _in_front(lambda: defenses.BitDepthReduction(1, name="squeezer")),
    "5 bits": _in_front(lambda: defenses.BitDepthReduction(5, name="squeezer")),
    "median 2x2": _in_front(
        lambda: defenses.MedianSmoothing(2, name="squeezer")
    ),
    "squeezing": After(detector=_squeezing),
    "signum": After(_with_signum),
    "inhibition": After(_inhibited),
    "random inhibition": After(_inhibited_at_random),
    "QAT": After(quantized.with_qat, seconds=60),
    "DivQAT": After(
        quantized.with_qat, chosen=quantized.largest_weight, seconds=300
    ),
    "APE-GAN": After(_ape_gan, seconds=300),
    "Defense-GAN": After(_defense_gan, seconds=3600),
}
