"""The paper's cost, Eq. 2, and a loss for being wrong, as Keras losses."""

import keras


@keras.saving.register_keras_serializable(package="keras_qsn")
class ProbabilityMeanSquaredError(keras.losses.Loss):
    """Mean squared error between class probabilities and the true class.

    For each example, over `C` classes:

        cost = 1/C * sum_c (P(c) - [c is the true class])^2      (Eq. 2)

    Eq. 2 as printed subtracts the probability of the true class from each
    other one, which a uniform output minimises; the one-hot target is the
    reading under which it trains a classifier.

    Args:
        from_logits: If `True` (default), `y_pred` are logits and a softmax is
            applied. If `False`, they are probabilities.
        **kwargs: Base `Loss` arguments: `reduction`, `name`, `dtype`.

    Call arguments:
        y_true: Integer labels of shape `(batch,)` or `(batch, 1)`, or
            one-hot (or soft) labels of shape `(batch, C)`.
        y_pred: Logits or probabilities of shape `(batch, C)`; of shape
            `(batch, 1)` the logit or probability of the second of two.

    Raises:
        ValueError: If the shapes of `y_true` and `y_pred` do not fit.

    Example:

    >>> cost = ProbabilityMeanSquaredError(from_logits=False)
    >>> float(cost([1], [[0.25, 0.75]]))
    0.0625

    Limitations:
        The gradient fades on confidently wrong examples; cross-entropy trains
        the network faster. The paper uses this cost for the thresholds.

    Reference:
        - Ali et al., 2018, Eq. 2: https://arxiv.org/abs/1811.01437
    """

    def __init__(
        self, from_logits=True, name="probability_mean_squared_error", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        y_pred = keras.ops.convert_to_tensor(y_pred)
        y_true = keras.ops.convert_to_tensor(y_true)
        if y_pred.shape[-1] == 1:
            first = 0 * y_pred if self.from_logits else 1 - y_pred
            y_pred = keras.ops.concatenate([first, y_pred], -1)
        num_classes = y_pred.shape[-1]
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
            y_true = keras.ops.squeeze(y_true, -1)
        if len(y_true.shape) == len(y_pred.shape) - 1:
            y_true = keras.ops.one_hot(
                keras.ops.cast(y_true, "int32"), num_classes, dtype=y_pred.dtype
            )
        if len(y_true.shape) != len(y_pred.shape) or (
            y_true.shape[-1] != num_classes
        ):
            raise ValueError(
                "`y_true` must be integer labels of shape (batch,) or one-hot "
                f"labels of shape (batch, {num_classes}), the number of "
                "classes in `y_pred`. "
                f"Received: y_true.shape={tuple(y_true.shape)}, "
                f"y_pred.shape={tuple(y_pred.shape)}"
            )
        if self.from_logits:
            y_pred = keras.ops.softmax(y_pred)
        difference = y_pred - keras.ops.cast(y_true, y_pred.dtype)
        return keras.ops.mean(keras.ops.square(difference), axis=-1)

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}


@keras.saving.register_keras_serializable(package="keras_qsn")
class ReverseCrossentropy(keras.losses.Loss):
    """Minus the logarithm of the chance that the class is another.

    For each example with class `c`:

        loss = -log(1 - P(c))

    What trains a misinformation model (`defenses.AdaptiveMisinformation`):
    as far from the class as it can be, not merely unsure.

    Args:
        **kwargs: Base `Loss` arguments: `reduction`, `name`, `dtype`.

    Call arguments:
        y_true: Integer labels of shape `(batch,)` or `(batch, 1)`.
        y_pred: Logits of shape `(batch, C)`, `C >= 2`.

    Raises:
        ValueError: If the shapes of `y_true` and `y_pred` do not fit.

    Example:

    >>> loss = ReverseCrossentropy()
    >>> round(float(loss([1], np.log([[0.25, 0.75]]))), 4)
    1.3863

    Limitations:
        A model trained on it long enough is wrong on nearly all images, and
        tells the class by what it never says: show it where the other model
        is not sure.

    Reference:
        - Kariyappa & Qureshi, 2020: https://arxiv.org/abs/1911.07100
    """

    def __init__(self, name="reverse_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        y_pred = keras.ops.convert_to_tensor(y_pred)
        y_true = keras.ops.convert_to_tensor(y_true)
        if len(y_true.shape) == 2 and y_true.shape[-1] == 1:
            y_true = keras.ops.squeeze(y_true, -1)
        if len(y_true.shape) != 1 or len(y_pred.shape) != 2:
            raise ValueError(
                "`y_true` must be integer labels of shape (batch,), and "
                "`y_pred` logits of shape (batch, C). "
                f"Received: y_true.shape={tuple(y_true.shape)}, "
                f"y_pred.shape={tuple(y_pred.shape)}"
            )
        own = keras.ops.one_hot(
            keras.ops.cast(y_true, "int32"), y_pred.shape[-1], dtype="bool"
        )
        others = keras.ops.where(own, -float("inf"), y_pred)
        return keras.ops.logsumexp(y_pred, -1) - keras.ops.logsumexp(others, -1)
