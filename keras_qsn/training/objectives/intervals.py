"""Training for certificates: the worst case of intervals as a loss."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_at_least
from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_number
from keras_qsn.attacks import norms
from keras_qsn.certification.bounds import crown
from keras_qsn.certification.bounds import interval
from keras_qsn.certification.network import trace
from keras_qsn.training.metrics import Share
from keras_qsn.training.objectives.base import Objective
from keras_qsn.training.outputs import as_returned
from keras_qsn.training.outputs import returns_logits

# Share of the ramp that is a fourth power, before it goes on as a line.
_SMOOTH = 0.25


class IntervalTraining(Objective):
    """Trains a network to be certified, on interval bounds of its margins.

    With `m_j` the interval lower bound of `logit_y - logit_j` over the box
    that the L-infinity ball becomes behind the quantizer:

        loss = k L(y, logits) + (1 - k) L(y, -m) + regularizer * R

    where `L` is the compiled loss and `logits` are those of what the network
    is given: the images, or attacked ones after an `AdversarialTraining`, and
    then the two losses have the worst case between them (MTL-IBP): `k` near 1
    keeps clean accuracy, and leaves the proof to the complete check of
    `certify`. Behind a hard quantizer `eps` moves the box in leaps, so it is
    not `eps` that grows but the box, from what the network is given to a
    share `b` of its full size: each level `q` of that lies in

        [q + s b (q_low - q), q + s b (q_high - q)],   s from 0 to 1,

    and `k` falls with it, `k = 1 - (1 - clean_share) s`. A smaller box, `b`
    below 1, around attacked images is SABR's: it leaves more to the complete
    check. `s` grows over `ramp_epochs`, after `warmup_epochs` at 0, as a
    fourth power and then a line (Shi et al., 2021). `R`, weighted by `1 - s`,
    keeps bounds tight and ReLUs balanced while the box grows (the same).

    `fit`, `evaluate` and validation report `cert_accuracy`, the share of
    images whose bounds allow no other class, in `evaluate` and validation at
    full radius.

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
        box_share: Float in `(0, 1]`. Final size `b` of the box. Defaults to
            `1.0`, the box that `certify` proves.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If an argument is out of range.

    Example:

    >>> quantizer = QuantLayer(2, 50.0, hard=True, trainable=False)
    >>> model = cleverhans_cnn(quantizer=quantizer, seed=0)
    >>> initialize_for_intervals(model, seed=0)
    >>> net = QuSecNet(model, IntervalTraining(eps=0.3))

    Limitations:
        Bounds during training are float32 estimates; `certify` proves. A
        network trained for intervals loses clean accuracy, the more the
        larger `eps`; on CIFAR-10 a quantizer of few levels widens the box.
        Thresholds below `eps` or above `1 - eps` let every pixel of a black
        or white ground change: keep trained ones inside with
        `ThresholdRange(eps, 1 - eps)`. Trained, they follow the quantizer's
        slope: at a steepness of 5 that also pulls where no pixel can change
        its level, and they drift to an end of their range; 50 does not. `fit`
        on data of unknown length lets the box wait for the end of its first
        epoch, also of a `fit` that goes on from a backup.

    Reference:
        - Gowal et al., 2018: https://arxiv.org/abs/1810.12715
        - Shi et al., 2021: https://arxiv.org/abs/2103.17268
        - Müller et al., 2023 (SABR): https://arxiv.org/abs/2210.04871
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
        box_share=1.0,
    ):
        low, high = map(float, value_range)
        if not 0 < check_number("eps", eps) <= high - low:
            raise ValueError(
                f"`eps` must lie in (0, {high - low:g}], the width of "
                f"`value_range`. Received: eps={eps}, "
                f"value_range={value_range}"
            )
        if not 0 <= check_number("clean_share", clean_share) < 1:
            raise ValueError(
                "`clean_share` must lie in [0, 1). "
                f"Received: clean_share={clean_share}"
            )
        if not 0 < check_number("box_share", box_share) <= 1:
            raise ValueError(
                "`box_share` must lie in (0, 1]. "
                f"Received: box_share={box_share}"
            )
        self.eps = float(eps)
        self.clean_share = float(clean_share)
        self.box_share = float(box_share)
        self.warmup_epochs = check_count("warmup_epochs", warmup_epochs, 0)
        self.ramp_epochs = check_count("ramp_epochs", ramp_epochs)
        self.regularizer = check_at_least("regularizer", regularizer, 0)
        self.value_range = low, high

    def build(self, net):
        super().build(net)
        self._graph = trace(net.wrapper, net.wrapper.input_shape)
        self._are_logits = returns_logits(net.wrapper)
        self.grown = net.add_weight(
            shape=(), initializer="zeros", trainable=False, name="growth"
        )
        self._accuracy = Share(net.free_name("cert_accuracy"))
        self.metrics = [self._accuracy]
        self.callbacks = [GrowingBox(self)]

    def outputs(self, forward):
        # Where nothing of the loss is left on them, no gradient is taken.
        return tf.cond(
            self._share_of_given() > 0,
            forward,
            lambda: tf.stop_gradient(forward()),
        )

    def loss(self, batch, loss):
        grown = tf.convert_to_tensor(self.grown)
        worst, bounds = self._worst_logits(
            *(batch.x, batch.given, batch.labels),
            grown * self.box_share,
            training=True,
        )
        self._accuracy.update_state(proved(worst, batch.labels))
        lost = self.net.compute_loss(
            batch.given,
            batch.y,
            as_returned(worst, batch.outputs.shape[1], self._are_logits),
            batch.sample_weight,
            True,
        )
        share = self._share_of_given()
        loss = share * loss + (1 - share) * lost
        if self.regularizer:
            loss += tf.cond(
                grown < 1,
                lambda: (
                    self.regularizer
                    * (1 - grown)
                    * regularization(self._graph, bounds)
                ),
                lambda: 0.0,
            )
        return loss

    def evaluate(self, x, labels):
        worst, _ = self._worst_logits(x, x, labels, 1.0, training=False)
        self._accuracy.update_state(proved(worst, labels))

    def growth(self, epoch):
        """How much of the box is trained on, from 0 to 1, at some epoch."""
        t = np.clip((epoch - self.warmup_epochs) / self.ramp_epochs, 0, 1)
        # A fourth power that meets its tangent at `_SMOOTH`, and 1 at 1.
        scale = 1 / (_SMOOTH**4 + 4 * _SMOOTH**3 * (1 - _SMOOTH))
        if t < _SMOOTH:
            return float(scale * t**4)
        return float(scale * (_SMOOTH**4 + 4 * _SMOOTH**3 * (t - _SMOOTH)))

    def bounds(self, graph, x, size, given=None):
        """`Bounds` of all nodes for boxes of a share `size` of the whole.

        They lie around what the network is given for the images `x`, by
        default around these.
        """
        ends = norms.ball(x, self.eps, *self.value_range)
        low, high = interval.levels(graph, *ends)
        middle = graph.quantized(x if given is None else given)
        low, high = (middle + size * (end - middle) for end in (low, high))
        first = interval.level_bounds(graph, low, high)
        return interval.propagate(graph, first)

    def _worst_logits(self, x, given, labels, size, training):
        """The worst that intervals allow, and the bounds of all nodes."""
        with self.net.convolutions(training):
            bounds = self.bounds(self._graph, x, size, given)
            return worst_logits(self._graph, bounds, labels), bounds

    def _share_of_given(self):
        """Weight of the loss on what the network is given."""
        return 1 - (1 - self.clean_share) * tf.convert_to_tensor(self.grown)


class GrowingBox(keras.callbacks.Callback):
    """Sets how much of the box counts, batch by batch; `fit` adds it.

    Where nobody knows how many batches an epoch has, the first one of a `fit`
    keeps the growth it starts with, and tells the others. An epoch longer
    than that waits for the next one: the box never shrinks, and never runs
    ahead of its epochs.
    """

    def __init__(self, objective):
        super().__init__()
        self._objective = objective

    def on_train_begin(self, logs=None):
        self._steps = (self.params or {}).get("steps")

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        share = min(batch / self._steps, 1) if self._steps else 0
        growth = self._objective.growth(self._epoch + share)
        self._objective.grown.assign(growth)
        self._begun = batch

    def on_epoch_end(self, epoch, logs=None):
        # The last batch begun is the one at which the data were found to end.
        self._steps = self._steps or self._begun
        if logs is not None:
            logs["box"] = float(self._objective.grown.numpy())


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
    active and surely not, mean and variance should be of like size. Ratios
    above `tolerance` cost nothing.
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
