"""Quantization layers: CQ and TQ of QuSecNets, for the input of a network."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.constraints import ThresholdRange
from keras_qsn.initializers import EquallySpaced
from keras_qsn.quantization import kernels
from keras_qsn.quantization import staircase

# How far outside `value_range`, in widths of the range, a call still accepts
# pixels: noise augmentation leaves the range a little, images in 0..255 fed
# to a layer for 0..1 leave it a hundredfold.
_SLACK = 3.0


@keras.saving.register_keras_serializable(package="keras_qsn")
class QuantLayer(keras.layers.Layer):
    """Quantizes each input pixel to a few levels, differentiably.

    With `n = num_levels`, `z = steepness`, thresholds `t_k` and pixels scaled
    to `[0, 1]`:

        y = 1/(n-1) * sum_{k=1}^{n-1} sigmoid(z (x - t_k))      (Eq. 1)

    and `y` scaled back to `value_range`. The paper prints the sum up to `n`;
    its text (two levels split at 0.5) and the factor `1/(n-1)` need `n-1`
    terms. `variant="authors"` computes the authors' published code instead:
    an `n`-th threshold at 1, and the result clipped.

    A hard level changes where `x >= low + (high - low) t_k`, worked out so
    that every way of computing it decides alike, to the last bit: eager, in a
    `tf.function`, compiled by XLA alone or in one piece with the network,
    exported, certified (`keras_qsn.quantization.in_pixels`). Inference is
    made of plain operations, so `model.export` serves SavedModel, ONNX and
    LiteRT.

    `ConstantQuantization` and `TrainableQuantization` are this layer with the
    paper's settings. Put it first in a model, so that whoever attacks,
    evaluates or serves the model sees the same function.

    Args:
        num_levels: Integer >= 2. Number of output levels, the paper's `n`.
        steepness: Float > 0. The paper's `z`, per width of `value_range`.
        shared_axes: Axis or axes of the input (1 is the first after the
            batch) along which pixels share their thresholds, as in
            `keras.layers.PReLU`. Defaults to `None`: every pixel has its own.
        hard: If `True`, the output is the exact level, `[x >= t_k]` in place
            of the sigmoid, with the gradient of the soft layer. Defaults to
            `False`.
        gradient: What backpropagation computes. `"exact"` (default): the
            chain rule of Eq. 1, for inputs and thresholds, as
            `z sigmoid(u) sigmoid(-u)`, so that it does not vanish in float32
            on bright pixels. `"paper"`: Eqs. 5 to 8 as printed for the
            thresholds. `"straight_through"`: the identity for the input
            (BPDA).
        variant: `"standard"` (default) or `"authors"`.
        value_range: Pair of floats, the smallest and largest pixel value.
            Defaults to `(0, 1)`; say `(0, 255)` or `(-1, 1)` if the images
            are.
        threshold_initializer: Keras initializer, or a list with one number
            in `[0, 1]` per threshold (in units of `value_range`, shared by
            all pixels). Defaults to `None`: `EquallySpaced`, `t_k = k/n`.
        threshold_constraint: Keras constraint. Defaults to `None`:
            `ThresholdRange(0, 1)`.
        **kwargs: Base `Layer` arguments: `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Floating-point tensor of pixels in `value_range`.

    Input shape:
        `(batch, ...)`, any rank of at least 2. Axes of unknown
        length must be in `shared_axes`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: If an argument is out of range, a threshold leaves
            `[0, 1]`, or a call receives NaN, infinite or grossly out-of-range
            pixels (0..255 where 0..1 was declared). In a compiled function
            this is a `tf.errors.InvalidArgumentError`; XLA drops the check.
        TypeError: If the inputs are integers.

    Example:

    >>> layer = QuantLayer(num_levels=3, steepness=50, hard=True)
    >>> layer(np.array([[0.1, 0.5, 0.9]], "float32")).numpy().tolist()
    [[0.0, 0.5, 1.0]]

    Limitations:
        A quantized input is the classic masked gradient. FGSM and PGD through
        the exact gradient overstate the robustness this layer gives; BPDA
        (`gradient="straight_through"`), examples transferred from an
        unquantized network, and score-based attacks find what they miss
        (Athalye et al., 2018; Chen et al., 2018). With soft output nothing is
        ever fully hidden from the network behind the layer; certificates need
        `hard=True`. More levels than two help little: pixels near any
        threshold can be flipped.

    Reference:
        - Ali et al., 2018 (QuSecNets): https://arxiv.org/abs/1811.01437
        - Athalye et al., 2018: https://arxiv.org/abs/1802.00420
        - Chen et al., 2018: https://arxiv.org/abs/1805.07816
    """

    def __init__(
        self,
        num_levels,
        steepness,
        shared_axes=None,
        hard=False,
        gradient="exact",
        variant="standard",
        value_range=(0.0, 1.0),
        threshold_initializer=None,
        threshold_constraint=None,
        **kwargs,
    ):
        # The layer casts by itself: an input autocast to float16 would land
        # on the other side of a threshold.
        super().__init__(autocast=False, **kwargs)
        # Raises for a number of levels or a variant that does not exist.
        self.num_thresholds = len(
            staircase.equally_spaced_thresholds(num_levels, variant)
        )
        self.num_levels = int(num_levels)
        self.variant = variant
        self.steepness = _check_steepness(steepness)
        if shared_axes is not None:
            shared_axes = [int(axis) for axis in np.ravel(shared_axes)]
        self.shared_axes = shared_axes
        self.hard = bool(hard)
        if gradient not in staircase.GRADIENTS:
            raise ValueError(
                "`gradient` must be one of "
                f"{', '.join(map(repr, staircase.GRADIENTS))}. "
                f"Received: gradient={gradient!r}"
            )
        self.gradient = gradient
        self.value_range = _check_value_range(value_range)
        self.threshold_initializer = self._check_initializer(
            threshold_initializer
        )
        if threshold_constraint is None:
            threshold_constraint = ThresholdRange()
        self.threshold_constraint = keras.constraints.get(threshold_constraint)
        self._staircase = staircase.make_staircase(
            self.num_levels,
            self.steepness,
            self.hard,
            self.gradient,
            self.value_range,
        )
        self.supports_masking = True

    def build(self, input_shape):
        if len(input_shape) < 2:
            raise ValueError(
                "A quantization layer expects inputs of shape (batch, ...) "
                f"with at least 2 axes. Received: input_shape={input_shape}"
            )
        shape = list(input_shape[1:])
        for axis in self.shared_axes or ():
            if not 1 <= axis <= len(shape):
                raise ValueError(
                    f"`shared_axes` must lie between 1 and {len(shape)} for "
                    f"inputs of shape {tuple(input_shape)}. "
                    f"Received: shared_axes={self.shared_axes}"
                )
            shape[axis - 1] = 1
        if None in shape:
            raise ValueError(
                "Every pixel has thresholds of its own, so the input shape "
                "must be known. "
                f"Received: input_shape={tuple(input_shape)}. Share the "
                "thresholds along the unknown axes: "
                "`shared_axes="
                f"{[i + 1 for i, n in enumerate(shape) if n is None]}`"
            )
        self.thresholds = self.add_weight(
            name="thresholds",
            shape=(*shape, self.num_thresholds),
            initializer=self._initial_thresholds,
            constraint=self.threshold_constraint,
            autocast=False,
        )

    def call(self, inputs, training=None):
        inputs = tf.convert_to_tensor(inputs)
        if not inputs.dtype.is_floating:
            raise TypeError(
                "A quantization layer expects floating-point images. "
                f"Received: dtype={inputs.dtype.name}. Convert them first: "
                '`x.astype("float32")`, and say `value_range=(0, 255)` if '
                "they are not rescaled."
            )
        x = tf.cast(inputs, self.variable_dtype)
        x = self._assert_in_range(x)
        # Nobody exports a training step; inference they may.
        with kernels.compiled(bool(training)):
            y = self._staircase(x, tf.convert_to_tensor(self.thresholds))
        if self.variant == "authors":
            y = tf.clip_by_value(y, *self.value_range)
        return tf.cast(y, self.compute_dtype)

    def surrogate(self, inputs):
        """What attacks differentiate in its place: the identity (BPDA).

        Any layer that hides its gradient may bring such a method, a
        differentiable function from what the layer is given to the shape of
        what it makes of it; evaluations take it.
        """
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        initializer = self.threshold_initializer
        if not isinstance(initializer, list):
            initializer = keras.initializers.serialize(initializer)
        constraint = keras.constraints.serialize(self.threshold_constraint)
        return {
            **super().get_config(),
            "num_levels": self.num_levels,
            "steepness": self.steepness,
            "shared_axes": self.shared_axes,
            "hard": self.hard,
            "gradient": self.gradient,
            "variant": self.variant,
            "value_range": self.value_range,
            "threshold_initializer": initializer,
            "threshold_constraint": constraint,
        }

    def _check_initializer(self, initializer):
        if initializer is None:
            return EquallySpaced(self.num_levels, self.variant)
        if isinstance(initializer, (list, tuple, np.ndarray)):
            values = [float(value) for value in initializer]
            if len(values) != self.num_thresholds:
                raise ValueError(
                    f"{self.num_levels} levels need {self.num_thresholds} "
                    "threshold(s). "
                    f"Received: threshold_initializer={values}"
                )
            return values
        return keras.initializers.get(initializer)

    def _initial_thresholds(self, shape, dtype=None):
        if isinstance(self.threshold_initializer, list):
            values = np.broadcast_to(self.threshold_initializer, shape)
        else:
            values = keras.ops.convert_to_numpy(
                self.threshold_initializer(shape, dtype=dtype)
            )
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                "Thresholds must lie in [0, 1], in units of `value_range`. "
                "Received initial thresholds from "
                f"{values.min():.4g} to {values.max():.4g}"
            )
        return keras.ops.convert_to_tensor(values, dtype)

    def _assert_in_range(self, x):
        low, high = self.value_range
        slack = _SLACK * (high - low)
        smallest, largest = tf.reduce_min(x), tf.reduce_max(x)
        # A comparison with NaN is false, so one test covers both.
        fine = (smallest >= low - slack) & (largest <= high + slack)
        fine |= tf.equal(tf.size(x), 0)
        message = (
            f"A quantization layer expects pixels in value_range={low, high}. "
            "Received NaN, infinite or far larger values, with this minimum "
            "and maximum:"
        )
        fix = (
            "Rescale the images (for example `x / 255`), or pass the layer "
            "the `value_range` they have."
        )
        if tf.executing_eagerly():
            if not fine:
                raise ValueError(
                    f"{message} {float(smallest):.6g}, {float(largest):.6g}. "
                    f"{fix}"
                )
            return x
        check = tf.debugging.Assert(fine, [message, smallest, largest, fix])
        with tf.control_dependencies([check]):
            return tf.identity(x)


