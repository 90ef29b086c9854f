"""Layers that compute what an integer kernel does, and can be trained."""

import keras
import tensorflow as tf

from keras_qsn._core.numbers import check_share
from keras_qsn.deployment import fake_quant
from keras_qsn.deployment.folding import PRODUCTS
from keras_qsn.deployment.folding import by_channel
from keras_qsn.deployment.folding import folded
from keras_qsn.deployment.folding import product

# Range before anything was seen, as in TensorFlow's toolkit.
_START = 6.0


@keras.saving.register_keras_serializable(package="keras_qsn")
class FakeQuantActivations(keras.layers.Layer):
    """Rounds activations to `2^bits` levels of a range that it observes.

        step = (high - low) / (2^bits - 1),  zero = round(-low / step)
        y = step (clip(round(x / step) + zero, 0, 2^bits - 1) - zero)

    In training the ends of the range follow those of the batches, 0 always
    between them:

        low <- momentum low + (1 - momentum) min(x, 0),  high likewise

    The gradient is straight through inside the range, 0 outside. With
    `layer.trainable = False` the range stays.

    Args:
        bits: Integer from 2 to 8. Defaults to `8`.
        momentum: Float in `[0, 1)`, of the moving ends. Defaults to `0.99`
            (ours).
        **kwargs: Base `Layer` arguments: `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Float tensor.

        averages: Whether `inputs` are averages of levels of this layer's own,
            which integer kernels round half away from zero; they are not
            observed. Defaults to `False`.
        ties: Whether values halfway between two levels are no accident, as
            behind a quantization layer: they go up. Defaults to `False`.

        products: Steps of the products that `inputs` are, one for each
            channel; in inference they are rounded as integer kernels do.
            Defaults to `None`: they are none.
        sums: Two tensors that `inputs` are the sum of, and their steps; in
            inference it is rounded as integer kernels do. Defaults to `None`:
            it is none.
        only_step: Whether the step is returned, a scalar, and `inputs` do not
            count. Defaults to `False`.

    Raises:
        ValueError: If `bits` or `momentum` is out of range.

    Example:

    >>> layer = FakeQuantActivations(bits=2)
    >>> layer(np.array([[-6.0, 1.0, 2.0, 9.0]], "float32")).numpy().tolist()
    [[-4.0, 0.0, 4.0, 4.0]]

    Limitations:
        Rounding is no defence: attacks follow the straight-through gradient,
        and examples of the float network carry over.

    Reference:
        - Jacob et al., 2018, section 3: https://arxiv.org/abs/1712.05877
    """

    def __init__(self, bits=8, momentum=0.99, **kwargs):
        super().__init__(**kwargs)
        self.bits = check_bits(bits)
        self.momentum = check_share("momentum", momentum)

    def build(self, input_shape):
        for name, value in (("low", -_START), ("high", _START)):
            weight = self.add_weight(
                name=name,
                shape=(),
                initializer=keras.initializers.Constant(value),
                trainable=False,
            )
            setattr(self, name, weight)

    def call(
        self,
        inputs,
        averages=False,
        ties=False,
        products=None,
        sums=None,
        only_step=False,
        training=None,
    ):
        if only_step:
            return fake_quant.file_grid(self.low, self.high, self.bits)[0]
        if averages:
            return fake_quant.averages(inputs, self.low, self.high, self.bits)
        if training and self.trainable:
            self._observe(inputs)
        if products is not None and not training:
            return fake_quant.requantized(
                inputs, products, self.low, self.high, self.bits
            )
        if sums is not None and not training:
            return fake_quant.sums(
                inputs, sums[:2], sums[2:], self.low, self.high, self.bits
            )
        return fake_quant.activations(
            inputs, self.low, self.high, self.bits, ties
        )

    def surrogate(
        self,
        inputs,
        averages=False,
        ties=False,
        products=None,
        sums=None,
        only_step=False,
    ):
        """What attacks differentiate in its place: the clipping alone."""
        if only_step:
            return self.call(inputs, only_step=True)
        ends = fake_quant.ends(self.low, self.high, self.bits)
        return tf.clip_by_value(inputs, *ends)

    def set_range(self, low, high):
        """Take these ends as the range, and 0 with them."""
        self.low.assign(min(float(low), 0.0))
        self.high.assign(max(float(high), 0.0))

    def get_config(self):
        return {
            **super().get_config(),
            "bits": self.bits,
            "momentum": self.momentum,
        }

    def _observe(self, x):
        x = tf.stop_gradient(x)
        ends = tf.minimum(tf.reduce_min(x), 0), tf.maximum(tf.reduce_max(x), 0)
        for moving, end in zip((self.low, self.high), ends):
            moving.assign_add((1 - self.momentum) * (end - moving))


