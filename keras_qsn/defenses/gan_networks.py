"""The networks of APE-GAN and of Defense-GAN, for images of any size."""

import keras
import numpy as np

from keras_qsn._core.numbers import check_count

_KERNEL = 5
_SLOPE = 0.2


def ape_gan_networks(input_shape, width=64, seed=None):
    """The generator and the discriminator of APE-GAN.

        generator      Conv(w, /2) BN LReLU - Conv(2w, /2) BN LReLU -
                       Deconv(w, *2) BN ReLU - Deconv(channels, *2) sigmoid
        discriminator  Conv(w, /2) LReLU - Conv(2w, /2) BN LReLU -
                       Conv(4w, /2) BN LReLU - Dense(1)

    with 5x5 kernels and leaky ReLUs of slope 0.2. The authors' images lie in
    `[-1, 1]`, behind a tanh; these in `[0, 1]`, behind a sigmoid, which is
    the same function, rescaled. Their sigmoid at the end of the discriminator
    is part of the loss.

    Args:
        input_shape: Image shape `(height, width, channels)`.
        width: Integer >= 1, the `w` above. Defaults to `64`.
        seed: Optional integer. The same seed gives the same weights.

    Returns:
        Two built `keras.Sequential`, the generator and the discriminator.

    Raises:
        ValueError: If `input_shape` is no image, or `width` is below 1.

    Example:

    >>> generator, discriminator = ape_gan_networks((28, 28, 1), 8, seed=0)
    >>> generator.output_shape, discriminator.output_shape
    ((None, 28, 28, 1), (None, 1))

    Limitations:
        Differentiable throughout: nothing is hidden from white-box attacks.

    Reference:
        - Shen et al., 2017: https://arxiv.org/abs/1707.05474, and the
          authors' code: https://github.com/shenqixiaojiang/APE-GAN
    """
    height, length, channels = _check_image(input_shape)
    width, layers = check_count("width", width), keras.layers
    new = _Seeded(seed)
    generator = [
        *new.down(width, normalized=True),
        *new.down(2 * width, normalized=True),
        new.up(width),
        layers.BatchNormalization(),
        layers.ReLU(),
        new.up(channels),
        # Twice halved and doubled, an odd length is longer than it was.
        _cropped(height, length, -(-height // 4) * 4, -(-length // 4) * 4),
        layers.Activation("sigmoid"),
    ]
    discriminator = [
        *new.down(width),
        *new.down(2 * width, normalized=True),
        *new.down(4 * width, normalized=True),
        layers.Flatten(),
        new.dense(1),
    ]
    return (
        _model("ape_gan_generator", input_shape, generator),
        _model("ape_gan_discriminator", input_shape, discriminator),
    )


def defense_gan_networks(input_shape, latent_dim=128, width=64, seed=None):
    """The generator and the critic of Defense-GAN.

        generator  Dense(h/8 * w/8 * 4w) ReLU - Deconv(2w, *2) ReLU -
                   Deconv(w, *2) ReLU - Deconv(channels, *2) sigmoid
        critic     Conv(w, /2) LReLU - Conv(2w, /2) LReLU -
                   Conv(4w, /2) LReLU - Dense(1)

    with 5x5 kernels, leaky ReLUs of slope 0.2, and no batch normalization. At
    each size the generator keeps as many rows and columns as halving the
    image leaves, rounded up: 4, 7, 14, 28 for MNIST, as the authors' does.

    Args:
        input_shape: Image shape `(height, width, channels)`.
        latent_dim: Integer >= 1, length of the generator's input `z`.
            Defaults to `128`.
        width: Integer >= 1, the `w` above. Defaults to `64`.
        seed: Optional integer. The same seed gives the same weights.

    Returns:
        Two built `keras.Sequential`, the generator and the critic.

    Raises:
        ValueError: If `input_shape` is no image, or a number is below 1.

    Example:

    >>> generator, critic = defense_gan_networks((28, 28, 1), width=8, seed=0)
    >>> generator.input_shape, generator.output_shape
    ((None, 128), (None, 28, 28, 1))

    Limitations:
        The authors publish networks for MNIST, Fashion-MNIST and CelebA; of
        other images, CIFAR-10 among them, this one is untested there.

    Reference:
        - Samangouei et al., 2018: https://arxiv.org/abs/1805.06605, and the
          authors' code: https://github.com/kabkabm/defensegan
    """
    image = _check_image(input_shape)
    latent_dim = check_count("latent_dim", latent_dim)
    width, layers = check_count("width", width), keras.layers
    new = _Seeded(seed)
    sizes = [[-(-side // 2**k) for side in image[:2]] for k in (3, 2, 1, 0)]
    generator = [
        new.dense(4 * width * sizes[0][0] * sizes[0][1]),
        layers.ReLU(),
        layers.Reshape((*sizes[0], 4 * width)),
    ]
    for before, after, filters, activation in zip(
        sizes,
        sizes[1:],
        (2 * width, width, image[2]),
        ("relu", "relu", "sigmoid"),
    ):
        generator += [
            new.up(filters),
            _cropped(*after, 2 * before[0], 2 * before[1]),
            layers.Activation(activation),
        ]
    critic = [
        *new.down(width),
        *new.down(2 * width),
        *new.down(4 * width),
        layers.Flatten(),
        new.dense(1),
    ]
    return (
        _model("defense_gan_generator", (latent_dim,), generator),
        _model("defense_gan_critic", input_shape, critic),
    )


class _Seeded:
    """Makes layers, each with a seed drawn from one."""

    def __init__(self, seed):
        self._seeds = np.random.default_rng(seed)

    def down(self, filters, normalized=False):
        """A convolution that halves the sides, and what follows it."""
        norm = [keras.layers.BatchNormalization()] if normalized else []
        convolution = keras.layers.Conv2D(
            filters, _KERNEL, 2, "same", kernel_initializer=self._start()
        )
        return [convolution, *norm, keras.layers.LeakyReLU(_SLOPE)]

    def up(self, filters):
        """A convolution that doubles the sides."""
        return keras.layers.Conv2DTranspose(
            filters, _KERNEL, 2, "same", kernel_initializer=self._start()
        )

    def dense(self, units):
        return keras.layers.Dense(units, kernel_initializer=self._start())

    def _start(self):
        seed = int(self._seeds.integers(2**31))
        return keras.initializers.GlorotUniform(seed)


def _cropped(height, length, has_height, has_length):
    """A layer that keeps the first rows and columns."""
    surplus = (0, has_height - height), (0, has_length - length)
    if surplus == ((0, 0), (0, 0)):
        return None
    return keras.layers.Cropping2D(surplus)


def _model(name, shape, layers):
    kept = [layer for layer in layers if layer is not None]
    return keras.Sequential([keras.Input(shape), *kept], name=name)


def _check_image(shape):
    sides = tuple(shape) if np.iterable(shape) else ()
    if len(sides) != 3 or not all(
        isinstance(side, (int, np.integer)) and side >= 1 for side in sides
    ):
        raise ValueError(
            "`input_shape` must be (height, width, channels), as in "
            f"(28, 28, 1). Received: input_shape={shape!r}"
        )
    return tuple(int(side) for side in sides)
