"""What an attack returns, finished or interrupted."""

import typing

import numpy as np


class AttackResult(typing.NamedTuple):
    """What an attack did to each image.

    Attributes:
        x_adv: Images after the attack, float32, same shape as the input.
        prediction: Class the model gives each of them, int.
        success: Boolean: whether that class is wrong (untargeted) or the
            target (targeted).
        blind: Boolean: whether the attack follows the gradient and that is
            zero at the image, so that its failure says nothing.
    """

    x_adv: np.ndarray
    prediction: np.ndarray
    success: np.ndarray
    blind: np.ndarray


class BlindAttackWarning(RuntimeWarning):
    """An attack found no gradient to follow at images that it failed on.

    Example:

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", BlindAttackWarning)
    ...     warnings.warn("a gradient of zero", BlindAttackWarning)
    """


class AttackInterrupted(KeyboardInterrupt):
    """Ctrl-C during an attack, between two batches.

    Attributes:
        result: `AttackResult` of the images finished until then, the first
            of the input.

    Example:

    >>> try:
    ...     raise AttackInterrupted(AttackResult(np.zeros((2, 4)), 0, 0, 0))
    ... except KeyboardInterrupt as interrupted:
    ...     print(interrupted)
    2 images were finished: `.result` holds them.
    """

    def __init__(self, result):
        super().__init__(
            f"{len(result.x_adv)} images were finished: `.result` holds them."
        )
        self.result = result
