"""What is known of a model before any attack: what a plan follows from."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_qsn.attacks.running import compiled_gradient
from keras_qsn.classifier.opened import OpenedModel

# Images whose gradient is looked at.
_FEW = 16


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """What decides which attacks make sense on a model.

    Args:
        num_classes: Number of classes.
        shape: Shape of one image.
        quantized: Whether there are quantization layers.
        opened: Whether the first of them can be opened: it maps each pixel of
            the image by itself.
        random: Whether its answers depend on chance.
        gradient_cut: `None`, or where the gradient with respect to the image
            ends, as text.
        answers_only: Whether nothing of it is known but its answers.
        masks: Names of the layers that hide their gradient, quantization
            layers aside.
    """

    num_classes: int
    shape: tuple
    quantized: bool = False
    opened: bool = False
    random: bool = False
    gradient_cut: str | None = None
    answers_only: bool = False
    masks: tuple = ()

    @classmethod
    def of(cls, wrapper, shape, threat):
        """The facts of a model in its wrapper, for images of this shape."""
        return cls(
            wrapper.num_classes,
            tuple(shape),
            bool(wrapper.quantizers),
            open_model(wrapper, threat) is not None,
            wrapper.is_random(shape),
            wrapper.gradient_cut(shape),
            wrapper.answers_only,
        )

    def with_masks(self, wrapper, x, classes, masks):
        """The same with the layers that hide their gradient.

        Where it is zero at each of the first images, it ends at the layers.
        """
        cut = self.gradient_cut
        if masks and not cut:
            few = slice(_FEW)
            gradient, _ = compiled_gradient(wrapper, self.shape)(
                tf.constant(x[few]),
                tf.constant(classes[few], tf.int32),
                tf.constant(True),
            )
            if not np.any(gradient):
                cut = f"{' and '.join(masks)}, with a gradient of zero"
        return dataclasses.replace(self, masks=masks, gradient_cut=cut)

    @property
    def is_image(self):
        """Whether what is classified has rows, columns and channels."""
        return len(self.shape) == 3


def open_model(wrapper, threat):
    """The model opened at its quantizer; `None` if it cannot be."""
    if not wrapper.quantizers:
        return None
    try:
        return OpenedModel(wrapper, threat.clip_min, threat.clip_max)
    except ValueError:
        return None
