"""Which classes of images to ask about: a gradient bandit, and its rewards."""

import numpy as np
from scipy import special


class GradientBandit:
    """Learns which of so many actions pay.

    Args:
        actions: How many.
    """

    def __init__(self, actions):
        self._preferences = np.zeros(actions)
        self._counts = np.zeros(actions)
        self._mean = 0.0
        self._seen = 0

    @property
    def probabilities(self):
        """With which each action is to be drawn, all above 0."""
        return special.softmax(self._preferences)

    def learn(self, actions, rewards):
        """Prefer what was rewarded above the mean."""
        for action, reward in zip(actions, rewards):
            self._seen += 1
            self._mean += (reward - self._mean) / self._seen
            self._counts[action] += 1
            move = -self.probabilities
            move[action] += 1
            gain = (reward - self._mean) / self._counts[action]
            self._preferences += gain * move


class Rewards:
    """Of answers of a victim, and of a copy's, what they were worth.

    Args:
        kind: `"certainty"`, `"diversity"`, `"loss"` or `"all"`.
    """

    def __init__(self, kind):
        self._kind = kind
        self._answers = _Moments()
        self._rewards = _Moments()

    def __call__(self, answers, copied):
        """One reward for each image.

        Args:
            answers: The victim's probabilities, `(images, classes)`.
            copied: The copy's.
        """
        answers, copied = np.asarray(answers), np.asarray(copied)
        self._answers.add(answers)
        first, second = np.sort(answers, -1)[:, :-3:-1].T
        above = np.maximum(0, answers - self._answers.mean).sum(-1)
        loss = -(answers * np.log(np.maximum(copied, 1e-7))).sum(-1)
        kinds = {"certainty": first - second, "diversity": above, "loss": loss}
        if self._kind != "all":
            return kinds[self._kind]
        three = np.stack([*kinds.values()], -1)
        self._rewards.add(three)
        moved = three - self._rewards.mean
        return (moved / (self._rewards.deviation + 1e-7)).mean(-1)


class _Moments:
    """Mean and deviation of all rows so far."""

    def __init__(self):
        self._count = 0
        self._sums = self._squares = 0.0

    def add(self, rows):
        self._count += len(rows)
        self._sums = self._sums + rows.sum(0, dtype="float64")
        self._squares = self._squares + np.square(rows, dtype="float64").sum(0)

    @property
    def mean(self):
        return self._sums / self._count

    @property
    def deviation(self):
        variance = self._squares / self._count - self.mean**2
        return np.sqrt(np.maximum(variance, 0))
