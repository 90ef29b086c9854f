"""Substitutes: models trained on the answers of a black box alone."""

import typing

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_positive
from keras_qsn.classifier.inputs import check_images
from keras_qsn.classifier.inputs import check_labels
from keras_qsn.classifier.wrapper import KerasModelWrapper

# Rounds after which the step of the augmentation turns round.
_PERIOD = 3


class SubstituteTraining(typing.NamedTuple):
    """What training a substitute took.

    Attributes:
        queries: Images the black box was asked about.
        history: Lists with one value for each round: `"images"` trained on,
            `"loss"` of the last epoch, and `"agreement"`, the share of those
            images to which the substitute then gives the black box's class.
    """

    queries: int
    history: dict


def train_substitute(
    black_box,
    x,
    substitute,
    data_aug=6,
    epochs=10,
    lmbda=0.1,
    aug_batch_size=512,
    batch_size=128,
    learning_rate=0.001,
    clip_min=0.0,
    clip_max=1.0,
    seed=0,
    verbose=1,
):
    """Trains `substitute`, in place, to answer as the black box does.

    In each round the substitute is trained on all images and the classes `c`
    the black box gives them. Between two rounds every image gets a new one
    beside it, about which the black box is asked:

        x_new = clip(x + s * lmbda * sign(dZ_c / dx))

    with `Z` the substitute's logits, and `s` 1 for three rounds, -1 for
    three, and so on. `TransferAttack` then attacks the black box through the
    substitute.

    Args:
        black_box: Function from a NumPy array of images to their classes; or
            a Keras model, of which only the predicted classes are used.
        x: The first images, in `[clip_min, clip_max]`. Cleverhans takes 150.
        substitute: Keras classifier, or a `KerasModelWrapper` around one. If
            it is compiled, it keeps its optimizer and its loss, which must
            take class numbers.
        data_aug: Integer >= 1. Rounds of training. Defaults to `6`.
        epochs: Integer >= 1. Epochs of each round, `nb_epochs_s` in
            Cleverhans. Defaults to `10`.
        lmbda: Float > 0. What is added to a pixel. Defaults to `0.1`.
        aug_batch_size: Integer >= 1. Images whose gradient is taken at once.
            Defaults to `512`.
        batch_size: Integer >= 1. Of training. Defaults to `128`.
        learning_rate: Float > 0. Adam's, for a substitute that is not
            compiled. Defaults to `0.001`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer. Decides the order of the images. Defaults to `0`.
        verbose: `1` for a progress bar, `0` for none. Defaults to `1`.

    Returns:
        A `SubstituteTraining`, with `len(x) * 2 ** (data_aug - 1)` queries.

    Raises:
        TypeError: If `black_box` cannot be called, `substitute` is no model,
            or the images are not floating-point numbers.
        ValueError: If a parameter or an image is out of range, or the black
            box gives something else than one class for each image.

    Example:

    >>> black_box = cleverhans_cnn(seed=0)
    >>> x = np.full((5, 28, 28, 1), 0.5, "float32")
    >>> training = train_substitute(
    ...     black_box, x, substitute_mlp(seed=1), data_aug=3, verbose=0
    ... )
    >>> training.queries, training.history["images"]
    (20, [5, 10, 20])

    Limitations:
        Copies the black box near the images it is given: attacks through the
        substitute succeed less often than on the black box itself, and less
        often the fewer and the less typical those images are.

    Reference:
        - Papernot et al., 2017: https://arxiv.org/abs/1602.02697
        - Cleverhans v3.1 `mnist_blackbox`, whose defaults and steps these
          are, but for the clipping:
          https://github.com/cleverhans-lab/cleverhans
    """
    if not callable(black_box):
        raise TypeError(
            "`black_box` must be a function from images to classes, or a "
            f"Keras model. Received: {black_box!r}"
        )
    lmbda = check_positive("lmbda", lmbda)
    learning_rate = check_positive("learning_rate", learning_rate)
    data_aug = check_count("data_aug", data_aug)
    epochs = check_count("epochs", epochs)
    aug_batch_size = check_count("aug_batch_size", aug_batch_size)
    batch_size = check_count("batch_size", batch_size)
    wrapper = KerasModelWrapper.of(substitute)
    model = wrapper.model
    x = check_images(x, clip_min, clip_max, model)
    logits = wrapper(x[:1])
    if not model.compiled:
        # Where the wrapper has left nothing out, there is no softmax.
        bare = np.array_equal(logits, model(x[:1], training=False))
        model.compile(
            keras.optimizers.Adam(learning_rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=bare),
        )

    def ask(images):
        classes = _classes(black_box, images)
        return check_labels(
            classes, len(images), int(logits.shape[-1]), "black_box(x)"
        )

    y = ask(x)
    rng = np.random.default_rng(seed)
    history = {"images": [], "loss": [], "agreement": []}
    progress = keras.utils.Progbar(
        data_aug * epochs, verbose=verbose, unit_name="epoch"
    )
    for done in range(data_aug):
        if done:
            step = augmentation_step(lmbda, done - 1)
            moved = augmented(wrapper, x, y, step, aug_batch_size)
            new = np.clip(moved, clip_min, clip_max)
            x, y = np.concatenate([x, new]), np.concatenate([y, ask(new)])
        for _ in range(epochs):
            loss = _train_epoch(model, x, y, batch_size, rng)
            progress.add(1)
        history["images"].append(len(x))
        history["loss"].append(loss)
        agree = _classes(model, x) == y
        history["agreement"].append(float(agree.mean()))
    return SubstituteTraining(len(y), history)


