"""What the checks look through: a few images, and ways to try things."""

import functools

import numpy as np
import tensorflow as tf

from keras_qsn import attacks
from keras_qsn.attacks import norms
from keras_qsn.attacks.running import compiled_gradient
from keras_qsn.attacks.threats import THREATS
from keras_qsn.classifier.compiled import compiled_logits
from keras_qsn.evaluation.checks.crafting import SharedView
from keras_qsn.evaluation.checks.crafting import crafted
from keras_qsn.evaluation.facts import open_model
from keras_qsn.evaluation.judge import Judge
from keras_qsn.evaluation.outcomes import Outcome
from keras_qsn.evaluation.outcomes import Step
from keras_qsn.evaluation.sight import AS_IT_IS

# Of the draws of random models: those of the checks.
_CHECKS = 1_000_000


class Probe:
    """A model, and the first of the images it gets right.

    Every image that any trial within the threat model breaks is kept in
    `broken`, so that checks count in the worst case like attacks; `used` names
    what was tried since it was last emptied.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        evaluation: The `Evaluation` so far.
        threat: The `ThreatModel`.
        facts: The `ModelFacts`.
        budget: The plan's `Budget`.
        certified: Optional booleans: the images proved robust.
        mode: Which checks are made, `"all"` or `"light"`. Defaults to
            `"all"`.
        sight: The `Sight`. Defaults to one of the model as it is.
        judge: The `Judge`. Defaults to `None`: the model's one answer.
    """

    def __init__(
        self,
        wrapper,
        evaluation,
        threat,
        facts,
        budget,
        certified=None,
        mode="all",
        sight=AS_IT_IS,
        judge=None,
    ):
        self.wrapper = wrapper
        self.evaluation = evaluation
        self.threat = threat
        self.facts = facts
        self.budget = budget
        self.certified = certified
        self.mode = mode
        self.sight = sight
        self.seen = sight.seen(wrapper)
        self.batch_size = evaluation.settings.get("batch_size", 128)
        self.judge = judge or Judge(wrapper, 0, threat.seed, self.batch_size)
        self._judged = 0
        self.numbers = np.flatnonzero(evaluation.correct)[: budget.images]
        self.x = evaluation.x[self.numbers]
        self.y = evaluation.y[self.numbers]
        self.robust = evaluation.robust[self.numbers]
        self.broken = {threat: {} for threat in THREATS}
        self.tried = {threat: set() for threat in THREATS}
        self.used = []
        self.curve = {}
        self.trace = {}

    @functools.cached_property
    def opened(self):
        """The model opened at its quantizer; `None` if it cannot be."""
        return (
            open_model(self.wrapper, self.threat) if self.facts.opened else None
        )

    def sees(self, x):
        """The images as the network behind the quantizer sees them."""
        if self.opened is None:
            return x
        return self.forward("seen", self.opened.quantize, x)

    def survives(self, attack, rows=slice(None), eps=None):
        """Which images an attack leaves, boolean; each from the start it has
        among all. `eps` is the radius of an attack without one of its own."""
        index = np.arange(len(self.numbers))[rows]
        return ~self.fools(attack, self.numbers[rows], index, eps)

    def fools(self, attack, numbers, index=None, eps=None):
        """Which images of the evaluation an attack breaks, boolean."""
        self.note(attack)
        x, y = self.evaluation.x[numbers], self.evaluation.y[numbers]
        x_adv = self._attacked(attack, x, y, index)
        fooled = self.fooled(x_adv, y)
        if attack.eps is None:
            radius = self.threat.eps if eps is None else eps
            fooled &= norms.inside(x, x_adv, radius, self.threat.norm)
        self.keep(attack.threat, numbers, x_adv, fooled)
        return fooled

    def _attacked(self, attack, x, y, index):
        attack = self.sight.look(attack)
        seen = attack.seen(self.wrapper)
        if not seen.fixed:
            # What is more than one function is compiled with the attack.
            result = attack.run(
                self.wrapper, x, y, batch_size=self.batch_size, verbose=0
            )
            return result.x_adv
        logits_fn = SharedView(seen.wrapper, x.shape[1:], seen.key, seen)
        batches = self.batches(len(x))
        return crafted(attack, lambda: logits_fn, x, y, batches, index=index)

    def note(self, used):
        """Remember what a check attacked with: an attack, or text."""
        if isinstance(used, attacks.Attack):
            used = _in_words(used)
        if used not in self.used:
            self.used.append(used)

    def keep(self, threat, numbers, x_adv, fooled):
        """Remember what breaks an image, and who it was."""
        self.tried[threat].update(map(int, numbers))
        x, t = self.evaluation.x[numbers], self.threat
        inside = norms.inside(x, x_adv, t.eps, t.norm, t.clip_min, t.clip_max)
        for i in np.flatnonzero(fooled & inside):
            self.broken[threat].setdefault(int(numbers[i]), x_adv[i])

    def outcomes(self):
        """What was broken beyond the plan's attacks, by whom: white-box
        attackers first, since they tried what the others tried."""
        left, outcomes = self.evaluation.robust, []
        for threat in THREATS:
            by_number = self.broken[threat]
            tried = [n for n in sorted(self.tried[threat]) if left[n]]
            broken = np.array([n for n in tried if n in by_number], "int64")
            if not len(broken):
                continue
            left[broken] = False
            step = Step(f"checks: {threat}", threat, None)
            x_adv = np.stack([by_number[n] for n in broken])
            outcomes.append(
                Outcome(
                    step,
                    np.array(tried),
                    broken,
                    x_adv,
                    self.judge.others(
                        x_adv, self.evaluation.y[broken], (_CHECKS, 0)
                    ),
                    0,
                    0.0,
                )
            )
        return outcomes

    def strongest(self, eps):
        """The best attack for its price, at another radius."""
        threat = self.threat.at(eps)
        if self.opened is not None and threat.norm == np.inf:
            return threat.attack(attacks.CubeAttack, nb_iter=20, nb_restarts=2)
        # Where nothing can move, one step is all of them.
        nb_iter = self.budget.nb_iter if eps else 1
        if threat.norm == 0 and eps > nb_iter / 2:
            # FMN's number of pixels may grow by one a step only.
            descent = threat.attack(attacks.SigmaZero, nb_iter=nb_iter)
        else:
            descent = self._descent(threat, nb_iter)
        return self.sight.unmasked(descent)

    def descent(self, nb_iter, **kwargs):
        """PGD within the threat model, or what stands for it: APGD in L1,
        FMN in L0, which has no radius and no restarts."""
        return self._descent(self.threat, nb_iter, **kwargs)

    def _descent(self, threat, nb_iter, **kwargs):
        kind = attacks.ProjectedGradientDescent
        if threat.norm == 0:
            kind = attacks.FastMinimumNorm
        else:
            kwargs["early_stop"] = not self.judge.is_random
        if threat.norm == 1:
            kind = attacks.AutoProjectedGradientDescent
        return threat.attack(kind, nb_iter=nb_iter, **kwargs)

    def logits(self, x):
        """Logits as a NumPy array, a batch at a time."""
        return self.wrapper.logits(x, self.batch_size)

    def fooled(self, x, y):
        """Which images the model gets wrong, boolean."""
        return self.right(x, y) < 0.5

    def right(self, x, y):
        """The share of right answers to each image, over draws of their own
        where the model answers at random."""
        self._judged += 1
        return self.judge.right(x, y, (_CHECKS, self._judged))

    @functools.cached_property
    def repeats(self):
        """Whether the same look at the same images shows the same."""
        first, again = (
            self.forward(self.seen.key, self.seen, self.x) for _ in range(2)
        )
        return bool(np.allclose(first, again, rtol=1e-4, atol=1e-6))

    @property
    def slack(self):
        """What chance may move a share of the images by: of those near one
        half one, where answers are counted."""
        return self.judge.is_random / max(len(self.numbers), 1)

    def forward(self, key, view, x):
        """What a view of the model makes of the images, a NumPy array.

        `key` is hashable, and the same for the same view.
        """
        wrapper = self.seen.wrapper
        function = compiled_logits(wrapper, x.shape[1:], key, view)
        return np.concatenate(
            [function(tf.constant(x[b])) for b in self.batches(len(x))]
        )

    def gradient(self, x, y, of_margin=False, view=None):
        """Gradient at the images, and logits, NumPy arrays.

        Of the cross-entropy, or of the margin; of what attacks see of the
        model, or of another `Seen`.
        """
        seen = view or self.seen
        function = compiled_gradient(seen.wrapper, x.shape[1:], seen.key, seen)
        parts = [
            function(
                tf.constant(x[b]),
                tf.constant(y[b], tf.int32),
                tf.constant(of_margin),
            )
            for b in self.batches(len(x))
        ]
        return tuple(np.concatenate(values) for values in zip(*parts))

    def batches(self, count):
        """Slices of so many images, of bounded size."""
        size = self.batch_size
        return [slice(i, i + size) for i in range(0, count, size)]


def _in_words(attack):
    """The attack and its effort."""
    effort = zip(attack.counts, attack.get_counts())
    arguments = ", ".join(f"{name}={count}" for name, count in effort)
    through = ""
    if isinstance(attack, attacks.ViewedAttack):
        through = f" through {type(attack.view).__name__}"
        attack = attack.attack
    name = type(attack).__name__
    return f"{name}({arguments}){through}" if arguments else name + through
