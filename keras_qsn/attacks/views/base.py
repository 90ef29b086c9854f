"""The contract of every view, and a model as an attack sees it."""

import copy

import tensorflow as tf

from keras_qsn._core.config import Configured
from keras_qsn.attacks import losses
from keras_qsn.classifier.compiled import compiled_logits


class View(Configured):
    """Base class of views: what an attack looks at in place of the logits.

    A view makes another function out of the one that an attack follows, from
    images to logits: `see`. Views compose, each put around those inside it,
    any attack takes any view, and searches know of none. Success is judged on
    the model itself.

    A view may look at another model altogether (`model`), or change in the
    course of a search (`at`). Where it needs another attacker than the attack
    does, `threat` names it, as for `Attack`. Its constructor's arguments are
    attributes of the same names, which `get_config` tells; those named in
    `numbers` may be scalar tensors, so that views which differ in them alone
    share a compiled function. `rounding` is the part of the largest logit by
    which what is seen may be off: attacks that stop early at a success go as
    far past the boundary.

    Example:

    >>> @keras.saving.register_keras_serializable("mine")
    ... class Blurred(View):
    ...     def __init__(self, size=3):
    ...         self.size = size
    ...
    ...     def see(self, logits_fn, wrapper):
    ...         blur = keras.layers.AveragePooling2D(self.size, 1, "same")
    ...         return lambda x: logits_fn(blur(x))
    >>> attack = ViewedAttack(FastGradientMethod(eps=0.3), Blurred(5))
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> attack.generate(cleverhans_cnn(seed=0), x, [3, 4]).shape
    (2, 28, 28, 1)

    Limitations:
        Attacks that open the quantizer (`CubeAttack`, `LevelFlipAttack`) look
        at the network behind it through the view, and at it as it is.
    """

    threat = None
    numbers = ()
    rounding = 0.0

    def see(self, logits_fn, wrapper):
        """What is seen of `logits_fn`: a function from images to logits.

        Args:
            logits_fn: Function from a batch of images to logits.
            wrapper: `KerasModelWrapper` of the model looked at.
        """
        raise TypeError(f"{type(self).__name__} does not implement `see`.")

    def model(self, wrapper):
        """The wrapper of the model to look at; as a rule the one attacked."""
        return wrapper

    def at(self, share):
        """The view when so much of the search is done, from 0 to 1."""
        return self

    @property
    def key(self):
        """Hashable; the same for views of the same model that see the same."""
        return type(self), repr(self.get_config()), self.functions()

    @property
    def shared_key(self):
        """The same also for views that differ in `numbers` alone."""
        if not self.numbers:
            return self.key
        config = self.get_config()
        others = {k: v for k, v in config.items() if k not in self.numbers}
        return type(self), self.numbers, repr(others), self.functions()

    def with_numbers(self, values):
        """The same view with other `numbers`, which may be tensors."""
        view = copy.copy(self)
        vars(view).update(zip(self.numbers, values))
        return view


class Seen:
    """A model as an attack sees it: a function from images to logits.

    Args:
        wrapper: `KerasModelWrapper` of the model attacked.
        views: What it is seen through, the outermost view first.
        shape: Shape of one image; with it, the network is traced once for
            all attacks. Defaults to `None`: traced wherever it is called.
    """

    def __init__(self, wrapper, views=(), shape=None):
        for view in views:
            wrapper = view.model(wrapper)
        self.wrapper = wrapper
        self._views = tuple(views)
        self._shape = shape
        self._look = self.through(wrapper.get_logits)

    def __call__(self, x):
        if self._shape is None or not self.fixed:
            return self._look(x)
        function = compiled_logits(
            *(self.wrapper, self._shape, self.shared_key, self.look),
            len(self.get_numbers()),
        )
        return function(x, *self.get_numbers())

    def look(self, x, *numbers):
        """What is seen, traced anew, with other `numbers` of the views."""
        seen = self.with_numbers(numbers) if numbers else self
        return seen._look(x)

    def get_numbers(self):
        """The `numbers` of all views, as scalar tensors."""
        return tuple(
            tf.convert_to_tensor(getattr(view, name), tf.float32)
            for view in self._views
            for name in view.numbers
        )

    def through(self, logits_fn):
        """Another function of the model, seen through the same views."""
        for view in reversed(self._views):
            logits_fn = view.see(logits_fn, self.wrapper)
        return logits_fn

    @property
    def fixed(self):
        """Whether it is the same function throughout a search."""
        return all(type(view).at is View.at for view in self._views)

    @property
    def key(self):
        """Hashable, the same for what is seen alike of the same model."""
        keys = tuple(view.key for view in self._views if view.key)
        return keys or "logits"

    @property
    def shared_key(self):
        """The same also for views that differ in their `numbers` alone."""
        keys = tuple(view.shared_key for view in self._views if view.key)
        return keys or "logits"

    @property
    def rounding(self):
        """Part of the largest logit by which logits may be off."""
        return max([losses.ROUNDING, *(v.rounding for v in self._views)])

    def at(self, share):
        """What is seen when so much of the search is done, from 0 to 1."""
        if self.fixed:
            return self
        views = [view.at(share) for view in self._views]
        return Seen(self.wrapper, views, self._shape)

    def with_numbers(self, values):
        """The same with other `numbers`, which may be tensors."""
        values = iter(values)
        views = [
            view.with_numbers([next(values) for _ in view.numbers])
            for view in self._views
        ]
        return Seen(self.wrapper, views, self._shape)
