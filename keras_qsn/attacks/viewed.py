"""An attack that looks at the model through a view."""

import copy

from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.views.base import View


class ViewedAttack(Attack):
    """Another attack, looking through one view more.

    Threat model, search and parameters are those of `attack`; what it looks
    at is what it looked at before, through `view`. So views compose:
    `EOT(BPDA(attack))` follows the mean, over draws, of the logits with a
    surrogate gradient. Success is judged on the model itself.

    Args:
        attack: The attack, such as `ProjectedGradientDescent(eps=0.3)`.
        view: A `View`.

    Raises:
        TypeError: If `attack` is not an attack, or `view` not a view.

    Example:

    >>> attack = ViewedAttack(FastGradientMethod(eps=0.1), LowPrecision())
    >>> ViewedAttack.from_config(attack.get_config()).attack.eps
    0.1

    Limitations:
        A view may help one attack and mislead another: take the worst case.
    """

    def __init__(self, attack, view):
        if not isinstance(attack, Attack):
            raise TypeError(
                "`attack` must be an attack, such as "
                "`ProjectedGradientDescent(eps=0.3)`. "
                f"Received: attack={attack!r}"
            )
        if not isinstance(view, View):
            raise TypeError(f"`view` must be a `View`. Received: view={view!r}")
        self.norms = (attack.norm,)
        super().__init__(
            attack.eps,
            attack.norm,
            attack.clip_min,
            attack.clip_max,
            attack.seed,
        )
        self.attack = attack
        self.view = view
        self.views = (view, *attack.views)
        # Another model's gradient is none to judge this one by.
        self.follows = None if self.threat == "transfer" else attack.follows

    @property
    def threat(self):
        """That of the view; but who does not know the model, does not."""
        if self.attack.threat == "transfer":
            return "transfer"
        return self.view.threat or self.attack.threat

    @property
    def counts(self):
        return self.attack.counts

    def get_counts(self):
        return self.attack.get_counts()

    def with_counts(self, values):
        attack = copy.copy(self)
        attack.attack = self.attack.with_counts(values)
        return attack

    def with_views(self, views):
        return self.attack.with_views(views)

    def seen(self, wrapper, shape=None):
        return self.with_views(self.views).seen(wrapper, shape)

    def attacked(self, wrapper, targeted, *arguments):
        inside = self.with_views(self.views)
        return inside.attacked(wrapper, targeted, *arguments)

    def _perturb(self, *args):
        return self.attack._perturb(*args)