@keras.saving.register_keras_serializable(package="keras_qsn")
class FakeQuantWeights(keras.layers.Layer):
    """A layer with rounded weights, and its batch normalization folded in.

        y = layer(x; W'),  W' = step_c round(W / step_c),
        step_c = max |W_c| / (2^(bits - 1) - 1) for each output channel `c`

    In inference `W` and the bias are those with batch normalization inside,
    as the deployed kernel has them. In training the batch is normalized by
    its own statistics behind the product: since `step_c` grows with `W_c`,
    rounding before the scaling is rounding after it. The gradient is straight
    through. Integer kernels add the bias in 32 bits, in steps of the inputs'
    times `step_c`: in inference, of 8 bits, it is rounded to these.

    Args:
        layer: `Conv2D`, `DepthwiseConv2D` or `Dense`, without activation.
        batch_norm: Optional `BatchNormalization` of its output. Defaults to
            `None`.
        bits: Integer from 2 to 8. Defaults to `8`.
        **kwargs: Base `Layer` arguments: `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Float tensor, as for `layer`.

        step: Step of the inputs, a scalar tensor. Defaults to `None`: the bias
            is not rounded.
        only_steps: Whether the steps of the products are returned, one for
            each channel, and `inputs` do not count. Defaults to `False`.

    Raises:
        TypeError: If `layer` is of another kind.
        ValueError: If `layer` has an activation, or `bits` is out of range.

    Example:

    >>> layer = FakeQuantWeights(keras.layers.Dense(1, use_bias=False), bits=2)
    >>> layer.build((None, 3))
    >>> layer.layer.set_weights([np.array([[1.0], [0.6], [-0.2]])])
    >>> layer(np.eye(3, dtype="float32")).numpy().ravel().tolist()
    [1.0, 1.0, 0.0]

    Limitations:
        As for `FakeQuantActivations`.

    Reference:
        - Jacob et al., 2018, section 3.2: https://arxiv.org/abs/1712.05877
        - Krishnamoorthi, 2018, per channel: https://arxiv.org/abs/1806.08342
    """

    def __init__(self, layer, batch_norm=None, bits=8, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(layer, PRODUCTS):
            raise TypeError(
                "`layer` must be a `Conv2D`, a `DepthwiseConv2D` or a `Dense` "
                f"layer. Received: layer={layer!r}"
            )
        if layer.activation is not keras.activations.linear:
            raise ValueError(
                "`layer` must have no activation: batch normalization and "
                "rounding come before it. Received: "
                f"activation={layer.activation!r}. Put it into a layer behind."
            )
        self.layer = layer
        self.batch_norm = batch_norm
        self.bits = check_bits(bits)

    def build(self, inputs_shape, step_shape=None):
        if not self.layer.built:
            self.layer.build(inputs_shape)
        if self.batch_norm is not None and not self.batch_norm.built:
            self.batch_norm.build(self.layer.compute_output_shape(inputs_shape))

    def call(self, inputs, step=None, only_steps=False, training=None):
        if only_steps:
            return fake_quant.product_steps(self.deployed()[0], step, self.bits)
        if training and self.batch_norm is not None:
            y = self._product(inputs, *self._own())
            return self.batch_norm(y, training=True)
        kernel, bias = self.deployed()
        if step is None or self.bits < 8:
            return self._product(inputs, kernel, bias)
        if bias is not None:
            bias = self.rounded_bias(bias, kernel, step)
        if training:
            return self._product(inputs, kernel, bias)
        return self.exact(inputs, kernel, bias, step)

    def surrogate(self, inputs, step=None, only_steps=False):
        """What attacks differentiate in its place: the product of floats,
        whose inputs may lie off their grid."""
        if only_steps:
            return self.call(inputs, step, only_steps=True)
        return self._product(inputs, *self.deployed())

    def deployed(self):
        """Kernel, channels last, and bias of the deployed layer, not rounded;
        the bias is `None` where there is none."""
        kernel, bias = self._own()
        if self.batch_norm is None:
            return kernel, bias
        return folded(kernel, bias, self.batch_norm)

    def rounded(self, kernel):
        """A kernel, channels last, on its levels."""
        return fake_quant.weights(kernel, self.bits)

    def rounded_bias(self, bias, kernel, step):
        """A bias on the grid of products of this kernel and of inputs."""
        return fake_quant.biases(bias, kernel, step, self.bits)

    def exact(self, x, kernel, bias, step):
        """The product, of whole numbers: float32 adds these up as integers.

        Up to 2^24, which sums of the usual layers hardly come near.
        """
        steps = fake_quant.product_steps(kernel, step, self.bits)
        levels = fake_quant.whole(self.rounded(kernel), steps / step)
        levels = tf.reshape(levels, self.layer.kernel.shape)
        y = product(self.layer, fake_quant.whole(x, step), levels)
        if bias is None:
            return y * steps
        # Of a channel of zeros the bias is all.
        y = (y + fake_quant.whole(bias, steps)) * steps
        return tf.where(steps > 0, y, bias)

    def get_config(self):
        parts = self.layer, self.batch_norm
        layer, batch_norm = map(keras.saving.serialize_keras_object, parts)
        return {
            **super().get_config(),
            "layer": layer,
            "batch_norm": batch_norm,
            "bits": self.bits,
        }

    @classmethod
    def from_config(cls, config):
        """The layer that `get_config` describes."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("layer", "batch_norm")
        }
        return cls(**{**config, **parts})

    def _own(self):
        kernel = by_channel(self.layer, self.layer.kernel)
        return kernel, self.layer.bias if self.layer.use_bias else None

    def in_floats(self, x, kernel, bias, step):
        """As `exact`, of numbers on their grids and off them."""
        return self._product(x, kernel, bias)

    def _product(self, x, kernel, bias):
        kernel = tf.reshape(self.rounded(kernel), self.layer.kernel.shape)
        y = product(self.layer, x, kernel)
        return y if bias is None else y + bias


def check_bits(bits, name="bits"):
    """Return the number of bits, or say what came."""
    if isinstance(bits, bool) or bits not in range(2, 9):
        raise ValueError(
            f"`{name}` must be a whole number from 2 to 8. "
            f"Received: {name}={bits!r}"
        )
    return int(bits)