@keras.saving.register_keras_serializable(package="keras_qsn")
class ConstantQuantization(QuantLayer):
    """CQ: quantizes each input pixel to fixed levels.

    `QuantLayer` with the paper's settings for constant quantization: steep
    sigmoids, thresholds that are not trained. Setting `layer.trainable =
    True` makes them trainable.

    Args:
        num_levels: Integer >= 2. Defaults to `2`: binarization at 0.5.
        steepness: Float > 0. Defaults to `50.0`, the paper's `z` for CQ.
        **kwargs: Arguments of `QuantLayer`, whose calls, shapes and errors
            these are, too. `trainable` defaults to `False`.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((28, 28, 1)),
    ...     ConstantQuantization(num_levels=2),
    ...     keras.layers.Flatten(),
    ...     keras.layers.Dense(10),
    ... ])
    >>> len(model.trainable_variables)
    2

    Limitations:
        As for `QuantLayer`: measured against FGSM alone this layer looks far
        stronger than it is.

    Reference:
        - Ali et al., 2018, sections III and IV:
          https://arxiv.org/abs/1811.01437
    """

    def __init__(self, num_levels=2, steepness=50.0, **kwargs):
        kwargs.setdefault("trainable", False)
        super().__init__(num_levels, steepness, **kwargs)


