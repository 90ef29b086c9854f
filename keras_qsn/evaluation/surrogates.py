"""Surrogates for the parts of a network that hide their gradient."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.attacks.views.layer_surrogates import LayerSurrogates
from keras_qsn.attacks.views.layer_surrogates import check_surrogate
from keras_qsn.attacks.views.layer_surrogates import surrogate_function
from keras_qsn.classifier.masks import agreement
from keras_qsn.classifier.masks import find_masks
from keras_qsn.classifier.masks import neighbours
from keras_qsn.classifier.masks import recorded
from keras_qsn.classifier.parts import parts_named
from keras_qsn.datasets import seeded_subset

# A small network that imitates a layer: its width, and how it is fitted.
_WIDTH = 32
_IMAGES = 1000
_STEPS = 600
_BATCH = 64
# Values that a dense imitation may have, given and made together.
_LARGEST = 4_000_000


@dataclasses.dataclass(frozen=True)
class Surrogates:
    """What goes through the layers of a model that hide their gradient.

    Attributes:
        masks: For each layer, `{"layer", "gradient", "surrogate"}` as text:
            `gradient` is `"none"`, `"zero"`, `"misleading"` or `"given"`,
            where the user names the layer.
        view: The `LayerSurrogates`; `None` where there is nothing to mend.
    """

    masks: tuple = ()
    view: LayerSurrogates | None = None

    @property
    def layers(self):
        """The names of the layers."""
        return tuple(mask["layer"] for mask in self.masks)


def check_surrogates(surrogates, wrapper, folder=None):
    """Refuse surrogates of layers that there are not, and, where results are
    kept, functions that another one of their name would be taken for."""
    if surrogates is None:
        return {}
    for name, surrogate in LayerSurrogates(surrogates).surrogates.items():
        check_surrogate(name, surrogate)
        if folder and "<" in getattr(surrogate, "__qualname__", ""):
            raise ValueError(
                "Where results are kept in a `folder`, a surrogate must be a "
                "Keras layer or a function defined at the top of a module. "
                f"Received: {surrogate.__qualname__} for '{name}'"
            )
        for part in parts_named(wrapper.network, name):
            surrogate_function(part, surrogate)
    return dict(surrogates)


def surrogates_of(wrapper, x, threat, given, train_images, folder):
    """The `Surrogates` of a model.

    Of each layer that hides its gradient: what the user gives; else the
    layer's own; else the identity, where shapes agree and it points where the
    layer goes; else a small network fitted to imitate the layer.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        x: Images that are attacked.
        threat: The `ThreatModel`.
        given: `{layer name: surrogate}`, checked.
        train_images: Images to fit on; `None` for `x`.
        folder: The `Folder` that keeps fitted networks.
    """
    chosen = dict(given)
    found = {name: "given" for name in given}
    images = x if train_images is None else train_images
    for number, mask in enumerate(find_masks(wrapper, x, threat)):
        name = mask.part.name
        owner = name.partition("/")[0]
        if owner in given and owner != name:
            continue
        if name not in chosen:
            chosen[name] = _own(mask) or _imitation(
                wrapper, mask, images, threat, folder, number
            )
        found[name] = mask.gradient
    chosen = {name: s for name, s in chosen.items() if s is not None}
    words = tuple(
        {
            "layer": name,
            "gradient": gradient,
            "surrogate": _in_words(chosen.get(name)),
        }
        for name, gradient in found.items()
    )
    view = LayerSurrogates(chosen) if chosen else None
    if view is not None:
        # What does not fit is refused before any attack.
        view.see(wrapper.get_logits, wrapper)(tf.constant(x[:1]))
    return Surrogates(words, view)


def _own(mask):
    """A surrogate without anything fitted: the layer's own, the identity."""
    if mask.part.method == "call" and callable(
        getattr(mask.part.owner, "surrogate", None)
    ):
        return "own"
    low, high = _made(mask)
    if low.shape != mask.given.low.shape:
        return None
    cosine = agreement(lambda h: h, mask.given, (low, high))
    # Of what does not change at all nothing can be said.
    return "identity" if not cosine <= 0 else None


