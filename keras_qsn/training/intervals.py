"""Training for certificates: the worst case of intervals as a loss."""

import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn._core.tracing import layers_of
from keras_qsn.attacks import norms
from keras_qsn.certification import crown
from keras_qsn.certification import interval

# Share of the ramp that is a fourth power, before it goes on as a line.
_SMOOTH = 0.25


class IntervalTraining:
    """What `QuSecNet` trains on to be certified: interval bounds of margins.

    With `m_j` the interval lower bound of `logit_y - logit_j` over the box
    that the L-infinity ball becomes behind the quantizer:

        loss = k L(y, logits) + (1 - k) L(y, -m) + regularizer * R

    where `L` is the compiled loss and `logits` are those of what the network
    is given: the images, or attacked ones if `QuSecNet` has an attack, and
    then the two losses have the worst case between them (De Palma et al.,
    2024): `k` near 1 keeps clean accuracy, and leaves the proof to the
    complete check of `certify`. Behind a hard quantizer `eps` moves the box in
    leaps, so it is not `eps` that grows but the box, from the image to its
    full size: each level `q` lies in

        [q + s (q_low - q), q + s (q_high - q)],   s from 0 to 1,

    and `k` falls with it, `k = 1 - (1 - clean_share) s`. `s` grows over
    `ramp_epochs`, after `warmup_epochs` at 0, as a fourth power and then a
    line (Shi et al., 2021). `R`, weighted by `1 - s`, keeps bounds tight and
    ReLUs balanced while the box grows (the same).

    Args:
        eps: Float > 0. Radius to train for, in pixel units; a little more
            than that to be certified at often pays.
        clean_share: Float in `[0, 1)`. Final weight `k` of the loss on what
            the network is given. Defaults to `0.0`.
        warmup_epochs: Integer >= 0. Defaults to `1`.
        ramp_epochs: Integer >= 1. Defaults to `10`.
        regularizer: Float >= 0. Weight of `R`. Defaults to `0.5`.
        value_range: `(low, high)`, the smallest and the largest pixel value.
            Defaults to `(0.0, 1.0)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> quantizer = QuantLayer(2, 50.0, hard=True, trainable=False)
    >>> model = cleverhans_cnn(quantizer=quantizer, seed=0)
    >>> initialize_for_intervals(model, seed=0)
    >>> net = QuSecNet(model, certification=IntervalTraining(eps=0.3))

    Limitations:
        Bounds during training are float32 estimates; `certify` proves. A
        network trained for intervals loses clean accuracy, the more the
        larger `eps`; on CIFAR-10 a quantizer of few levels widens the box.
        Thresholds below `eps` or above `1 - eps` let every pixel of a black
        or white ground change: keep trained ones inside with
        `ThresholdRange(eps, 1 - eps)`. Trained, they follow the quantizer's
        slope: at a steepness of 5 that also pulls where no pixel can change
        its level, and they drift to an end of their range; 50 does not.

    Reference:
        - Gowal et al., 2018: https://arxiv.org/abs/1810.12715
        - Shi et al., 2021: https://arxiv.org/abs/2103.17268
        - De Palma et al., 2024 (MTL-IBP): https://arxiv.org/abs/2305.13991
    """

    def __init__(
        self,
        eps,
        clean_share=0.0,
        warmup_epochs=1,
        ramp_epochs=10,
        regularizer=0.5,
        value_range=(0.0, 1.0),
    ):
        low, high = map(float, value_range)
        if not 0 < eps <= high - low:
            raise ValueError(
                f"`eps` must lie in (0, {high - low:g}], the width of "
                f"`value_range`. Received: eps={eps}, "
                f"value_range={value_range}"
            )
        if not 0 <= clean_share < 1:
            raise ValueError(
                "`clean_share` must lie in [0, 1). "
                f"Received: clean_share={clean_share}"
            )
        if not regularizer >= 0:
            raise ValueError(
                "`regularizer` must be at least 0. "
                f"Received: regularizer={regularizer}"
            )
        self.eps = float(eps)
        self.clean_share = float(clean_share)
        self.warmup_epochs = check_count("warmup_epochs", warmup_epochs, 0)
        self.ramp_epochs = check_count("ramp_epochs", ramp_epochs)
        self.regularizer = float(regularizer)
        self.value_range = low, high

    def growth(self, epoch):
        """How much of the box is trained on, from 0 to 1.

        Args:
            epoch: Float, epochs since the start.
        """
        t = np.clip((epoch - self.warmup_epochs) / self.ramp_epochs, 0, 1)
        # A fourth power that meets its tangent at `_SMOOTH`, and 1 at 1.
        scale = 1 / (_SMOOTH**4 + 4 * _SMOOTH**3 * (1 - _SMOOTH))
        if t < _SMOOTH:
            return float(scale * t**4)
        return float(scale * (_SMOOTH**4 + 4 * _SMOOTH**3 * (t - _SMOOTH)))

    def bounds(self, graph, x, growth):
        """`Bounds` of all nodes for boxes grown so far around the images.

        Args:
            graph: The model's `Graph`.
            x: Float32 images.
            growth: Scalar tensor from 0 to 1.
        """
        ends = norms.ball(x, self.eps, *self.value_range)
        low, high = interval.levels(graph, *ends)
        middle = graph.quantized(x)
        low, high = (middle + growth * (end - middle) for end in (low, high))
        first = interval.level_bounds(graph, low, high)
        return interval.propagate(graph, first)