def substitute_mlp(input_shape=(28, 28, 1), num_classes=10, seed=None):
    """The substitute of the Cleverhans black-box tutorial.

        Flatten - Dense(200) - ReLU - Dense(200) - ReLU - Dense logits

    Args:
        input_shape: Shape of an image. Defaults to MNIST's `(28, 28, 1)`.
        num_classes: Integer >= 2. Defaults to `10`.
        seed: Optional integer. The same seed gives the same weights.

    Returns:
        A built `keras.Sequential` whose output is logits.

    Raises:
        ValueError: If `num_classes` is below 2.

    Example:

    >>> substitute_mlp(seed=0).count_params()
    199210

    Reference:
        - Cleverhans v3.1 `mnist_blackbox.ModelSubstitute`:
          https://github.com/cleverhans-lab/cleverhans
    """
    units = [200, 200, check_count("num_classes", num_classes, 2)]
    activations = ["relu", "relu", None]
    # One seed for each layer, all drawn from the caller's.
    seeds = np.random.default_rng(seed).integers(2**31, size=3).tolist()
    model = keras.Sequential([keras.Input(input_shape), keras.layers.Flatten()])
    for layer in zip(units, activations, seeds):
        model.add(
            keras.layers.Dense(
                *layer[:2],
                kernel_initializer=keras.initializers.HeNormal(layer[2]),
            )
        )
    return model


def _train_epoch(model, x, y, batch_size, rng):
    """One epoch, in an order drawn from `rng`; returns the loss."""
    model.reset_metrics()
    order = rng.permutation(len(x))
    for start in range(0, len(x), batch_size):
        rows = order[start : start + batch_size]
        logs = model.train_on_batch(x[rows], y[rows], return_dict=True)
    return float(logs["loss"])


def _classes(black_box, x):
    """The classes the black box gives."""
    if isinstance(black_box, KerasModelWrapper):
        black_box = black_box.model
    if isinstance(black_box, keras.Model):
        return black_box.predict(x, verbose=0).argmax(-1)
    return black_box(x)


def augmentation_step(lmbda, done):
    """The step of the augmentation, after so many of them."""
    return lmbda * (-1) ** (done // _PERIOD)


def augmented(wrapper, x, y, step, batch_size=512):
    """`x + step * sign(dZ_y / dx)`, a NumPy array."""
    moved = []
    for start in range(0, len(x), batch_size):
        images = tf.constant(x[start : start + batch_size])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = wrapper.get_logits(images)
            own = tf.gather(logits, y[start : start + batch_size], batch_dims=1)
        moved.append(images + step * tf.sign(tape.gradient(own, images)))
    return np.concatenate(moved)
