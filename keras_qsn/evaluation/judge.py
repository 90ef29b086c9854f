"""Whether a model is right: by its answer, or by many where it is random."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_qsn.attacks.views.expectation import drawn
from keras_qsn.classifier.compiled import compiled
from keras_qsn.classifier.compiled import images_spec
from keras_qsn.evaluation.answers import Answers

# Draws that tell a random model, and how far its logits then move.
_LOOKS = 8
_IMAGES = 32
_SAME = 1e-5
# Draws of a first look; and what follows where that was near one half.
_FEW = 20
_TURNS = (1, 4, 16)
# Draws of one call: their logits are held at once.
_TOGETHER = 50
# Of the sequences of draws: those after all attacks.
_LAST = 2_000_000


@dataclasses.dataclass(frozen=True)
class Chance:
    """How much a model's answers depend on chance.

    Attributes:
        spread: Standard deviation of a logit over draws, as a share of the
            largest logit.
        flips: Share of draws that answer another class than most do.
    """

    spread: float
    flips: float


class Judge:
    """Says which images a model gets wrong.

    Of a model that answers at random it counts right answers over fresh
    draws: an image is wrong if fewer than half are right.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        draws: Answers counted at an image; `0` for a model that always gives
            the same one.
        seed: Integer, decides the draws.
        batch_size: Images at once.
        chance: How much answers depend on it. Defaults to `None`: not at all.
        detector: Optional `Detector`: what it rejects is not wrong. Its scores
            are no matter of chance.
    """

    def __init__(
        self, wrapper, draws, seed, batch_size, chance=None, detector=None
    ):
        self.wrapper = wrapper
        self.draws = draws
        self.seed = seed
        self.batch_size = batch_size
        self.chance = chance
        self.detector = detector

    @classmethod
    def of(cls, wrapper, x, draws, seed, batch_size, detector=None):
        """The judge of a model: what chance does is seen on a few images."""
        x = x[:_IMAGES]
        if not wrapper.is_random(x.shape[1:]):
            # NumPy draws where no graph shows it.
            first, again = (wrapper.logits(x, batch_size) for _ in range(2))
            if np.abs(first - again).max() <= _SAME * np.abs(first).max():
                return cls(wrapper, 0, seed, batch_size, detector=detector)
        judge = cls(wrapper, draws, seed, batch_size, detector=detector)
        logits = judge._logits(x, judge._seeds(0, _LOOKS))
        spread = logits.std(0).max() / max(np.abs(logits).max(), 1e-12)
        votes = _votes(logits.argmax(-1), wrapper.num_classes)
        flips = 1 - votes.max(1).mean()
        judge.chance = Chance(float(spread), float(flips))
        return judge

    def answers(self, evaluation, folder):
        """The `Answers` to the images, and to the worst ones found; `None`
        if the model always gives the same. What a detector rejects of the
        images themselves gets no right one."""
        if not self.is_random:
            return None
        kept = folder.get("answers.npz")
        if kept is None:
            kept = {
                name: self.share(x, evaluation.y, (_LAST, stream))
                for stream, (name, x) in enumerate(
                    [("clean", evaluation.x), ("attacked", evaluation.x_adv)]
                )
            }
            if self.detector is not None:
                rejected = evaluation.detection.rejected
                kept = {k: np.where(rejected, 0, v) for k, v in kept.items()}
            folder.put("answers.npz", kept)
        return Answers(self.draws, **kept)

    @property
    def is_random(self):
        """Whether answers are counted."""
        return self.draws > 0

    @property
    def luck(self):
        """Three standard errors of a share of right answers near one half."""
        return 1.5 / np.sqrt(self.draws) if self.is_random else 0.0

    def right(self, x, y, stream=0):
        """The share of right answers to each image.

        Images near one half are looked at again, with draws of their own, so
        that none is wrong since it was tried often. No answer to an image that
        the detector rejects is a wrong one.

        Args:
            x: Images.
            y: Their classes.
            stream: Whole numbers: of which of many sequences the draws are.
        """
        share = self._right(x, np.asarray(y), stream)
        some = share < 1
        if self.detector is not None and some.any():
            some[some] = self.detector.detect(x[some])
            share[some] = 1.0
        return share

    def _right(self, x, y, stream):
        """The same, whatever a detector says."""
        if not self.is_random:
            wrong = self.wrapper.predict(x, self.batch_size) != y
            return 1.0 - wrong
        counts = [min(_FEW, self.draws), *(n * self.draws for n in _TURNS)]
        share, last = np.full(len(x), 0.5), 1
        for turn, count in enumerate(counts):
            # Three standard errors of the look before.
            near = np.flatnonzero(np.abs(share - 0.5) < 1.5 / np.sqrt(last))
            again = (*np.atleast_1d(stream), turn)
            share[near] = self.share(x[near], y[near], again, count)
            last = count
        return share

    def share(self, x, y, stream, draws=None):
        """The share of right answers over so many fresh draws."""
        votes = self._answers(x, stream, draws or self.draws)
        return (votes == np.asarray(y)).mean(0)

    def others(self, x, y, stream=0):
        """The class that each image gets, all of which are wrong: the one
        given most often beside `y`."""
        if not self.is_random:
            return self.wrapper.predict(x, self.batch_size)
        votes = _votes(
            self._answers(x, stream, self.draws), self.wrapper.num_classes
        )
        votes[np.arange(len(y)), y] = -1.0
        return votes.argmax(1)

    def classes(self, x, y, stream=0):
        """The class of each image: `y` if half of the answers are right, else
        the other one given most often."""
        if not self.is_random:
            return self.wrapper.predict(x, self.batch_size)
        answers = self._answers(x, stream, self.draws)
        votes = _votes(answers, self.wrapper.num_classes)
        own = self._right(x, np.asarray(y), stream) >= 0.5
        votes[np.arange(len(y)), y] = np.where(own, 2.0, -1.0)
        return votes.argmax(1).astype("int32")

    def _answers(self, x, stream, draws):
        """The classes of each draw, of shape `(draws, images)`."""
        if not len(x):
            return np.zeros((draws, 0), int)
        seeds = self._seeds(stream, draws)
        return np.concatenate(
            [
                self._logits(x, seeds[i : i + _TOGETHER]).argmax(-1)
                for i in range(0, draws, _TOGETHER)
            ]
        )

    def _seeds(self, stream, draws):
        # Of no attack: these begin with the seed itself.
        start = [self.seed % 2**32, 1, *np.atleast_1d(stream)]
        rng = np.random.default_rng(start)
        return rng.integers(2**31, size=(draws, 2)).astype("int32")

    def _logits(self, x, seeds):
        """The logits of draws, of shape `(draws, images, classes)`."""

        def run(images, seeds):
            def one(seed):
                look = drawn(self.wrapper.get_logits, self.wrapper, seed)
                return look(images)

            return tf.map_fn(
                one,
                seeds,
                fn_output_signature=tf.float32,
                parallel_iterations=1,
            )

        shape = x.shape[1:]
        function = compiled(
            self.wrapper,
            ("draws", shape),
            run,
            images_spec(shape),
            tf.TensorSpec([None, 2], tf.int32),
        )
        size = self.batch_size
        return np.concatenate(
            [
                function(tf.constant(x[i : i + size]), tf.constant(seeds))
                for i in range(0, len(x), size)
            ],
            1,
        )


def _votes(answers, num_classes):
    """Shares of the classes among the answers, `(images, classes)`."""
    return np.stack([(answers == c).mean(0) for c in range(num_classes)], 1)
