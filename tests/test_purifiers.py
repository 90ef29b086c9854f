"""What purifiers are worth, trained and attacked."""

import keras
import pytest

from keras_qsn.attacks import FastGradientMethod
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.defenses import APEGAN
from keras_qsn.defenses import DefenseGANProjection
from keras_qsn.defenses import WassersteinGAN
from keras_qsn.defenses import ape_gan_networks
from keras_qsn.defenses import check_reconstruction
from keras_qsn.defenses import defense_gan_networks
from keras_qsn.defenses import squeezed
from keras_qsn.models import KerasModelWrapper

EPS = 0.2


def half(x):
    """Images of 14x14 pixels."""
    return x.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4)).astype("float32")


@pytest.fixture(scope="module")
def data(digits):
    x, y = half(digits.x_train), digits.y_train
    return x, y, half(digits.x_test[:100]), digits.y_test[:100]


@pytest.fixture(scope="module")
def classifier(data):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((14, 14, 1)), layers.Flatten()]
        + [layers.Dense(64, "relu"), layers.Dense(10)]
    )
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(*data[:2], epochs=5, batch_size=64, verbose=0)
    return model


def accuracy(model, x, y):
    return (KerasModelWrapper.of(model).predict(x) == y).mean()


def test_ape_gan_undoes_what_it_was_trained_on_and_no_more(classifier, data):
    x, y, x_test, y_test = data
    fgsm = FastGradientMethod(eps=EPS)
    x_adv = fgsm.generate(classifier, x, y)
    networks = ape_gan_networks((14, 14, 1), 8, seed=0)
    gan = APEGAN(*networks)
    gan.compile(keras.optimizers.Adam(2e-3, beta_1=0.5))
    gan.fit(x_adv, x, batch_size=64, epochs=3, verbose=0)
    check_reconstruction(gan.purifier, x_test)
    bare = fgsm.generate(classifier, x_test, y_test)
    purified = squeezed(classifier, gan.purifier)
    undone = accuracy(purified, bare, y_test)
    assert undone > accuracy(classifier, bare, y_test) + 0.5
    attack = ProjectedGradientDescent(eps=EPS, nb_iter=20)
    adaptive = attack.generate(purified, x_test, y_test)
    assert accuracy(purified, adaptive, y_test) < undone - 0.5


def test_defense_gan_withstands_who_does_not_know_of_it(classifier, data):
    x, _, x_test, y_test = data
    x_test, y_test = x_test[:60], y_test[:60]
    gan = WassersteinGAN(
        *defense_gan_networks((14, 14, 1), 16, 16, seed=0), critic_steps=2
    )
    gan.compile(keras.optimizers.Adam(1e-3, beta_1=0.5, beta_2=0.9))
    gan.fit(x, batch_size=64, epochs=16, verbose=0)
    projection = DefenseGANProjection(
        gan.generator,
        num_restarts=3,
        num_steps=40,
        learning_rate=5.0,
        gradient="unrolled",
        fixed_starts=True,
    )
    check_reconstruction(projection, x_test)
    defended = squeezed(classifier, projection)
    bare = FastGradientMethod(eps=0.1).generate(classifier, x_test, y_test)
    undone = accuracy(defended, bare, y_test)
    assert undone > accuracy(classifier, bare, y_test) + 0.3
    attack = ProjectedGradientDescent(eps=0.1, nb_iter=5)
    adaptive = attack.generate(defended, x_test, y_test)
    assert accuracy(defended, adaptive, y_test) < undone - 0.1
