"""Metrics of which callbacks know that more is better."""

import keras
import tensorflow as tf
from keras.src.trainers.compile_utils import MetricsList


class Share(MetricsList):
    """Share of the images of which something holds; the more the better.

    Callbacks in mode `"auto"` ask the metrics in lists of metrics alone for
    their direction: so this is a list of itself, of a class that Keras does
    not export.
    """

    def __init__(self, name):
        super().__init__([keras.metrics.Accuracy(name)], name=name)

    def update_state(self, holds):
        """Count images, by a boolean of each."""
        self.metrics[0].update_state(tf.ones_like(holds), holds)

    def result(self):
        return self.metrics[0].result()
