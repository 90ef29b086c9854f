"""The model itself, as users run it: what a proof is about."""

import numpy as np
import tensorflow as tf

from keras_qsn.classifier.opened import OpenedModel

# Images put to the test at a time.
_TRIED = 16


class Deployed:
    """The float32 model, which decides what is right and what is broken.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.
        hard: Whether a hard quantizer is at its input.
        value_range: Smallest and largest pixel value.
        clock: `Clock` that stands while functions are built.
    """

    def __init__(self, wrapper, shape, hard, value_range, clock):
        spec = tf.TensorSpec([None, *shape], tf.float32)

        def compiled(function, count=1):
            return clock.built(
                lambda: tf.function(
                    function, autograph=False
                ).get_concrete_function(*[spec] * count)
            )

        self.logits = compiled(wrapper.get_logits)
        if hard:
            opened = OpenedModel(wrapper, *value_range)
            self.step = opened.step
            self._behind = compiled(opened.behind)
            self._invert = compiled(opened.invert, 4)

    def broken(self, label, x, low, high, levels):
        """An image of the ball that gets a wrong class, at one of the levels.

        Args:
            label: The right class.
            x: The image; `low` and `high` are the ends of its ball.
            levels: Candidates, shape `(candidates, *image)`.

        Returns:
            The image, or `None`.
        """
        if not len(levels):
            return None
        levels = tf.constant(levels, tf.float32)
        wrong = np.argmax(self._behind(levels), 1) != label
        if not wrong.any():
            return None
        # Of one number, so that nothing is compiled again for another.
        levels = np.resize(levels[wrong], [_TRIED, *x.shape])
        images = self._invert(
            tf.constant(levels),
            *(tf.repeat(t[None], _TRIED, 0) for t in (x, low, high)),
        )
        wrong = np.argmax(self.logits(images), 1) != label
        return images[wrong][0].numpy() if wrong.any() else None
