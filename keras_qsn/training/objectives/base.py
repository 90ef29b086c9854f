"""The contract of a training objective."""

import typing

import tensorflow as tf


class Batch(typing.NamedTuple):
    """What an objective's loss is made of.

    Attributes:
        x: Clean images, float32.
        y: Labels as `fit` was given them.
        labels: Class numbers, int32 of shape `(images,)`.
        sample_weight: As `fit` was given it, or `None`.
        given: What the network was given in place of `x`.
        outputs: What it returned for `given`.
        tape: The gradient tape that records the step; persistent where an
            objective `trains` variables itself.
    """

    x: tf.Tensor
    y: tf.Tensor
    labels: tf.Tensor
    sample_weight: tf.Tensor | None
    given: tf.Tensor
    outputs: tf.Tensor
    tape: tf.GradientTape


class Objective:
    """Base class of what `QuSecNet` trains for, beside the compiled loss.

    A training step calls, of one objective after the other, in the order in
    which `QuSecNet` was given them:

    1. `images`, outside of the gradient: what the network is given;
    2. `outputs`, around the call of the network on that;
    3. `loss`, with the compiled loss or what those before made of it.

    A step of `evaluate` and of validation calls `evaluate`. All have a default
    that changes nothing: a subclass has those that it is made of. `QuSecNet`
    builds a copy (`build`), so that one objective serves many networks.

    Attributes of a built objective, all optional: `net`, its `QuSecNet`;
    `value_range`, the smallest and largest pixel that `fit` accepts;
    `metrics`, Keras metrics that `fit` and `evaluate` report; `callbacks`,
    Keras callbacks that `fit` adds; `radius`, the weight that `EpsScheduler`
    sets; `trains`, variables that it trains itself, and the compiled optimizer
    does not.

    Of the network, an objective is given `net.model`, its facts and inference
    `net.wrapper`, `net(x, training=True)`, `net.compute_loss` as of any Keras
    model, `net.add_weight` for what a backup must hold, `net.free_name(name)`
    for a metric, and the context `net.convolutions(training)` for work of its
    own on the layers.

    Example:

    A loss of consistency: a mirrored image should get the same answer.

    >>> class Mirrored(Objective):
    ...     def __init__(self, weight):
    ...         self.weight = weight
    ...
    ...     def loss(self, batch, loss):
    ...         mirrored = self.net(batch.given[:, :, ::-1], training=True)
    ...         apart = tf.reduce_mean((mirrored - batch.outputs) ** 2)
    ...         return loss + self.weight * apart
    >>> attack = FastGradientMethod(0.1)
    >>> net = QuSecNet(cleverhans_cnn(seed=0), [attack, Mirrored(0.5)])
    >>> net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    >>> x, y = np.zeros((8, 28, 28, 1), "float32"), np.arange(8)
    >>> sorted(net.fit(x, y, verbose=0).history)
    ['adv_accuracy', 'loss']

    Limitations:
        On several replicas Keras adds up their losses: of terms that are no
        `keras.losses.Loss`, each replica is to give its share.
    """

    value_range = None
    metrics = ()
    callbacks = ()
    radius = None
    trains = ()

    def build(self, net):
        """Make weights and metrics, refuse a model that does not do.

        Args:
            net: The `QuSecNet`.
        """
        self.net = net

    def images(self, x, labels):
        """What the network is given in place of the images `x`."""
        return x

    def outputs(self, forward):
        """What `forward()` returns, the network's output."""
        return forward()

    def loss(self, batch, loss):
        """A scalar tensor to minimise.

        Args:
            batch: `Batch`.
            loss: The loss so far.
        """
        return loss

    def evaluate(self, x, labels):
        """Update the metrics for a batch of an evaluation."""

    def reset(self):
        """An epoch or an evaluation begins: its metrics are reset."""