def _made(mask):
    """What the part makes of both sides."""
    given = mask.given
    return tuple(
        mask.part.alone(h, *given.args, **given.kwargs)
        for h in (given.low, given.high)
    )


def _imitation(wrapper, mask, images, threat, folder, number):
    """A small network fitted to imitate a layer; `None` if that is large."""
    model = _small_network(mask.given.low.shape[1:], _made(mask)[0].shape[1:])
    if model is None:
        return None
    name = f"surrogate-{number}.npz"
    kept = folder.get(name)
    if kept is None:
        _fit(model, wrapper, mask.part, images, threat)
        weights = {str(i): w for i, w in enumerate(model.get_weights())}
        folder.put(name, weights)
    else:
        model.set_weights([kept[str(i)] for i in range(len(kept))])
    return model


def _small_network(given, made):
    """From one shape to another: by position where they have the same ones."""
    layers, seeds = keras.layers, iter(range(1, 4))

    def start():
        return keras.initializers.GlorotUniform(next(seeds))

    if len(given) == len(made) == 3 and given[:2] == made[:2]:
        inside = [
            layers.Conv2D(
                _WIDTH,
                3,
                1,
                "same",
                activation="tanh",
                kernel_initializer=start(),
            ),
            layers.Conv2D(
                _WIDTH, 1, activation="tanh", kernel_initializer=start()
            ),
            layers.Conv2D(made[-1], 1, kernel_initializer=start()),
        ]
    else:
        sizes = int(np.prod(given)), int(np.prod(made))
        width = 4 * _WIDTH
        if width * sum(sizes) > _LARGEST:
            return None
        inside = [
            layers.Flatten(),
            layers.Dense(width, "tanh", kernel_initializer=start()),
            layers.Dense(sizes[1], kernel_initializer=start()),
            layers.Reshape(made),
        ]
    return keras.Sequential([keras.Input(given), *inside], name="imitation")


def _fit(model, wrapper, part, images, threat):
    """Fit it to what the part makes of images, and of points beside them."""
    images, _ = seeded_subset(
        images, np.zeros(len(images), int), _IMAGES, threat.seed
    )
    rng = np.random.default_rng(threat.seed)
    optimizer = keras.optimizers.Adam(3e-3)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step(h, wanted):
        with tf.GradientTape() as tape:
            error = tf.square(model(h, training=True) - wanted)
            loss = tf.reduce_mean(error)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    sides = [_batches(side) for side in neighbours(images, threat)]
    given, args, kwargs = recorded(wrapper, [part], [*sides[0], *sides[1]])[
        part
    ]
    half = len(sides[0])
    low, high = np.concatenate(given[:half]), np.concatenate(given[half:])
    for _ in range(_STEPS):
        rows = rng.integers(len(low), size=_BATCH)
        # Anywhere between the sides: images of few grey levels have gaps.
        share = rng.random((_BATCH, *low.shape[1:]))
        h = low[rows] + share * (high[rows] - low[rows])
        h = tf.constant(h, given[0].dtype)
        wanted = part.alone(h, *args, **kwargs)
        step(tf.cast(h, tf.float32), tf.cast(wanted, tf.float32))


def _batches(x):
    return [x[i : i + _BATCH] for i in range(0, len(x), _BATCH)]


def _in_words(surrogate):
    if surrogate is None:
        return "none: too large to imitate, give one as `surrogates`"
    if surrogate == "identity":
        return "the identity"
    if surrogate == "own":
        return "the layer's own"
    if isinstance(surrogate, keras.Model) and surrogate.name == "imitation":
        return "a small network that imitates it"
    return getattr(surrogate, "name", getattr(surrogate, "__name__", "given"))
