"""The contract of every attack: validate, perturb, project, clip, re-check.

A subclass supplies `_perturb` alone. What it returns is projected into the
ball, clipped to the pixel range and judged on the model again here, so no
subclass can leave the threat model or report a success that is none.
"""

import inspect
import typing
import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.attacks import norms
from keras_qsn.inputs import check_images
from keras_qsn.inputs import check_labels
from keras_qsn.models import KerasModelWrapper


class AttackResult(typing.NamedTuple):
    """What an attack did to each image.

    Attributes:
        x_adv: Images after the attack, float32, same shape as the input.
        prediction: Class the model gives each of them, int.
        success: Boolean: whether that class is wrong (untargeted) or the
            target (targeted).
    """

    x_adv: np.ndarray
    prediction: np.ndarray
    success: np.ndarray


# Logits of another batch size differ by less than this part of the largest.
_ROUNDING = 1e-5

# One compiled function for each model and kind of attack. Entries go when
# their model does; attacks that differ in `eps` or `seed` alone share one.
_COMPILED = weakref.WeakKeyDictionary()


class Attack:
    """Base class of attacks: an L_p ball of radius `eps` around each image.

    Parameters are given to the constructor, data to the call, so an attack
    can be stored beside the number it produced (`get_config`). Subclasses
    implement `_perturb`; `generate`, `run` and `craft` are final.

    With `eps=None` there is no ball: the attack looks for the smallest
    perturbation, and an image on which it fails comes back unchanged.

    Args:
        eps: Float >= 0, the radius of the ball in pixel units. `None` only
            from subclasses whose constructor has no `eps`.
        norm: `np.inf`, `2` or `1`. Defaults to `np.inf`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer; decides random starts, image by image.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> attack = FastGradientMethod(eps=0.3)
    >>> model = cleverhans_cnn(seed=0)
    >>> x, y = np.full((2, 28, 28, 1), 0.5, "float32"), [3, 4]
    >>> x_adv = attack.generate(model, x, y)
    >>> float(np.abs(x_adv - x).max()) <= 0.3 + 1e-6
    True

    Limitations:
        One attack gives an upper bound of robustness, never the figure.
    """

    norms = (np.inf, 2)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in ("generate", "run", "craft"):
            if name in vars(cls):
                raise TypeError(
                    f"`{cls.__name__}` may not override `{name}`, which keeps "
                    "every attack inside its threat model. Implement "
                    "`_perturb`."
                )

    def __init__(
        self, eps=0.3, norm=np.inf, clip_min=0.0, clip_max=1.0, seed=0
    ):
        if eps is not None and not (np.isfinite(eps) and eps >= 0):
            raise ValueError(
                f"`eps` must be a finite number >= 0. Received: eps={eps}"
            )
        if eps is None and "eps" in inspect.signature(type(self)).parameters:
            raise ValueError(
                f"`eps` must be a number: {type(self).__name__} works inside "
                "a ball. Received: eps=None"
            )
        if not clip_min < clip_max:
            raise ValueError(
                "`clip_min` must be below `clip_max`. "
                f"Received: clip_min={clip_min}, clip_max={clip_max}"
            )
        self.norm = norms.check_norm(norm, self.norms)
        if eps and self.norm == np.inf and eps > clip_max - clip_min:
            raise ValueError(
                f"`eps` is in pixel units, at most {clip_max - clip_min:g} "
                f"for pixels in [{clip_min}, {clip_max}]. "
                f"Received: eps={eps}. For images in 0..255 also set "
                "`clip_max=255`."
            )
        self.eps = None if eps is None else float(eps)
        self.clip_min = float(clip_min)
        self.clip_max = float(clip_max)
        self.seed = int(seed)

    def get_config(self):
        """The constructor's arguments, as plain Python values."""
        config = {
            "eps": self.eps,
            "norm": "inf" if self.norm == np.inf else self.norm,
            "clip_min": self.clip_min,
            "clip_max": self.clip_max,
            "seed": self.seed,
        }
        return self._own(config)

    def _own(self, config):
        """Without the parameters that a subclass fixes."""
        accepted = inspect.signature(type(self)).parameters
        return {k: v for k, v in config.items() if k in accepted}

    @classmethod
    def from_config(cls, config):
        """The attack that `get_config` describes."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(
            f"{name}={value!r}" for name, value in self.get_config().items()
        )
        return f"{type(self).__name__}({arguments})"

    def generate(
        self, model, x, y=None, y_target=None, batch_size=128, callback=None
    ):
        """Adversarial examples for the images `x`.

        Args:
            model: Keras classifier, or a `KerasModelWrapper` around one.
            x: Float images in `[clip_min, clip_max]`.
            y: True classes, integers or one-hot. Defaults to `None`: the
                model's own predictions, which avoids label leaking.
            y_target: Classes to reach; makes the attack targeted.
            batch_size: Images attacked at once. Defaults to `128`.
            callback: Optional function called with the number of images
                finished after each batch.

        Returns:
            A float32 NumPy array of the shape of `x`.

        Raises:
            TypeError: If the images are not floating-point numbers.
            ValueError: If images or labels are out of range or do not fit.
        """
        return self.run(model, x, y, y_target, batch_size, callback).x_adv

    def run(
        self, model, x, y=None, y_target=None, batch_size=128, callback=None
    ):
        """Like `generate`, with each image's prediction and success.

        Success is judged on the returned images, after projection, clipping
        and the cast to float32.

        Returns:
            An `AttackResult`.
        """
        wrapper = _wrap(model)
        x = check_images(x, self.clip_min, self.clip_max, wrapper.model)
        num_classes = int(wrapper(x[:1]).shape[-1])
        if y is not None:
            y = check_labels(y, len(x), num_classes)
        targeted = y_target is not None
        if targeted:
            labels = check_labels(y_target, len(x), num_classes, "y_target")
            if y is not None and (labels == y).any():
                raise ValueError(
                    "`y_target` must differ from `y`. Received: "
                    f"{int((labels == y).sum())} target(s) equal to the label."
                )
        else:
            labels = y
        function = self._compiled(wrapper, targeted, labels is None)
        eps = tf.constant(self.eps or 0.0, tf.float32)
        x_adv = np.empty_like(x)
        prediction = np.empty(len(x), "int64")
        success = np.empty(len(x), bool)
        for start in range(0, len(x), batch_size):
            batch = slice(start, min(start + batch_size, len(x)))
            index = np.arange(batch.start, batch.stop)
            given = index * 0 if labels is None else labels[batch]
            x_adv[batch], prediction[batch], success[batch] = function(
                tf.constant(x[batch]),
                tf.constant(given, tf.int32),
                eps,
                tf.constant(_seeds(self.seed, index)),
            )
            if callback is not None:
                callback(batch.stop)
        return AttackResult(x_adv, prediction, success)

    def craft(self, logits_fn, x, labels, eps, seeds, targeted=False):
        """The attack as a tensor function, for use in a training step.

        Args:
            logits_fn: Function from images to logits.
            x: Float tensor of images.
            labels: Integer tensor of shape `(batch,)`.
            eps: Scalar tensor, the radius; ignored without a ball.
            seeds: Integer tensor of shape `(batch, 2)`.
            targeted: Whether `labels` are to be reached. Defaults to `False`.

        Returns:
            A tensor like `x`, in the ball and in the pixel range.
        """
        x_adv = self._perturb(logits_fn, x, labels, eps, seeds, targeted)
        return tf.stop_gradient(self._project(x, x_adv, eps))

    def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
        """Candidate images; arguments as for `craft`."""
        raise TypeError(f"{type(self).__name__} does not implement `_perturb`.")

    def _project(self, x, x_adv, eps):
        """`x_adv` moved into the ball around `x` and into the pixel range."""
        x_adv = tf.clip_by_value(x_adv, self.clip_min, self.clip_max)
        if self.eps is None:
            return x_adv
        delta = norms.project(x_adv - x, eps, self.norm)
        return tf.clip_by_value(x + delta, self.clip_min, self.clip_max)

    def _compiled(self, wrapper, targeted, guess_labels):
        config = self.get_config()
        config.pop("eps", None)
        config.pop("seed", None)
        key = (
            type(self),
            tuple(config.items()),
            wrapper.from_logits,
            targeted,
            guess_labels,
        )
        functions = _COMPILED.setdefault(wrapper.model, {})
        if key not in functions:
            functions[key] = self._compile(wrapper, targeted, guess_labels)
        return functions[key]

    def _compile(self, wrapper, targeted, guess_labels):
        logits_fn = wrapper.get_logits

        def succeeded(logits, labels):
            hit = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), labels)
            return hit if targeted else ~hit

        def run(x, labels, eps, seeds):
            if guess_labels:
                labels = tf.argmax(logits_fn(x), -1, output_type=tf.int32)
            x_adv = self.craft(logits_fn, x, labels, eps, seeds, targeted)
            logits = logits_fn(x_adv)
            if self.eps is None:
                failed = ~succeeded(logits, labels)
                x_adv = tf.where(per_image(failed, x), x, x_adv)
                logits = tf.where(failed[:, None], logits_fn(x), logits)
            prediction = tf.argmax(logits, -1)
            return x_adv, prediction, succeeded(logits, labels)

        # A concrete function keeps the graph, not this closure: the cache
        # must not keep the model alive.
        shape = wrapper.model.input_shape
        return tf.function(run, autograph=False).get_concrete_function(
            tf.TensorSpec([None, *shape[1:]], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.float32),
            tf.TensorSpec([None, 2], tf.int32),
        )


def loss_gradient(logits_fn, x, labels, targeted):
    """Gradient of the cross-entropy, uphill for the attacker, and logits."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = tf.cast(logits_fn(x), tf.float32)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    gradient = tape.gradient(loss, x)
    return -gradient if targeted else gradient, logits


