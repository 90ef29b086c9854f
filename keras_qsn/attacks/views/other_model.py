"""Another model in place of the one attacked."""

import tensorflow as tf

from keras_qsn.attacks.views.base import View
from keras_qsn.classifier.wrapper import KerasModelWrapper


class OtherModel(View):
    """The logits of another model.

    Args:
        source: Keras classifier, or a `KerasModelWrapper` around one, of the
            same images and classes as the model attacked.
    """

    threat = "transfer"
    # Functions are kept for the model that they are of.
    key = None

    def __init__(self, source):
        self.source = KerasModelWrapper.of(source)

    def get_config(self):
        """The source's name: a config holds no model."""
        return {"source": self.source.model.name}

    def see(self, logits_fn, wrapper):
        return logits_fn

    def model(self, wrapper):
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
        return self.source
