"""What the attacks of an evaluation look at a model through."""

import dataclasses

from keras_qsn.attacks.viewed import ViewedAttack
from keras_qsn.attacks.views.base import Seen
from keras_qsn.attacks.views.layer_surrogates import LayerSurrogates
from keras_qsn.attacks.views.low_precision import LowPrecision
from keras_qsn.attacks.views.surrogate import Surrogate
from keras_qsn.classifier.detector import Detector


@dataclasses.dataclass(frozen=True)
class Sight:
    """What attacks look at a model through, by what is known of it.

    Attributes:
        through: The `LayerSurrogates` of layers that hide their gradient;
            `None` if none does.
        views: What every attack looks through, the outermost view first.
        detector: The `Detector` beside the model; `None` if there is none.
        rounded: The `LowPrecision` that attacks which climb look through,
            too; `None` if they do not. What searches the boundary, or goes by
            small differences of scores, would end where rounding hides them.
    """

    through: LayerSurrogates | None = None
    views: tuple = ()
    detector: Detector | None = None
    rounded: LowPrecision | None = None

    @property
    def unmasks(self):
        """Whether there is a layer to put a surrogate through."""
        return self.through is not None

    def look(self, attack):
        """An attack that looks through the views."""
        own = {view.key for view in attack.views if view.key}
        for view in reversed(self._views_of(attack)):
            if view.key not in own:
                attack = ViewedAttack(attack, view)
        return attack

    def _views_of(self, attack):
        """Those of an attack, the outermost first."""
        search = attack
        while isinstance(search, ViewedAttack):
            search = search.attack
        if self.rounded is None or not search.climbs:
            return self.views
        return (*self.views, self.rounded)

    def seen(self, wrapper, *views):
        """What is seen of a model through the views, and others inside."""
        return Seen(wrapper, [*self.views, *views])

    def surrogates(self, facts):
        """Views with a gradient through all that hides it."""
        views = [self.through] if self.unmasks else []
        return [*views, Surrogate()] if facts.quantized else views

    def unmasked(self, attack):
        """An attack that follows the surrogates' gradient."""
        return ViewedAttack(attack, self.through) if self.unmasks else attack


# Of a model that needs nothing put before it.
AS_IT_IS = Sight()
