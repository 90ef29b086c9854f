"""What an attack has at hand: images, money, a copy to teach."""

import numpy as np

from keras_qsn.classifier.inputs import check_images


class Thief:
    """An extraction at work, as an attack's `_steal` is given it.

    Attributes:
        copy: The copy's `KerasModelWrapper`.
        teaching: The `Teaching` of the copy.
        images: The images given to the attack, float32; `None` if there are
            none.
        labels: Their classes, where they were given; else `None`.
        untaken: Numbers of the images that no attack has taken yet, in an
            order drawn by the seed.
        rng: The attack's `np.random.Generator`.
        curve: A list of `(queries, agreement)`, one for each `measure`.
        asked: How many images were answered.
    """

    def __init__(
        self, attack, ledger, copy, teaching, images, labels, agreement, show
    ):
        self.copy = copy
        self.teaching = teaching
        self.images = images
        self.labels = labels
        self.rng = np.random.default_rng(attack.seed)
        self.curve = []
        self.asked = 0
        count = 0 if images is None else len(images)
        self.untaken = np.random.default_rng(attack.seed).permutation(count)
        self._attack = attack
        self._ledger = ledger
        self._agreement = agreement
        self._show = show
        self._found = []

    @property
    def num_classes(self):
        return self.copy.num_classes

    @property
    def left(self):
        """Images that the budget still allows for."""
        return self._ledger.left

    @property
    def queries(self):
        """Images sent so far."""
        return self._ledger.queries

    @property
    def x(self):
        """All images that were asked about and kept."""
        return self._joined(0, self.copy.input_shape)

    @property
    def answers(self):
        """Their answers, of shape `(images, classes)`, rows that sum to 1."""
        return self._joined(1, (self.num_classes,))

    def draw(self, count):
        """So many of the images given, drawn at random, none of them twice."""
        return self.take(self.untaken[:count])

    def take(self, numbers):
        """Images of these numbers, which are `untaken` no longer."""
        self.untaken = self.untaken[~np.isin(self.untaken, numbers)]
        return self.images[numbers]

    def ask(self, x, keep=True):
        """What the victim says of images, of as many as can be paid.

        Args:
            x: Array of images in the attack's range.
            keep: Whether they are among `x` and `answers` from now on. Of
                millions, not all fit into memory.

        Returns:
            Images and answers, fewer than were given where the budget ends.
            Take these images on, not those given: in a run that goes on after
            a kill they are those that were paid for.

        Raises:
            QueryError: If an image stays without an answer.
        """
        attack = self._attack
        x = check_images(x, attack.clip_min, attack.clip_max, self.copy)
        found = self._ledger.ask(
            x, lambda n: self._show("asking", n, attack.budget)
        )
        self.asked += len(found[0])
        if keep:
            self._found.append(found)
        return found

    def recall(self, count):
        """Images asked about and kept, drawn with replacement, and answers;
        of none if none was kept."""
        if not self._found:
            return self.x, self.answers
        ends = np.cumsum([len(x) for x, _ in self._found])
        places = self.rng.integers(ends[-1], size=count)
        batches = np.searchsorted(ends, places, "right")
        rows = places - ends[batches]
        return tuple(
            np.stack([self._found[b][part][r] for b, r in zip(batches, rows)])
            for part in (0, 1)
        )

    def teach(self):
        """Train the copy, from the weights it came with, on all answers."""
        epochs, count = self._attack.epochs, sum(len(x) for x, _ in self._found)
        self.teaching.restart()
        self.teaching.fit(
            self.x,
            self.answers,
            epochs,
            lambda n: self._show(f"teaching {count:,} answers", n, epochs),
        )

    def measure(self):
        """Put the copy's agreement with the victim into `curve`."""
        self.curve.append((self.queries, self._agreement()))

    def _joined(self, part, shape):
        parts = [found[part] for found in self._found]
        return np.concatenate([np.zeros((0, *shape), "float32"), *parts])
