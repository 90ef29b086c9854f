"""The contract of every attack: validate, perturb, project, clip, re-check.

A subclass supplies `_perturb` alone. What it returns is projected into the
ball, clipped to the pixel range and judged on the model again here, so no
subclass can leave the threat model or report a success that is none.
"""

import inspect
import warnings
import weakref

import numpy as np
import tensorflow as tf

from keras_qsn.attacks import norms
from keras_qsn.attacks.objectives import loss_gradient
from keras_qsn.attacks.objectives import margin_gradient
from keras_qsn.attacks.objectives import per_image
from keras_qsn.attacks.result import AttackInterrupted
from keras_qsn.attacks.result import AttackResult
from keras_qsn.convolution import fast_convolutions
from keras_qsn.inputs import as_arrays
from keras_qsn.inputs import check_count
from keras_qsn.inputs import check_images
from keras_qsn.inputs import check_labels
from keras_qsn.models import KerasModelWrapper
from keras_qsn.progress import ImageProgress

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
    # Whose gradient the attack follows: "cross_entropy", "margin" or None.
    follows = None

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
        self,
        model,
        x,
        y=None,
        y_target=None,
        batch_size=128,
        callback=None,
        verbose="auto",
    ):
        """Adversarial examples for the images `x`.

        Args:
            model: Keras classifier, or a `KerasModelWrapper` around one.
            x: Float images in `[clip_min, clip_max]` (uint8 where that range
                is 0 to 255), or a batched `tf.data.Dataset` of images or of
                images and labels.
            y: True classes, integers or one-hot. Defaults to `None`: the
                labels of the dataset, or else the model's own predictions,
                which avoids label leaking.
            y_target: Classes to reach; makes the attack targeted.
            batch_size: Images attacked at once. Defaults to `128`.
            callback: Optional function called with the number of images
                finished after each batch.
            verbose: `0`, `1` or `"auto"`: a progress bar never, always, or
                for more than one batch of over a second. Defaults to
                `"auto"`.

        Returns:
            A float32 NumPy array of the shape of the images.

        Raises:
            AttackInterrupted: On Ctrl-C, with what was finished. It is a
                `KeyboardInterrupt`.
            TypeError: If the images are not floating-point numbers.
            ValueError: If images or labels are out of range or do not fit,
                or the model returns numbers that are not finite.
        """
        return self.run(
            model, x, y, y_target, batch_size, callback, verbose
        ).x_adv

    def run(
        self,
        model,
        x,
        y=None,
        y_target=None,
        batch_size=128,
        callback=None,
        verbose="auto",
    ):
        """Like `generate`, with each image's prediction and success.

        Success is judged on the returned images, after projection, clipping
        and the cast to float32. Images the attack was blind on are warned of.

        Returns:
            An `AttackResult`.
        """
        wrapper = KerasModelWrapper.of(model)
        batch_size = check_count("batch_size", batch_size)
        x, y = as_arrays(x, y)
        x = check_images(x, self.clip_min, self.clip_max, wrapper.model)
        self._check_eps(x)
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
        result = AttackResult(
            np.empty_like(x),
            np.empty(len(x), "int64"),
            np.empty(len(x), bool),
            np.empty(len(x), bool),
        )
        progress = ImageProgress(len(x), callback, verbose)
        done = 0
        try:
            while done < len(x):
                batch = slice(done, min(done + batch_size, len(x)))
                index = np.arange(batch.start, batch.stop)
                given = index * 0 if labels is None else labels[batch]
                *found, slope = function(
                    tf.constant(x[batch]),
                    tf.constant(given, tf.int32),
                    eps,
                    tf.constant(_seeds(self.seed, index)),
                )
                slope = slope.numpy()
                self._check_finite(slope)
                for whole, part in zip(result, (*found, slope == 0)):
                    whole[batch] = part
                done = batch.stop
                progress(done)
        except KeyboardInterrupt as error:
            finished = AttackResult(*(values[:done] for values in result))
            raise AttackInterrupted(finished) from error
        self._warn_if_blind(result)
        return result

    def _check_eps(self, x):
        """Refuse a ball that holds every image."""
        if self.eps is None:
            return
        scale, pixels = self.clip_max - self.clip_min, x[0].size
        largest = norms.diameter(self.norm, pixels) * scale
        if self.eps > largest:
            raise ValueError(
                f"`eps` must be at most {largest:.6g}, the distance of the "
                f"farthest images of {pixels} pixels in [{self.clip_min}, "
                f"{self.clip_max}] in the L{self.norm} norm. "
                f"Received: eps={self.eps}"
            )

    def _check_finite(self, slope):
        bad = int((~np.isfinite(slope)).sum())
        if bad:
            raise ValueError(
                "The model's logits, or their gradient at the image, must be "
                f"finite. Received: NaN or infinite for {bad} of "
                f"{len(slope)} images. Look for diverged weights, a division "
                "by zero or a logarithm of zero in the model."
            )

    def _warn_if_blind(self, result):
        blind, failed = result.blind, ~result.success
        if (blind & failed).any():
            warnings.warn(
                f"{type(self).__name__} found a gradient of zero at "
                f"{int(blind.sum())} of {len(blind)} images and failed on "
                f"{int((blind & failed).sum())} of them, which says nothing "
                "of their robustness: the model hides its gradient. Use "
                "attacks that need none, such as SquareAttack.",
                RuntimeWarning,
                stacklevel=3,
            )

    def view(self, wrapper):
        """What the attack sees of a model: the `logits_fn` of `craft`.

        The logits, unless a subclass attacks something else, such as another
        model or the network behind a quantizer. Success is always judged on
        the model itself.
        """
        return wrapper.get_logits

    def craft(self, logits_fn, x, labels, eps, seeds, targeted=False):
        """The attack as a tensor function, for use in a training step.

        Args:
            logits_fn: Function from images to logits: the attack's `view`.
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
        functions = self._functions(wrapper.model)
        key = (self._cache_key(), wrapper.from_logits, targeted, guess_labels)
        if key not in functions:
            functions[key] = self._compile(wrapper, targeted, guess_labels)
        return functions[key]

    def _functions(self, model):
        """The compiled functions for a model."""
        return _COMPILED.setdefault(model, {})

    def _cache_key(self):
        """What attacks that share a compiled function have in common."""
        config = self.get_config()
        config.pop("eps", None)
        config.pop("seed", None)
        return type(self), *config.items()

    def _compile(self, wrapper, targeted, guess_labels):
        logits_fn, view = wrapper.get_logits, self.view(wrapper)

        def succeeded(logits, labels):
            hit = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), labels)
            return hit if targeted else ~hit

        def run(x, labels, eps, seeds):
            if guess_labels:
                labels = tf.argmax(logits_fn(x), -1, output_type=tf.int32)
            x_adv = self.craft(view, x, labels, eps, seeds, targeted)
            logits = logits_fn(x_adv)
            if self.eps is None:
                failed = ~succeeded(logits, labels)
                x_adv = tf.where(per_image(failed, x), x, x_adv)
                logits = tf.where(failed[:, None], logits_fn(x), logits)
            prediction = tf.argmax(logits, -1)
            slope = self._slope(view, x, labels, targeted)
            # Not finite where the logits are not.
            slope += 0 * tf.reduce_sum(tf.cast(logits, tf.float32), 1)
            return x_adv, prediction, succeeded(logits, labels), slope

        # A concrete function keeps the graph, not this closure: the cache
        # must not keep the model alive.
        shape = wrapper.model.input_shape
        with fast_convolutions(wrapper.model):
            return tf.function(run, autograph=False).get_concrete_function(
                tf.TensorSpec([None, *shape[1:]], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([None, 2], tf.int32),
            )

    def _slope(self, logits_fn, x, labels, targeted):
        """Largest part of the gradient that the attack starts from."""
        if self.follows is None:
            return tf.ones_like(labels, tf.float32)
        gradient_of = {
            "cross_entropy": loss_gradient,
            "margin": margin_gradient,
        }[self.follows]
        return norms.size(gradient_of(logits_fn, x, labels, targeted)[0], 1)


def _seeds(seed, index):
    """One seed for each image, from the attack's seed and its position."""
    seeds = np.empty((len(index), 2), "int32")
    seeds[:, 0] = seed
    seeds[:, 1] = index
    return seeds
