"""Transfer: examples crafted on one model and judged on another."""

from keras_qsn._core.config import plain
from keras_qsn.attacks.viewed import ViewedAttack
from keras_qsn.attacks.views.other_model import OtherModel


class TransferAttack(ViewedAttack):
    """Transfer: examples crafted on `source`, judged on the model attacked.

    `run(model, x, y)` gives `model` the images that `attack` finds on
    `source`. Radius, norm, pixel range and seed are those of `attack`;
    without `y`, the labels are the predictions of `model`. Success is
    success on `model`, whatever `source` makes of the image.

    With an attack that has no ball (`CarliniWagnerL2`, `DeepFool`,
    `SaliencyMapMethod`), an image that does not fool `model` comes back
    unchanged, as a failure, though it may fool `source`: a distance is that
    of a success. `attack.generate(source, x, y)` has what `source` is fooled
    by.

    Multi-step attacks find what fools the source alone. Adversaries of many
    steps that transfer come of momentum, of views that keep an attack from
    fitting its source (`InputDiversity`, `ScaleInvariance`,
    `TranslationInvariance`), and of several sources at once
    (`models.ensemble`); `evaluation.transfer_matrix` measures it.

    Args:
        attack: An `Attack` that no `TransferAttack` is part of.
        source: Keras classifier, or a `KerasModelWrapper` around one, of the
            same images and classes as the model attacked.

    Raises:
        TypeError: If `attack` is not such an attack, or `source` not a model.
        ValueError: If images or classes of the two models differ, or only the
            answers of `source` are known and `attack` needs more.

    Example:

    >>> source = cleverhans_cnn(seed=1)
    >>> attack = TransferAttack(FastGradientMethod(eps=0.3), source)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> x_adv = attack.generate(cleverhans_cnn(seed=0), x, [3, 4])
    >>> np.array_equal(x_adv, attack.attack.generate(source, x, [3, 4]))
    True
    >>> strong = MomentumIterativeMethod(0.3, eps_iter=0.03, nb_iter=10)
    >>> strong = ViewedAttack(strong, InputDiversity())
    >>> strong = ViewedAttack(strong, TranslationInvariance(5))
    >>> sources = ensemble([cleverhans_cnn(seed=seed) for seed in (1, 2)])
    >>> attack = TransferAttack(strong, sources)

    Limitations:
        Shows what an attacker can do without the model's gradients, and so
        whether those hide something: a model that transfer breaks and the
        same attack of its own does not has masked gradients. A model that it
        does not break is not robust; another source may.

    Reference:
        - Papernot et al., 2016: https://arxiv.org/abs/1605.07277
    """

    def __init__(self, attack, source):
        super().__init__(attack, OtherModel(source))
        if attack.threat == "transfer":
            raise TypeError(
                "`attack` must not be a `TransferAttack` itself. "
                f"Received: attack={attack!r}"
            )
        self.source = self.view.source
        if self.source.answers_only and attack.threat != "queries":
            raise ValueError(
                "`source` must be a model whose gradient can be followed. "
                f"Received: '{self.source.model.name}', of which only the "
                f"answers are known, for a {attack.threat} attack. Attack a "
                "twin of it."
            )

    def get_config(self):
        """The attack, and the source's name: a config holds no model.

        `from_config(config, source=model)` takes the caller's word that
        `model` is the one meant.
        """
        return {"attack": plain(self.attack), **self.view.get_config()}

    @classmethod
    def from_config(cls, config, source):
        """The attack that `get_config` describes, from the model `source`."""
        return super().from_config({**config, "source": source})
