"""An attack that knows that the model answers at random, and averages."""

from keras_qsn.attacks.viewed import ViewedAttack
from keras_qsn.attacks.views.expectation import Expectation


class EOT(ViewedAttack):
    """Another attack, on the mean over draws of a model that is random.

    What is followed is `E[Z(x)]`, with `Z` the logits of a draw, estimated by
    the mean of `draws` of them, the same in every step: those that the seed
    of the attack decides.

    Args:
        attack: The attack, such as `ProjectedGradientDescent(...)`, whose
            threat model and parameters are taken over.
        draws: Integer >= 1. Networks averaged. Defaults to `10`.

    Raises:
        TypeError: If `attack` is not an attack.
        ValueError: If `draws` is not such a number.

    Example:

    >>> class Noise(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.seeds = keras.random.SeedGenerator(0)
    ...
    ...     def call(self, x):
    ...         return x + keras.random.normal(tf.shape(x), seed=self.seeds)
    >>> inner = cleverhans_cnn(seed=0)
    >>> noisy = keras.Sequential([keras.Input((28, 28, 1)), Noise(), inner])
    >>> attack = EOT(ProjectedGradientDescent(eps=0.1, nb_iter=2), draws=3)
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> x_adv = attack.generate(noisy, x, [3, 4])
    >>> np.array_equal(x_adv, attack.generate(noisy, x, [3, 4]))
    True

    Limitations:
        With few draws, an example may fool those alone: take more. Each costs
        a pass through the network, and memory for its gradient. The draws of
        an image depend on its place in the batch. What is random otherwise
        than by `keras.random` and a `SeedGenerator` of a layer is drawn anew
        at each look, not by the seed. Success is one answer of the model,
        which may be another the next time.

    Reference:
        - Athalye et al., 2018: https://arxiv.org/abs/1707.07397
    """

    def __init__(self, attack, draws=10):
        super().__init__(attack, Expectation(draws, getattr(attack, "seed", 0)))
        self.draws = self.view.draws