def margin_of(logits, labels, targeted):
    """The attacker's lead in the logits, less what rounding may take."""
    logits = tf.cast(logits, tf.float32)
    is_label = tf.one_hot(labels, tf.shape(logits)[1], True, False, dtype=bool)
    own = tf.gather(logits, labels, batch_dims=1)
    other = tf.reduce_max(tf.where(is_label, -np.inf, logits), 1)
    lead = own - other if targeted else other - own
    largest = tf.reduce_max(tf.abs(logits), 1)
    return lead - tf.stop_gradient(_ROUNDING * largest)


def fooled(logits, labels, targeted):
    """Whether an image is fooled and stays so in a batch of another size."""
    return margin_of(logits, labels, targeted) > 0


def per_image(values, x):
    """Shape `(batch,)` to one that broadcasts against the images `x`."""
    return tf.reshape(values, [-1] + [1] * (len(x.shape) - 1))


def _seeds(seed, index):
    """One seed for each image, from the attack's seed and its position."""
    seeds = np.empty((len(index), 2), "int32")
    seeds[:, 0] = seed
    seeds[:, 1] = index
    return seeds


def _wrap(model):
    if isinstance(model, KerasModelWrapper):
        return model
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model or a `KerasModelWrapper`. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    return KerasModelWrapper(model)