def worst_logits(graph, bounds, labels):
    """Logits that are as bad for the label as intervals allow.

    `-m_j` for each class: 0 for the label, and above it where the bounds
    cannot tell the class from it.
    """
    return -crown.margins(graph, bounds, labels, relaxed=False)


def proved(worst, labels):
    """Whether the worst logits leave no other class, image by image."""
    others = tf.one_hot(
        labels, worst.shape[-1], on_value=-np.inf, off_value=0.0
    )
    return tf.reduce_max(worst + others, 1) < 0


def regularization(graph, bounds, tolerance=0.5):
    """`R` of Shi et al. (2021): tight bounds, ReLUs balanced.

    Tightness: the mean radius before each activation should not exceed the
    input's by more than `1 / tolerance`. Balance: of neurons that are surely
    active and surely not, mean and variance should be of like size.

    Args:
        graph: `Graph`.
        bounds: `Bounds` of its nodes.
        tolerance: Ratios above it cost nothing.
    """
    layers = [bounds[p] for p in graph.pre_activations]
    if not layers:
        return 0.0
    start = tf.reduce_mean(bounds[0].radius)
    cost = 0.0
    for layer in layers:
        ratio = tf.math.divide_no_nan(start, tf.reduce_mean(layer.radius))
        # No box, nothing to tighten.
        cost += tf.where(start > 0, tf.nn.relu(tolerance - ratio), 0.0)
        cost += sum(tf.nn.relu(tolerance - r) for r in _balance(layer))
    return cost / (tolerance * len(layers))


def _balance(layer):
    """Active against inactive neurons: ratios of mean and of variance."""
    low, high = layer.ends
    active, inactive = (
        tf.cast(side, low.dtype) for side in (low > 0, high < 0)
    )
    spread = tf.square(layer.center - tf.reduce_mean(layer.center))
    for values, sign in ((layer.center, -1.0), (spread, 1.0)):
        up = tf.reduce_sum(values * active)
        down = sign * tf.reduce_sum(values * inactive)
        smaller, larger = tf.minimum(up, down), tf.maximum(up, down)
        # Without either kind there is no ratio to mend by a gradient.
        yield tf.where(smaller > 0, tf.math.divide_no_nan(smaller, larger), 1.0)


def initialize_for_intervals(model, seed):
    """New weights under which interval bounds neither grow nor vanish.

    Kernels of all layers but the last: `N(0, 2 pi / fan_in^2)`, so that the
    expected `|W|` of a neuron's inputs sums to 2, which ReLU halves (Shi et
    al., 2021). Biases to zero.

    Args:
        model: Built Keras model, changed in place.
        seed: Integer.

    Example:

    >>> model = cleverhans_cnn(seed=0)
    >>> initialize_for_intervals(model, seed=1)
    >>> kernel = np.asarray(model.layers[0].kernel)
    >>> round(float(np.abs(kernel).sum((0, 1, 2)).mean()), 1)
    2.0

    Reference:
        - Shi et al., 2021: https://arxiv.org/abs/2103.17268
    """
    rng = np.random.default_rng(seed)
    layers = [q for q in layers_of(model) if hasattr(q, "kernel")]
    for layer in layers[:-1]:
        fan_in = int(np.prod(layer.kernel.shape[:-1]))
        draw = rng.normal(0, np.sqrt(2 * np.pi) / fan_in, layer.kernel.shape)
        layer.kernel.assign(draw)
        if layer.bias is not None:
            layer.bias.assign(np.zeros(layer.bias.shape))
