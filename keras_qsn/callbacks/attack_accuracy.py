"""Accuracy under an attack, in the logs of `fit`."""

import keras

from keras_qsn._core.numbers import check_count
from keras_qsn.attacks.base import Attack
from keras_qsn.classifier.inputs import as_arrays
from keras_qsn.classifier.inputs import check_images
from keras_qsn.classifier.inputs import check_labels
from keras_qsn.classifier.wrapper import KerasModelWrapper


class AttackAccuracy(keras.callbacks.Callback):
    """Adds accuracy under an attack to the logs and the history of `fit`.

    Catches what training accuracy hides: FGSM training that collapses keeps
    its accuracy under FGSM and loses it under PGD.

    On held-out images it ends training in time, since accuracy under attack
    falls again while that on the training images still grows: put
    `keras.callbacks.EarlyStopping(name, mode="max", patience=3,
    restore_best_weights=True)` after it. Of an optimizer with `use_ema=True`,
    `SwapEMAWeights(swap_on_epoch=True)` before it makes both look at the
    running mean of the weights.

    Args:
        attack: An `Attack`.
        x: Images, or a batched `tf.data.Dataset` of images and labels.
        y: Their classes; `None` with a dataset.
        name: Key in the logs. Defaults to `"attack_accuracy"`.
        every: Integer >= 1. Epochs from one measurement to the next; after
            the others the last value stands. Defaults to `1`.
        batch_size: Integer >= 1. Defaults to `128`.

    Raises:
        TypeError: If `attack` is not an attack.
        ValueError: If there are no labels, a number is out of range, or, as
            training begins, images or labels do not fit the model.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    >>> x, y = np.full((8, 28, 28, 1), 0.5, "float32"), np.arange(8)
    >>> pgd = AttackAccuracy(ProjectedGradientDescent(nb_iter=2), x, y, "pgd")
    >>> history = model.fit(x, y, verbose=0, callbacks=[pgd])
    >>> len(history.history["pgd"])
    1

    Limitations:
        One attack: an upper bound. `evaluate_robustness` runs many. It is no
        metric of the model: callbacks that watch it need `mode="max"`.

    Reference:
        - Wong et al., 2020: https://arxiv.org/abs/2001.03994
        - Rice et al., 2020 (robust overfitting):
          https://arxiv.org/abs/2002.11569
    """

    def __init__(
        self,
        attack,
        x,
        y=None,
        name="attack_accuracy",
        every=1,
        batch_size=128,
    ):
        super().__init__()
        if not isinstance(attack, Attack):
            raise TypeError(
                "`attack` must be an attack such as "
                "`ProjectedGradientDescent(eps=0.3)`. "
                f"Received: {attack!r} of type {type(attack).__name__}"
            )
        self.attack = attack
        self.x, self.y = as_arrays(x, y)
        if self.y is None:
            raise ValueError(
                "`y` must hold the true classes: accuracy needs them. "
                "Received: y=None"
            )
        self.name = name
        self.every = check_count("every", every)
        self.batch_size = check_count("batch_size", batch_size)
        self._last = None

    def on_train_begin(self, logs=None):
        # Images that do not fit are refused before an epoch of work.
        if self.model.built:
            wrapper = KerasModelWrapper.of(self.model)
            attack = self.attack
            check_images(self.x, attack.clip_min, attack.clip_max, wrapper)
            check_labels(self.y, len(self.x), wrapper.num_classes)

    def on_epoch_end(self, epoch, logs=None):
        if epoch % self.every == 0 or self._last is None:
            result = self.attack.run(
                self.model,
                self.x,
                self.y,
                batch_size=self.batch_size,
                verbose=0,
            )
            self._last = float(1 - result.success.mean())
        if logs is not None:
            logs[self.name] = self._last