@keras.saving.register_keras_serializable(package="keras_qsn")
class TrainableQuantization(QuantLayer):
    """TQ: quantizes each input pixel at thresholds learned with the network.

    `QuantLayer` with the paper's settings for trainable (there: variable)
    staircase. The thresholds are ordinary trainable weights, kept in
    `[0, 1]`; `keras_qsn.training.ThresholdTraining` trains them on their own
    cost with their own learning rate (Eqs. 2 to 8).

    Args:
        num_levels: Integer >= 2. Defaults to `2`.
        steepness: Float > 0. Defaults to `5.0`, the paper's `z` for TQ; it
            reports 5 to 40 as useful and that training stops above.
        **kwargs: Arguments of `QuantLayer`, whose calls, shapes and errors
            these are, too.

    Example:

    >>> layer = TrainableQuantization(num_levels=4, shared_axes=[1, 2])
    >>> layer.build((None, None, None, 3))
    >>> tuple(layer.thresholds.shape)
    (1, 1, 3, 3)

    Limitations:
        At steepness 5 the output is a smooth curve, not a level: alone it
        hides almost nothing. The paper itself calls it ineffective without
        adversarial training.

    Reference:
        - Ali et al., 2018, section III.A: https://arxiv.org/abs/1811.01437
    """

    def __init__(self, num_levels=2, steepness=5.0, **kwargs):
        super().__init__(num_levels, steepness, **kwargs)


def _check_steepness(steepness):
    if not np.isfinite(steepness) or steepness <= 0:
        raise ValueError(
            "`steepness` must be a finite number above 0. "
            f"Received: steepness={steepness!r}"
        )
    return float(steepness)


def _check_value_range(value_range):
    try:
        low, high = (float(bound) for bound in value_range)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(
            "`value_range` must be two finite numbers, the smallest and the "
            "largest pixel value, such as (0, 1) or (0, 255). "
            f"Received: value_range={value_range!r}"
        )
    return (low, high)
