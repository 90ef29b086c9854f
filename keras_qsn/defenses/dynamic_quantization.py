"""Dynamic quantization activation (DQA): activations of a few levels."""

import keras
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_positive
from keras_qsn.constraints import ThresholdRange
from keras_qsn.initializers import EquallySpaced
from keras_qsn.quantization import kernels
from keras_qsn.quantization.staircase import make_staircase

GRADIENTS = ("signum", "straight_through")
_RANGE = (-1.0, 1.0)


@keras.saving.register_keras_serializable(package="keras_qsn")
class DynamicQuantizationActivation(keras.layers.Layer):
    """Takes activations to a few levels between -1 and 1, in place of a ReLU.

    With `L = 2^bits` levels and `L - 1` thresholds, which all units of the
    layer share:

        y = 1/(L-1) * sum_k sgn(x - t_k),   sgn(0) = 1

    Of one bit it is the sign of `x - t_1`. Trainable thresholds are the
    paper's dynamic form, others its fixed one. Backward, at inference:

        gradient             dy/dx
        "signum"             0, the derivative of a sign
        "straight_through"   1 where |x| <= 1, else 0

    In training it is that of `"straight_through"` for both, or nothing in
    front of the layer would be trained; `dy/dt_k` is
    `-2/(L-1) * S'(x - t_k)`, with `S` a sigmoid of slope `steepness / 8` at
    its middle. Adversarial training crafts its examples at inference: with
    `"signum"` its attacks are blind. Train with `"straight_through"`, and set
    `layer.gradient = "signum"` to deploy what was published.

    Reconstruction: of the paper only the abstract could be had, and what
    QuSecNets says of it. Known are low-bit activations, fixed and tunable
    thresholds, a signum, and adversarial training. The formula, where
    thresholds start, their slope, the window of the straight-through gradient
    and that training is straight through are ours.

    Args:
        bits: Integer from 1 to 8; a defence takes few, 1 to 4. Defaults to
            `1`.
        trainable_thresholds: Whether thresholds are trained, the dynamic
            form. Defaults to `True`.
        gradient: `"signum"` (default), as published, or
            `"straight_through"`.
        steepness: Float > 0. Steepness of the sigmoid whose slope trains the
            thresholds, per width of `(-1, 1)`. Defaults to `8.0`, ours.
        **kwargs: Base `Layer` arguments.

    Call arguments:
        inputs: Floating-point tensor, such as the output of a convolution
            without activation.

    Input shape:
        `(batch, ...)`, any rank of at least 2.

    Output shape:
        Same as the input.

    Attributes:
        thresholds: The weight `(t + 1) / 2`, kept in `[0, 1]`. It starts with
            thresholds equally spaced in `(-1, 1)`.

    Raises:
        ValueError: If `bits` is not from 1 to 8, `gradient` is unknown, or
            `steepness` is out of range.

    Example:

    >>> layer = DynamicQuantizationActivation(bits=2)
    >>> layer(np.array([[-2.0, -0.1, 0.0, 0.7]], "float32")).numpy().round(2)
    array([[-1.  , -0.33,  0.33,  1.  ]], dtype=float32)

    Limitations:
        A masked gradient: FGSM and PGD do not move where it is zero, and any
        surrogate gets them through. The layer brings one, the identity, which
        `evaluate_robustness` takes by itself (BPDA); Square and transferred
        examples need none.

    Reference:
        - Rakin et al., 2018 (DQA): https://arxiv.org/abs/1807.06714
        - Ali et al., 2018: https://arxiv.org/abs/1811.01437
        - Athalye et al., 2018 (BPDA): https://arxiv.org/abs/1802.00420
    """

    def __init__(
        self,
        bits=1,
        trainable_thresholds=True,
        gradient="signum",
        steepness=8.0,
        **kwargs,
    ):
        # The layer casts by itself, as near a threshold float16 decides
        # otherwise.
        super().__init__(autocast=False, **kwargs)
        self.bits = check_count("bits", bits)
        if self.bits > 8:
            raise ValueError(
                "`bits` must be a whole number from 1 to 8. "
                f"Received: bits={bits}"
            )
        if gradient not in GRADIENTS:
            raise ValueError(
                f"`gradient` must be one of {GRADIENTS}. "
                f"Received: gradient={gradient!r}"
            )
        self.trainable_thresholds = bool(trainable_thresholds)
        self.gradient = gradient
        self.steepness = check_positive("steepness", steepness)
        self._staircase = make_staircase(
            2**self.bits,
            self.steepness,
            hard=True,
            gradient="straight_through",
            value_range=_RANGE,
        )

    def build(self, input_shape):
        levels = 2**self.bits
        self.thresholds = self.add_weight(
            name="thresholds",
            shape=(*[1] * (len(input_shape) - 1), levels - 1),
            initializer=EquallySpaced(levels),
            constraint=ThresholdRange(),
            trainable=self.trainable_thresholds,
            autocast=False,
        )

    def call(self, inputs, training=None):
        x = tf.cast(inputs, self.variable_dtype)
        # The gradient's window: outside of it `x` is a constant.
        inside = tf.clip_by_value(x, *_RANGE)
        x = inside + tf.stop_gradient(x - inside)
        with kernels.compiled(bool(training)):
            y = self._staircase(x, tf.convert_to_tensor(self.thresholds))
        if self.gradient == "signum" and not training:
            # A gradient that is there, and zero.
            y = tf.stop_gradient(y) + 0.0 * inside
        return tf.cast(y, self.compute_dtype)

    def surrogate(self, inputs):
        """What attacks differentiate in its place: the identity (BPDA)."""
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "bits": self.bits,
            "trainable_thresholds": self.trainable_thresholds,
            "gradient": self.gradient,
            "steepness": self.steepness,
        }
