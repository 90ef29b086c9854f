"""What the checks look through: a few images, and ways to try things."""

import functools
import warnings

import numpy as np
import tensorflow as tf

from keras_qsn import attacks
from keras_qsn.attacks import norms
from keras_qsn.attacks.quantizers import OpenedModel
from keras_qsn.evaluation.plans import is_quantized

# Rounding of a norm in float32.
_SLACK = 1 + 1e-6


class Probe:
    """A model, and the first of the images it gets right.

    Every image that any trial within the threat model breaks is kept in
    `found`, so that checks count in the worst case like attacks.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        evaluation: The `Evaluation` so far.
        threat: The `ThreatModel`.
        budget: The plan's `Budget`.
    """

    def __init__(self, wrapper, evaluation, threat, budget):
        self.wrapper = wrapper
        self.evaluation = evaluation
        self.threat = threat
        self.budget = budget
        self.numbers = np.flatnonzero(evaluation.correct)[: budget.images]
        self.x = evaluation.x[self.numbers]
        self.y = evaluation.y[self.numbers]
        self.robust = evaluation.robust[self.numbers]
        self.found = {}
        self.curve = {}
        self.trace = {}

    @property
    def quantized(self):
        """Whether the model has a quantization layer."""
        return is_quantized(self.wrapper.model)

    @functools.cached_property
    def opened(self):
        """The model opened at its quantizer; `None` if it cannot be."""
        if not self.quantized:
            return None
        try:
            return OpenedModel(
                self.wrapper, self.threat.clip_min, self.threat.clip_max
            )
        except ValueError:
            return None

    def sees(self, x):
        """The images as the network behind the quantizer sees them."""
        return x if self.opened is None else np.asarray(self.opened.quantize(x))

    def survives(self, attack, rows=slice(None)):
        """Which images an attack leaves, boolean."""
        result = self.run(attack, self.wrapper, self.x[rows], self.y[rows])
        self.keep(self.numbers[rows], result.x_adv, result.success)
        return ~result.success

    @staticmethod
    def run(attack, model, x, y):
        """The result of an attack on any model."""
        with warnings.catch_warnings():
            # Blind images are the subject of a check of their own.
            warnings.filterwarnings("ignore", ".*found a gradient of zero")
            return attack.run(model, x, y, verbose=0)

    def keep(self, numbers, x_adv, success):
        """Remember what breaks an image within the threat model."""
        x = self.evaluation.x[numbers]
        size = norms.size(tf.constant(x_adv - x), self.threat.norm).numpy()
        inside = size <= self.threat.eps * _SLACK
        wrong = self.predict(x_adv) != self.evaluation.y[numbers]
        for i in np.flatnonzero(success & inside & wrong):
            self.found.setdefault(int(numbers[i]), x_adv[i])

    def strongest(self, eps):
        """The best attack for its price, at another radius."""
        if self.opened is not None and self.threat.norm == np.inf:
            return self.threat.at(eps).attack(
                attacks.CubeAttack, nb_iter=20, nb_restarts=2
            )
        return self.threat.at(eps).attack(
            attacks.ProjectedGradientDescent,
            nb_iter=self.budget.nb_iter,
            early_stop=True,
        )

    def descent(self, nb_iter, **kwargs):
        """PGD within the threat model."""
        return self.threat.attack(
            attacks.ProjectedGradientDescent,
            nb_iter=nb_iter,
            early_stop=True,
            **kwargs,
        )

    def logits(self, x):
        """Logits as a NumPy array, a batch at a time."""
        return np.concatenate(
            [
                np.asarray(self.wrapper.get_logits(x[start : start + 128]))
                for start in range(0, len(x), 128)
            ]
        )

    def predict(self, x):
        """Classes, one for each image."""
        if not len(x):
            return np.zeros(0, "int32")
        return self.logits(x).argmax(-1)
