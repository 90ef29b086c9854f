"""Transfer: examples crafted on one model and judged on another."""

import tensorflow as tf

from keras_qsn.attacks.wrapped import WrappedAttack
from keras_qsn.classifier.wrapper import KerasModelWrapper


class TransferAttack(WrappedAttack):
    """Transfer: examples crafted on `source`, judged on the model attacked.

    `run(model, x, y)` gives `model` the images that `attack` finds on
    `source`. Radius, norm, pixel range and seed are those of `attack`;
    without `y`, the labels are the predictions of `model`. Success is
    success on `model`, whatever `source` makes of the image.

    With an attack that has no ball (`CarliniWagnerL2`, `DeepFool`,
    `SaliencyMapMethod`), an image that does not fool `model` comes back
    unchanged, as a failure, though it may fool `source`: a distance is that
    of a success. `attack.generate(source, x, y)` has what `source` is fooled
    by.

    Args:
        attack: An `Attack`, not itself a `TransferAttack`.
        source: Keras classifier, or a `KerasModelWrapper` around one, of the
            same images and classes as the model attacked.

    Raises:
        TypeError: If `attack` is not such an attack, or `source` not a model.
        ValueError: If images or classes of the two models differ.

    Example:

    >>> source = cleverhans_cnn(seed=1)
    >>> attack = TransferAttack(FastGradientMethod(eps=0.3), source)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> x_adv = attack.generate(cleverhans_cnn(seed=0), x, [3, 4])
    >>> np.array_equal(x_adv, attack.attack.generate(source, x, [3, 4]))
    True

    Limitations:
        Shows what an attacker can do without the model's gradients, and so
        whether those hide something: a model that transfer breaks and the
        same attack of its own does not has masked gradients. A model that it
        does not break is not robust; another source may.

    Reference:
        - Papernot et al., 2016: https://arxiv.org/abs/1605.07277
    """

    threat = "transfer"
    _any_view = True

    def __init__(self, attack, source):
        if isinstance(attack, TransferAttack):
            raise TypeError(
                "`attack` must not be a `TransferAttack` itself. "
                f"Received: attack={attack!r}"
            )
        super().__init__(attack)
        # It is the source's gradient that the attack follows.
        self.follows = None
        self.source = KerasModelWrapper.of(source)

    def get_config(self):
        """The attack, and the source's name: a config holds no model.

        `from_config(config, source=model)` takes the caller's word that
        `model` is the one meant.
        """
        return {**super().get_config(), "source": self.source.model.name}

    @classmethod
    def from_config(cls, config, source):
        """The attack that `get_config` describes, from the model `source`."""
        return super().from_config(config, source=source)

    def view(self, wrapper):
        taken, given = self.source.input_shape, wrapper.input_shape
        if not tf.TensorShape(taken).is_compatible_with(given):
            raise ValueError(
                "`source` must take the images of the model attacked, of shape "
                f"{tuple(given)}. Received: a source for shape {tuple(taken)}"
            )
        known, wanted = self.source.num_classes, wrapper.num_classes
        if known != wanted:
            raise ValueError(
                "`source` must have the classes of the model attacked, "
                f"{wanted}. Received: a source of {known} classes"
            )
        return self.attack.view(self.source)

    def attacked(self, wrapper, targeted, *arguments):
        self.view(wrapper)
        return self.attack.attacked(self.source, targeted, *arguments)
