"""Attacks made of another attack and another view of the model."""

import copy

from keras_qsn.attacks.base import Attack


class WrappedAttack(Attack):
    """Base class: threat model and search of `attack`, a view of its own.

    Args:
        attack: The attack inside.

    Raises:
        TypeError: If `attack` is none, or has a view of its own already.
    """

    # Whether the attack inside may have a view of its own.
    _any_view = False

    def __init__(self, attack):
        if not isinstance(attack, Attack) or not (
            self._any_view or type(attack).view is Attack.view
        ):
            raise TypeError(
                "`attack` must be an attack on the model's logits, such as "
                "`ProjectedGradientDescent(eps=0.3)`. "
                f"Received: attack={attack!r}"
            )
        self.norms = (attack.norm,)
        super().__init__(
            attack.eps,
            attack.norm,
            attack.clip_min,
            attack.clip_max,
            attack.seed,
        )
        self.attack = attack
        self.follows = attack.follows

    def get_config(self):
        return {
            "attack": {
                "class_name": type(self.attack).__name__,
                "config": self.attack.get_config(),
            }
        }

    @classmethod
    def from_config(cls, config, **models):
        """The attack that `get_config` describes.

        Args:
            config: What `get_config` returned; knows the attacks of this
                package.
            **models: Models that a config can only name, such as `source`.
        """
        from keras_qsn import attacks

        inside = config["attack"]
        attack = getattr(attacks, inside["class_name"])
        return cls(
            **{
                **config,
                "attack": attack.from_config(inside["config"]),
                **models,
            }
        )

    def _perturb(self, *args):
        return self.attack._perturb(*args)

    @property
    def counts(self):
        return self.attack.counts

    @property
    def threat(self):
        return self.attack.threat

    @property
    def cache_key(self):
        own = self.get_config()
        del own["attack"]
        return type(self), self.attack.cache_key, repr(own)

    def get_counts(self):
        return self.attack.get_counts()

    def with_counts(self, values):
        wrapped = copy.copy(self)
        wrapped.attack = self.attack.with_counts(values)
        return wrapped
