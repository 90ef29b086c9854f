"""Copying without images: a generator finds where copy and victim differ."""

import numpy as np
import tensorflow as tf
from scipy import special

from keras_qsn.extraction.base import ExtractionAttack
from keras_qsn.extraction.generator import Generator

# Of a probability, before its logarithm is taken.
SMALLEST = 1e-12


class DataFreeExtraction(ExtractionAttack):
    """What attacks with a generator of their own images have in common.

    In turns, until the budget is spent:

        the generator  z ~ N(0, 1), s = G(z), x = image(tanh(s)); the loss L
                       between copy and victim grows along the estimate
                       g = d/m sum_i (L(s + mu u_i) - L(s)) / mu u_i
                       with random unit vectors u_i of d pixels
        the copy       steps that lower L on images of the generator

    Each of the `(m + 1) batch_size` images of an estimate is a query. What is
    left when no estimate can be paid goes into steps of the copy. Both
    networks are taught by Adam (ours).

    Args:
        budget: As for `ExtractionAttack`. Defaults to `1000000`.
        answers: As for `ExtractionAttack`.
        directions: Integer >= 1, `m`. Defaults to `1`.
        step: Float > 0, `mu`. Defaults to `0.001`.
        generator_steps: Integer >= 1, in a turn. Defaults to `1`.
        copy_steps: Integer >= 1, in a turn. Defaults to `5`.
        generator_learning_rate: Float > 0. Defaults to `0.0001`.
        latent_dim: Integer >= 1, length of `z`. Defaults to `256`.
        width: Integer >= 1, filters of the generator. Defaults to `64`.
        batch_size: Integer >= 2. Images in a step. Defaults to `256`.
        learning_rate: Float > 0. The copy's. Defaults to `0.001`.
        rounds: Integer >= 1. How often the copy is measured. Defaults to
            `10`.
        **kwargs: As for `ExtractionAttack`; `epochs` do not count.
    """

    needs_images = False
    # Whether the copy learns from the images of the generator's step, too.
    _reuses = False

    def __init__(
        self,
        budget=1000000,
        answers="soft",
        directions=1,
        step=0.001,
        generator_steps=1,
        copy_steps=5,
        generator_learning_rate=0.0001,
        latent_dim=256,
        width=64,
        batch_size=256,
        learning_rate=0.001,
        rounds=10,
        **kwargs,
    ):
        super().__init__(
            budget,
            answers,
            rounds,
            batch_size=batch_size,
            learning_rate=learning_rate,
            **kwargs,
        )
        # Of one image a batch has no statistics.
        self._keep_counts(2, batch_size=batch_size)
        self._keep_counts(
            directions=directions,
            generator_steps=generator_steps,
            copy_steps=copy_steps,
            latent_dim=latent_dim,
            width=width,
        )
        self._keep_positive(
            step=step, generator_learning_rate=generator_learning_rate
        )

    def _share(self, spent):
        """Share of the learning rates, at a share of the budget spent."""
        return 1.0

    def _replay(self, thief):
        """Steps of the copy on what was asked before."""

    def _steal(self, thief):
        generator = Generator(
            thief.copy.input_shape,
            self.latent_dim,
            self.width,
            self.generator_learning_rate,
            (self.clip_min, self.clip_max),
            thief.rng,
        )
        while thief.left:
            share = self._share(thief.queries / self.budget)
            generator.pace(share)
            thief.teaching.pace(share)
            found = None
            for _ in range(self.generator_steps):
                found = self._challenge(thief, generator)
            self._learn(thief, generator, found if self._reuses else None)
            self._replay(thief)
            part = self.budget * (len(thief.curve) + 1) / self.rounds
            if part <= thief.queries < self.budget:
                thief.measure()

    def _challenge(self, thief, generator):
        """Teach the generator images on which copy and victim differ more.

        Returns:
            Images that it had made, and their answers; `None` if the budget
            did not allow for them.
        """
        count, number = self.batch_size, self.directions
        if thief.left < count * (number + 1):
            return None
        z = generator.draw(count)
        made = generator.before_tanh(z)
        u = generator.directions(count, number)
        points = np.concatenate(
            [made[:, None], made[:, None] + np.float32(self.step) * u], 1
        )
        x = generator.images(points).reshape(-1, *made.shape[1:])
        x, answers = thief.ask(x, keep=False)
        if len(x) < count * (number + 1):
            return None
        losses = self._losses(thief.copy, x, answers).reshape(count, -1)
        slopes = (losses[:, 1:] - losses[:, :1]) / self.step
        slopes = slopes.reshape(count, number, *[1] * (made.ndim - 1))
        estimate = made[0].size * (slopes * u).mean(1)
        # The generator follows it upwards.
        generator.follow(z, (-estimate / count).astype("float32"))
        first = slice(None, None, number + 1)
        return x[first], answers[first]

    def _learn(self, thief, generator, found):
        """Teach the copy, by images paid for already and by others."""
        for i in range(self.copy_steps):
            if found is None:
                z = generator.draw(self.batch_size)
                x = generator.images(generator.before_tanh(z))
                # The last batch of each turn is kept.
                found = thief.ask(x, keep=i == self.copy_steps - 1)
            if not len(found[0]):
                return
            thief.teaching.step(*found)
            found = None

    def _losses(self, copy, x, answers):
        """`L` of each image."""
        log_p = special.log_softmax(copy.logits(x), -1)
        return self._loss(tf.constant(answers), tf.constant(log_p)).numpy()
