"""KnockoffNets: a copy taught the answers to images of any origin."""

import numpy as np

from keras_qsn.extraction.bandit import GradientBandit
from keras_qsn.extraction.bandit import Rewards
from keras_qsn.extraction.base import ExtractionAttack

SAMPLINGS = ("random", "adaptive")
REWARDS = ("certainty", "diversity", "loss", "all")


class KnockoffNets(ExtractionAttack):
    """KnockoffNets: images drawn, each asked about once.

    With `sampling="random"` all images are as likely. With `"adaptive"` a
    gradient bandit learns which of their classes pay: after each batch the
    copy takes a step, and a class gains by the reward `r` of its images above
    the mean `m` of all so far, for `pi` the softmax of `h` and `N_z` how often
    the class `z` was drawn:

        h_c <- h_c + (r - m) (1[c = z] - pi_c) / N_z

    Rewards are the victim's certainty (its two largest probabilities apart),
    diversity (`sum_k max(0, y_k - mean y_k)`) and the copy's cross-entropy
    before it has learnt the answer; `"all"` is the mean of the three, each
    less its mean and over its deviation so far. In the end the copy is taught
    all answers anew.

    Args:
        budget: As for `ExtractionAttack`.
        answers: As for `ExtractionAttack`.
        sampling: `"random"` or `"adaptive"`, which needs the classes of the
            images: `run(..., images=(x, y))`. Defaults to `"random"`.
        reward: `"certainty"`, `"diversity"`, `"loss"` or `"all"`. Defaults to
            `"all"`.
        **kwargs: As for `ExtractionAttack`. Of adaptive sampling, `batch_size`
            images are drawn between two steps, and `rounds` must be 1.

    Raises:
        ValueError: If an argument is out of range; or, from `run`, if there
            are no classes of images to choose from.

    Example:

    >>> x = np.random.default_rng(0).random((40, 28, 28, 1), "float32")
    >>> victim, copy = cleverhans_cnn(seed=0), substitute_mlp(seed=1)
    >>> attack = KnockoffNets(budget=30, epochs=1)
    >>> attack.run(victim, copy, x, x[30:], verbose=0).queries
    30

    Limitations:
        Copies the victim where the images are. The paper draws one image
        between two updates, here it is a batch; and no image twice.

    Reference:
        - Orekondy, Schiele and Fritz, CVPR 2019:
          https://arxiv.org/abs/1812.02766
    """

    def __init__(
        self,
        budget=10000,
        answers="soft",
        sampling="random",
        reward="all",
        **kwargs,
    ):
        super().__init__(budget, answers, **kwargs)
        for name, value, known in (
            ("sampling", sampling, SAMPLINGS),
            ("reward", reward, REWARDS),
        ):
            if value not in known:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(known)}. "
                    f"Received: {name}={value!r}"
                )
        self.sampling = sampling
        self.reward = reward
        if sampling == "adaptive" and self.rounds > 1:
            raise ValueError(
                "Adaptive sampling has no rounds: it learns from each batch. "
                f"Received: rounds={self.rounds}"
            )

    def _propose(self, thief, count):
        return thief.draw(count)

    def _steal(self, thief):
        if self.sampling == "random":
            super()._steal(thief)
            return
        if thief.labels is None:
            raise ValueError(
                "Adaptive sampling must be told the classes of the images: "
                "`images=(x, y)`. Received: images alone."
            )
        bandit = GradientBandit(thief.labels.max() + 1)
        rewards = Rewards(self.reward)
        while thief.left and len(thief.untaken):
            numbers = self._chosen(thief, bandit.probabilities)
            x, answers = thief.ask(thief.take(numbers))
            # What the victim answers to what was asked: a budget may end.
            drawn = thief.labels[numbers[: len(x)]]
            bandit.learn(drawn, rewards(answers, thief.copy.get_probs(x)))
            thief.teaching.step(x, answers)
        thief.teach()

    def _chosen(self, thief, policy):
        """Numbers of images: their classes drawn by the policy."""
        labels = thief.labels[thief.untaken]
        # Of all images of a class, each is as likely.
        weights = policy[labels] / np.bincount(labels)[labels]
        count = min(self.batch_size, thief.left, len(labels))
        return thief.rng.choice(
            thief.untaken, count, replace=False, p=weights / weights.sum()
        )
