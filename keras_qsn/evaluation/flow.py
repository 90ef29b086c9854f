"""The way of the images through the steps of a plan, batch by batch."""

import numpy as np

from keras_qsn.evaluation.outcomes import Outcome
from keras_qsn.evaluation.store import drop_parts
from keras_qsn.evaluation.store import keep_outcome
from keras_qsn.evaluation.store import kept_outcome


class Flow:
    """Which batches can run now, given what is known of others.

    A step tries, in order, what the steps before it left. So a batch of it
    is known as soon as they are done with the first images, and does not
    depend on what happens to end first.

    Args:
        steps: The `Step`s.
        numbers: Numbers of the images that the first one tries.
        count: How many images there are.
        batch_size: Images of a batch; the last of a step may have fewer.
        folder: `Folder` that keeps what is finished.

    Attributes:
        stages: A `Stage` for each step.
        least: Of a model that answers at random, the share of right answers
            at the worst image found so far of each one; else ones.
    """

    def __init__(self, steps, numbers, count, batch_size, folder):
        self.stages = [
            Stage(number, step, batch_size, folder)
            for number, step in enumerate(steps)
        ]
        self.least = np.ones(count)
        for stage in self.stages:
            for part in stage.parts.values():
                self.least[part.hurt] = part.right
        self.stages[0].offer(numbers, True)
        self._pass_on(0)

    def batch(self, ahead=False):
        """The next batch to run: its stage, the place of its first image
        among those that the stage tries, and the images' numbers; or `None`.

        What the folder holds is taken.

        Args:
            ahead: Whether, of two, it is that of the later step: a long one
                of few images then does not run alone in the end. Defaults to
                `False`: that of the earlier step.
        """
        for stage in reversed(self.stages) if ahead else self.stages:
            while (batch := stage.batch()) is not None:
                part = stage.kept(batch[0])
                if part is None:
                    return stage, *batch
                self.take(stage, batch[0], part)
        return None

    def take(self, stage, first, part):
        """Hand in the `Outcome` of a batch."""
        stage.parts[first] = part
        self.least[part.hurt] = part.right
        self._pass_on(stage.number)

    def _pass_on(self, number):
        stages = self.stages[number:]
        for stage, after in zip(stages, stages[1:]):
            after.offer(stage.unbroken(), stage.complete)
        stages[-1].unbroken()


class Stage:
    """One step of a plan, and how far it is.

    Attributes:
        number: Its place in the plan.
        step: The `Step`.
        parts: The `Outcome` of each finished batch, by the place of its first
            image among those tried.
        complete: Whether nothing is left to try.
    """

    def __init__(self, number, step, batch_size, folder):
        self.number = number
        self.step = step
        self.parts = {}
        self._batch_size = batch_size
        self._folder = folder
        self._offered = []
        self._all_offered = False
        self._limit = np.inf if step.max_images is None else step.max_images
        self._started = self._passed = 0
        self._whole = kept_outcome(folder, number, step)
        if self._whole is not None:
            self._started = np.inf
            if len(self._whole.tried):
                self.parts[0] = self._whole

    def offer(self, numbers, last):
        """More images to try, in order, and whether they are the last."""
        self._offered.extend(numbers)
        self._all_offered = last

    @property
    def complete(self):
        return self._all_offered and self._passed == len(self._offered)

    @property
    def progress(self):
        """How many images have been tried, of how many known so far."""
        done = sum(len(part.tried) for part in self.parts.values())
        return done, min(len(self._offered), self._limit)

    def batch(self):
        """The next batch, as that of `Flow`; `None` while it may grow."""
        known = min(len(self._offered), self._limit)
        first, end = self._started, min(self._started + self._batch_size, known)
        last = self._all_offered or known == self._limit
        if end <= first or not (last or end == first + self._batch_size):
            return None
        self._started = end
        return first, np.array(self._offered[first:end])

    def unbroken(self):
        """Images that the step is done with and left, since last asked."""
        numbers = []
        while (part := self.parts.get(self._passed)) is not None:
            numbers.extend(part.tried[~np.isin(part.tried, part.broken)])
            self._passed += len(part.tried)
        if self._passed >= self._limit:
            numbers.extend(self._offered[self._passed :])
            self._passed = len(self._offered)
        return numbers

    def outcome(self, nothing):
        """The `Outcome` of the whole step; `nothing` is no image."""
        if self._whole is not None:
            return self._whole
        parts = [part for _, part in sorted(self.parts.items())]
        none = np.zeros(0, "int64")
        return Outcome(
            self.step,
            np.concatenate([none, *(part.tried for part in parts)]),
            np.concatenate([none, *(part.broken for part in parts)]),
            np.concatenate([nothing, *(part.x_adv for part in parts)]),
            np.concatenate([none, *(part.became for part in parts)]),
            sum(part.blind for part in parts),
            sum(part.seconds for part in parts),
            np.concatenate([none, *(part.hurt for part in parts)]),
            np.concatenate([nothing, *(part.x_hurt for part in parts)]),
            np.concatenate([none, *(part.right for part in parts)]),
        )

    def kept(self, first):
        """The kept `Outcome` of a batch, or `None`."""
        return kept_outcome(self._folder, self._name(first), self.step)

    def keep(self, first):
        """Keep the `Outcome` of a batch."""
        keep_outcome(self._folder, self._name(first), self.parts[first])

    def keep_whole(self, outcome):
        """Keep the whole, in place of its batches."""
        if self._whole is None:
            keep_outcome(self._folder, self.number, outcome)
            drop_parts(self._folder, self.number)

    def _name(self, first):
        return f"{self.number}-from-{first}"
