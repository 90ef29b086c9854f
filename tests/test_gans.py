"""APE-GAN and the Wasserstein GAN: trained in `fit`, kept in files."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn.defenses import APEGAN
from keras_qsn.defenses import WassersteinGAN
from keras_qsn.defenses import ape_gan_networks
from keras_qsn.defenses import defense_gan_networks
from keras_qsn.defenses import squeezed

SHAPE = (8, 8, 1)


def ape_gan(**kwargs):
    return APEGAN(*ape_gan_networks(SHAPE, 4, seed=0), **kwargs)


def wasserstein_gan(**kwargs):
    networks = defense_gan_networks(SHAPE, 6, 4, seed=0)
    return WassersteinGAN(*networks, **kwargs)


GANS = {"ape": ape_gan, "wasserstein": wasserstein_gan}


def images(count=12):
    return np.random.default_rng(0).random((count, *SHAPE)).astype("float32")


def fitted(gan, epochs=2, **kwargs):
    """Trained on noise, or on noisy images and those without noise."""
    keras.utils.set_random_seed(0)
    gan.compile()
    x = images()
    noisy = np.clip(x + np.sign(x - 0.4) / 8, 0, 1)
    given = (noisy, x) if isinstance(gan, APEGAN) else (x,)
    gan.fit(*given, batch_size=4, epochs=epochs, verbose=0, **kwargs)
    return gan


def weights(gan):
    return gan.generator.get_weights() + gan.discriminator.get_weights()


def same(ours, others):
    return all(np.array_equal(a, b) for a, b in zip(ours, others))


class TestNetworks:
    @pytest.mark.parametrize("shape", [(28, 28, 1), (9, 13, 3), (1, 1, 1)])
    def test_images_of_any_size(self, shape):
        generator, discriminator = ape_gan_networks(shape, 2)
        assert generator.output_shape == (None, *shape)
        assert discriminator.output_shape == (None, 1)
        generator, critic = defense_gan_networks(shape, 5, 2)
        assert generator.input_shape == (None, 5)
        assert generator.output_shape == (None, *shape)
        assert critic.input_shape == (None, *shape)

    def test_sizes_of_the_authors(self):
        generator, critic = defense_gan_networks((28, 28, 1))
        kernels = [w.shape for w in generator.weights if len(w.shape) > 1]
        assert kernels == [
            (128, 4096),
            (5, 5, 128, 256),
            (5, 5, 64, 128),
            (5, 5, 1, 64),
        ]
        assert critic.layers[-1].kernel.shape == (4096, 1)

    @pytest.mark.parametrize("make", [ape_gan_networks, defense_gan_networks])
    def test_same_seed_same_weights(self, make):
        first, again, other = (
            [w for net in make(SHAPE, seed=s) for w in net.get_weights()]
            for s in (1, 1, 2)
        )
        assert same(first, again) and not same(first, other)

    def test_refuses_other_shapes(self):
        for shape in (
            (28, 28),
            (28, None, 1),
            (0, 3, 1),
            28,
            "abc",
            (9, 9, 1.5),
        ):
            with pytest.raises(ValueError, match="`input_shape` must be"):
                ape_gan_networks(shape)
        with pytest.raises(ValueError, match="`latent_dim` must be a whole"):
            defense_gan_networks(SHAPE, 0)


@pytest.mark.parametrize("name", GANS)
@pytest.mark.parametrize("spoilt", [np.nan, np.inf, 255.0, -0.1])
def test_refuses_what_are_no_pixels(name, spoilt):
    gan, x = GANS[name](), images()
    gan.compile()
    before = weights(gan)
    x[3, 2, 1] = spoilt
    given = [(x, images()), (images(), x)] if name == "ape" else [(x,)]
    for each in given:
        with pytest.raises(
            ValueError, match=r"pixels in \[0, 1\]. Received: 1"
        ):
            gan.fit(*each, verbose=0)
    assert same(weights(gan), before)


@pytest.mark.parametrize("name", GANS)
class TestFit:
    def test_same_seed_same_weights(self, name):
        first, again = fitted(GANS[name]()), fitted(GANS[name]())
        assert same(weights(first), weights(again))
        assert not same(weights(first), weights(GANS[name]()))

    def test_goes_on_from_a_file(self, name, tmp_path):
        """Two epochs are one, a file, and another, optimizers included."""
        path = tmp_path / "gan.keras"
        one = fitted(
            GANS[name](),
            1,
            shuffle=False,
            callbacks=[keras.callbacks.ModelCheckpoint(path)],
        )
        again = keras.models.load_model(path)
        assert same(weights(again), weights(one))
        x = images()
        noisy = np.clip(x + np.sign(x - 0.4) / 8, 0, 1)
        given = (noisy, x) if name == "ape" else (x,)
        for gan in (one, again):
            gan.fit(*given, batch_size=4, shuffle=False, verbose=0)
        for ours, theirs in zip(weights(one), weights(again)):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
        for key in {*one.get_config()} - {"generator", "discriminator"}:
            assert again.get_config()[key] == one.get_config()[key]

    def test_loads_in_a_fresh_process(self, name, tmp_path):
        gan = GANS[name]()
        gan.compile()
        gan.save(tmp_path / "gan.keras")
        x = np.ones((2, *gan.generator.input_shape[1:]), "float32")
        np.save(tmp_path / "made.npy", gan(x))
        script = (
            "import keras, keras_qsn, numpy as np\n"
            f"gan = keras.models.load_model({str(tmp_path / 'gan.keras')!r})\n"
            "x = np.ones((2, *gan.generator.input_shape[1:]), 'float32')\n"
            f"made = np.load({str(tmp_path / 'made.npy')!r})\n"
            "np.testing.assert_allclose(gan(x), made, atol=1e-6)\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True)

    def test_metrics_have_names_and_are_validated(self, name):
        gan = GANS[name]()
        gan.compile()
        x = images()
        given = (x, x) if name == "ape" else (x, None)
        kept = gan.fit(*given, validation_data=given, verbose=0).history
        shown = {
            "ape": "reconstruction_error",
            "wasserstein": "wasserstein",
        }[name]
        assert {shown, f"val_{shown}", "generator_loss"} <= {*kept}
        assert "loss" not in kept
        assert np.isfinite([*kept.values()]).all()
        # One batch: two steps of APE-GAN's, none of the other before five.
        assert int(gan.discriminator_optimizer.iterations) == 1
        steps = {"ape": 2, "wasserstein": 0}[name]
        assert int(gan.optimizer.iterations) == steps

    def test_refuses_other_images(self, name):
        gan = GANS[name]()
        gan.compile()
        other = np.zeros((4, 9, 8, 1), "float32")
        whole = np.zeros((4, *SHAPE), int)
        with pytest.raises(ValueError, match="images of (the )?shape"):
            gan.fit(other, other, verbose=0)
        with pytest.raises(TypeError, match="floating-point images"):
            gan.fit(whole, whole, verbose=0)

    def test_refuses_losses(self, name):
        with pytest.raises(ValueError, match="`loss` must not be given"):
            GANS[name]().compile("adam", loss="mse")

    def test_refuses_networks_that_do_not_fit(self, name):
        make = type(GANS[name]())
        generator, judge = defense_gan_networks(SHAPE, 6, 4)
        with pytest.raises(TypeError, match="`generator` must be a Keras"):
            make(lambda z: z, judge)
        with pytest.raises(ValueError, match="must be a built Sequential"):
            make(keras.Sequential([keras.layers.Dense(3)]), judge)
        with pytest.raises(ValueError, match="must make one number"):
            make(generator, generator)


class TestAPEGAN:
    def test_the_losses_by_hand(self):
        gan = ape_gan(content_weight=2.0, adversarial_weight=0.5)
        gan.compile()
        x = images(4)
        x_adv = 1 - x
        found = gan.evaluate(x_adv, x, verbose=0, return_dict=True)
        made = np.asarray(gan(x_adv), "float64")
        real, fake = (
            np.asarray(gan.discriminator(v), "float64") for v in (x, made)
        )
        error = np.square(made - x).mean()
        yes = np.log1p(np.exp(-fake)).mean()
        no = np.log1p(np.exp(fake)).mean()
        expected = {
            "generator_loss": 2 * np.sqrt(error) + yes / 2,
            "discriminator_loss": np.log1p(np.exp(-real)).mean() + no,
            "reconstruction_error": error,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4)
        again = ape_gan(
            content_loss="mse", content_weight=2.0, adversarial_weight=0.5
        )
        again.set_weights(gan.get_weights())
        again.compile()
        found = again.evaluate(x_adv, x, verbose=0, return_dict=True)
        np.testing.assert_allclose(
            found["generator_loss"], 2 * error + yes / 2, rtol=1e-4
        )

    def test_learns_to_leave_images_alone(self):
        x = np.repeat(np.eye(8, dtype="float32")[:, :, None], 8, 2)[..., None]
        gan = ape_gan(adversarial_weight=0.0)
        gan.compile(keras.optimizers.Adam(1e-2))
        kept = gan.fit(x, x, epochs=40, batch_size=8, verbose=0).history
        errors = kept["reconstruction_error"]
        assert errors[-1] < 0.3 * errors[0]

    def test_the_purifier_stands_before_a_classifier(self):
        gan, x = ape_gan(), images()
        layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input(SHAPE), *layers])
        np.testing.assert_allclose(
            squeezed(model, gan.purifier)(x), model(gan(x)), atol=1e-6
        )
        wide = keras.Sequential([keras.Input((9, 8, 1)), *layers[:1]])
        with pytest.raises(ValueError, match="that `model` takes"):
            squeezed(wide, gan.purifier)
        with pytest.raises(ValueError, match="a layer that makes"):
            squeezed(model, keras.layers.Cropping2D(1))

    def test_refuses_images_without_clean_ones(self):
        gan = ape_gan()
        gan.compile()
        with pytest.raises(ValueError, match=r"`fit\(x_adv, x\)`"):
            gan.fit(images(), verbose=0)
        with pytest.raises(ValueError, match="sample weights"):
            gan.fit(images(), images(), sample_weight=np.ones(12), verbose=0)

    @pytest.mark.parametrize(
        ("kwargs", "says"),
        [
            ({"content_loss": "mae"}, "`content_loss` must be one of"),
            ({"content_weight": -1}, "`content_weight` must be a finite"),
            ({"adversarial_weight": -1}, "`adversarial_weight` must be"),
            ({"generator_steps": 0}, "`generator_steps` must be a whole"),
        ],
    )
    def test_refuses_other_numbers(self, kwargs, says):
        with pytest.raises(ValueError, match=says):
            ape_gan(**kwargs)


class TestWassersteinGAN:
    def test_the_generator_follows_every_few_steps_of_the_critic(self):
        gan = fitted(wasserstein_gan(critic_steps=2), 3)
        assert int(gan.discriminator_optimizer.iterations) == 9
        assert int(gan.optimizer.iterations) == 4

    def test_weights_of_the_critic_are_clipped(self):
        gan = fitted(
            wasserstein_gan(lipschitz="weight_clipping", clip_value=0.02)
        )
        largest = max(abs(w).max() for w in gan.discriminator.get_weights())
        assert largest <= np.float32(0.02)

    def test_the_penalty_of_a_linear_critic(self):
        """Its slope is its kernel, between which images whatever."""
        generator, _ = defense_gan_networks(SHAPE, 6, 2, seed=0)
        dense = keras.layers.Dense(1)
        critic = keras.Sequential(
            [keras.Input(SHAPE), keras.layers.Flatten(), dense]
        )
        dense.set_weights([np.full((64, 1), 0.5), np.zeros(1)])
        gan = WassersteinGAN(generator, critic, penalty_weight=3.0)
        gan.compile(keras.optimizers.SGD(0.0))
        kept = gan.fit(images(), verbose=0, batch_size=12).history
        penalty = kept["critic_loss"][0] + kept["wasserstein"][0]
        # A slope of norm 0.5 * 8.
        np.testing.assert_allclose(penalty, 3 * (4 - 1) ** 2, rtol=1e-5)

    def test_learns_a_bright_image(self):
        """Made images come to be as bright as those it is given."""
        x = np.clip(0.9 + 0.02 * (images(64) - 0.5), 0, 1)
        gan = wasserstein_gan()
        z = tf.random.stateless_normal((50, 6), (0, 0))
        before = float(tf.reduce_mean(gan(z)))
        gan.compile(keras.optimizers.Adam(5e-3, beta_1=0.5, beta_2=0.9))
        gan.fit(x, batch_size=16, epochs=30, verbose=0)
        assert abs(before - 0.5) < 0.1
        assert float(tf.reduce_mean(gan(z))) > 0.75

    @pytest.mark.parametrize(
        ("kwargs", "says"),
        [
            ({"lipschitz": "none"}, "`lipschitz` must be one of"),
            ({"penalty_weight": -1}, "`penalty_weight` must be a finite"),
            ({"clip_value": 0}, "`clip_value` must be a finite"),
            ({"critic_steps": 0}, "`critic_steps` must be a whole"),
            ({"seed": -1}, "`seed` must be a whole"),
        ],
    )
    def test_refuses_other_numbers(self, kwargs, says):
        with pytest.raises(ValueError, match=says):
            wasserstein_gan(**kwargs)

    def test_refuses_a_generator_of_images(self):
        with pytest.raises(ValueError, match="must take vectors"):
            WassersteinGAN(*ape_gan_networks(SHAPE, 2))
