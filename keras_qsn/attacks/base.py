"""The contract of every attack: validate, perturb, project, clip, re-check.

A subclass supplies `_perturb` alone. What it returns is projected into the
ball, clipped to the pixel range and judged on the model again here, so no
subclass can leave the threat model or report a success that is none.
"""

import copy
import inspect

import numpy as np
import tensorflow as tf

from keras_qsn._core.config import Configured
from keras_qsn._core.numbers import check_at_least
from keras_qsn.attacks import norms
from keras_qsn.attacks.running import compiled_attack
from keras_qsn.attacks.running import run_attack
from keras_qsn.attacks.views.base import Seen
from keras_qsn.classifier.inputs import in_words


class Attack(Configured):
    """Base class of attacks: an L_p ball of radius `eps` around each image.

    Parameters are given to the constructor, data to the call, so an attack
    can be stored beside the number it produced (`get_config`). Subclasses
    implement `_perturb`; `generate`, `run` and `craft` are final.

    Attributes of the class say what others need to know of an attack:
    `norms`, those it can measure in; `follows`, whose gradient it follows,
    `"cross_entropy"`, `"margin"` or `None`; `climbs`, whether it climbs a loss
    inside the ball, to wherever that leads, and not to the boundary of a
    class; `threat`, the attacker it takes,
    `"white-box"`, `"adaptive"` (white-box, and made for the quantizer),
    `"transfer"` or `"queries"`; `counts`, the names of the whole numbers that
    `_perturb` also takes as scalar tensors, so that attacks which differ in
    them share a compiled function.

    With `eps=None` there is no ball: the attack looks for the smallest
    perturbation, and an image on which it fails comes back unchanged.

    Args:
        eps: Float >= 0, the radius of the ball in pixel units, or a whole
            number of pixels for `norm=0`. `None` only from subclasses whose
            constructor has no `eps`.
        norm: `np.inf`, `2`, `1` or `0`, the number of pixels that change.
            Defaults to `np.inf`.
        clip_min: Smallest pixel value; or, for tables, an array of one for
            each feature, that broadcasts to one image. Defaults to `0.0`.
        clip_max: Largest pixel value, likewise. Defaults to `1.0`.
        seed: Integer of 32 bits; decides random starts, image by image.

    Raises:
        ValueError: If a parameter is out of range.

    Example:

    >>> @keras.saving.register_keras_serializable("mine")
    ... class Brighter(Attack):
    ...     def __init__(self, share=1.0, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.share = share
    ...
    ...     def _perturb(self, logits_fn, x, labels, eps, seeds, targeted):
    ...         return x + self.share * eps
    >>> attack = BPDA(Brighter(share=2.0, eps=0.3))
    >>> attack = BPDA.from_config(attack.get_config())
    >>> x = np.full((2, 28, 28, 1), 0.25, "float32")
    >>> model = cleverhans_cnn(quantizer=ConstantQuantization(2), seed=0)
    >>> float(attack.generate(model, x, [3, 4]).max())
    0.550000011920929

    Limitations:
        One attack gives an upper bound of robustness, never the figure.
    """

    norms = (np.inf, 2)
    follows = None
    climbs = False
    counts = ()
    # What it looks at a model through, the outermost view first.
    views = ()
    _first = ("eps", "norm", "clip_min", "clip_max", "seed")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in ("generate", "run", "craft"):
            if name in vars(cls):
                raise TypeError(
                    f"`{cls.__name__}` may not override `{name}`, which keeps "
                    "every attack inside its threat model. Implement "
                    "`_perturb`."
                )
        if "view" in vars(cls):
            raise TypeError(
                f"`{cls.__name__}` has a method `view`, which attacks no "
                "longer ask. Put a `View` around it: `ViewedAttack(attack, "
                "view)`."
            )
        # Another search need not take tensors for its counts.
        if "_perturb" in vars(cls) and "counts" not in vars(cls):
            cls.counts = ()

    def __init__(
        self, eps=0.3, norm=np.inf, clip_min=0.0, clip_max=1.0, seed=0
    ):
        if eps is None and "eps" in inspect.signature(type(self)).parameters:
            raise ValueError(
                f"`eps` must be a number: {type(self).__name__} works inside "
                "a ball. Received: eps=None"
            )
        self.eps = None if eps is None else check_at_least("eps", eps, 0)
        self.clip_min, self.clip_max = _check_range(clip_min, clip_max)
        self.norm = norms.check_norm(norm, self.norms)
        widest = np.max(np.subtract(self.clip_max, self.clip_min))
        if eps and self.norm == np.inf and eps > widest:
            raise ValueError(
                f"`eps` is in pixel units, at most {widest:g} "
                f"for pixels in {in_words(self.clip_min, self.clip_max)}. "
                f"Received: eps={eps}. For images in 0..255 also set "
                "`clip_max=255`."
            )
        self.seed = _check_seed(seed)

    @property
    def threat(self):
        """What the attacker knows; by default, whether `follows` says it."""
        return "white-box" if self.follows else "queries"

    def generate(
        self,
        model,
        x,
        y=None,
        y_target=None,
        batch_size=None,
        progress=None,
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
            batch_size: Images attacked at once: a number, or the memory that
                they may take, such as `"500MB"`, and 128 at most. Defaults to
                `None`: `"2GB"`.
            progress: Optional function called after each batch with the name
                of the attack, the number of images finished, and their count.
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
            model, x, y, y_target, batch_size, progress, verbose
        ).x_adv

    def run(
        self,
        model,
        x,
        y=None,
        y_target=None,
        batch_size=None,
        progress=None,
        verbose="auto",
    ):
        """Like `generate`, with each image's prediction and success.

        Success is judged on the returned images, after projection, clipping
        and the cast to float32. Images the attack was blind on are warned of.

        Returns:
            An `AttackResult`.
        """
        return run_attack(
            self, model, x, y, y_target, batch_size, progress, verbose
        )

    def attacked(self, wrapper, targeted, *arguments):
        """`craft` on a model, compiled; `arguments` from `x` to `seeds`."""
        shape = arguments[0].shape[1:]
        function = compiled_attack(self, wrapper, shape, targeted)
        return function(*arguments, *map(tf.constant, self.get_counts()))

    def seen(self, wrapper, shape=None):
        """What `craft` is given of a model: its logits, through the `views`.

        Args:
            wrapper: `KerasModelWrapper` of the model attacked.
            shape: Shape of one image; with it, the network is traced once
                for all attacks. Defaults to `None`: wherever it is called.

        Returns:
            A `Seen`, or, from a subclass that needs more than a function
            from images to logits, what has that beside its `wrapper`, `key`
            and `fixed`.
        """
        return Seen(wrapper, self.views, shape)

    def with_views(self, views):
        """The same attack, looking through other views."""
        attack = copy.copy(self)
        attack.views = tuple(views)
        return attack

    @property
    def cache_key(self):
        """What attacks that share a compiled function have in common."""
        config = self.get_config()
        numbers = (name for view in self.views for name in view.numbers)
        for name in ("eps", "seed", *self.counts, *numbers):
            config.pop(name, None)
        return type(self), repr(config), self.functions()

    def get_counts(self):
        """The values of `counts`."""
        return tuple(getattr(self, name) for name in self.counts)

    def with_counts(self, values):
        """The same attack with other `counts`, which may be tensors."""
        attack = copy.copy(self)
        vars(attack).update(zip(self.counts, values))
        return attack

    def craft(self, logits_fn, x, labels, eps, seeds, targeted=False):
        """The attack as a tensor function, for use in a training step.

        Args:
            logits_fn: Function from images to logits: what is `seen`.
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


def _check_range(low, high):
    """Return the ends as floats or float32 arrays, or say what is wrong."""
    try:
        ends = tuple(_end(value) for value in (low, high))
        np.broadcast(*ends)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`clip_min` and `clip_max` must be numbers, or arrays of one shape "
            "that broadcast to one image. "
            f"Received: clip_min={low!r}, clip_max={high!r}"
        ) from error
    if not np.all(np.less(*ends)):
        raise ValueError(
            "`clip_min` must be below `clip_max`, for each feature. "
            f"Received: clip_min={low}, clip_max={high}"
        )
    return ends


def _end(value):
    if np.ndim(value) == 0:
        return float(value)
    value = np.array(value, "float32")
    value.flags.writeable = False
    return value


def _check_seed(seed):
    """Return the seed as an integer, or say what came."""
    limits = np.iinfo("int32")
    fine = isinstance(seed, (int, float, np.integer, np.floating))
    if not (fine and seed == seed // 1 and limits.min <= seed <= limits.max):
        raise ValueError(
            f"`seed` must be a whole number from {limits.min} to {limits.max} "
            f"(32 bits). Received: seed={seed!r}"
        )
    return int(seed)
