"""What an attack returns, finished or interrupted."""

import typing

import numpy as np

from keras_qsn._core import display

# A glance at the images: as many as stand side by side.
_SHOWN = 8


class AttackResult(typing.NamedTuple):
    """What an attack did to each image.

    Attributes:
        x_adv: Images after the attack, float32, same shape as the input.
        prediction: Class the model gives each of them, int.
        success: Boolean: whether that class is wrong (untargeted) or the
            target (targeted).
        blind: Boolean: whether the attack follows the gradient and that is
            zero at the image, so that its failure says nothing.

    Example:

    >>> AttackResult(
    ...     np.zeros((3, 28, 28, 1), "float32"),
    ...     prediction=np.array([7, 2, 1]),
    ...     success=np.array([True, False, False]),
    ...     blind=np.array([False, True, False]),
    ... )
    AttackResult(3 images: 1 succeeded, 2 failed, 1 of them blind)
    """

    x_adv: np.ndarray
    prediction: np.ndarray
    success: np.ndarray
    blind: np.ndarray

    def to_dataframe(self):
        """A pandas `DataFrame` with a row for each image, without pixels."""
        values = self._asdict()
        del values["x_adv"]
        return display.data_frame(values)

    def __repr__(self):
        return f"{type(self).__name__}({self._in_words()})"

    def _repr_html_(self):
        broke = np.flatnonzero(self.success)[:_SHOWN]
        images = display.in_unit_range(self.x_adv[broke]) if len(broke) else []
        captions = (f"image {i}: now {self.prediction[i]}" for i in broke)
        return display.html_paragraph(self._in_words()) + display.html_images(
            zip(captions, images)
        )

    def _in_words(self):
        count, broke = len(self.x_adv), int(np.sum(self.success))
        blind = int(np.sum(np.asarray(self.blind) & ~np.asarray(self.success)))
        words = f"{count} images: {broke} succeeded, {count - broke} failed"
        return words + (f", {blind} of them blind" if blind else "")


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
