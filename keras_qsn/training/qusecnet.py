"""`QuSecNet`: training for an objective, inside `fit`."""

import copy
import functools
import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.convolution import fast_convolutions
from keras_qsn._core.precision import low_precision
from keras_qsn.attacks.base import Attack
from keras_qsn.classifier.accepted import with_float_input
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.training.batches import BatchCheck
from keras_qsn.training.batches import class_numbers
from keras_qsn.training.checked import CheckedModel
from keras_qsn.training.objectives.adversarial import AdversarialTraining
from keras_qsn.training.objectives.base import Batch
from keras_qsn.training.objectives.base import Objective

_PRODUCT_DTYPES = ("float32", "bfloat16")

# Arguments of 0.1.0, and what has them now.
_MOVED = {
    "attack": "AdversarialTraining(attack)",
    "clean_share": "AdversarialTraining(attack, clean_share)",
    "certification": "IntervalTraining(...)",
    "threshold_loss": "ThresholdTraining(loss, ...)",
    "threshold_learning_rate": "ThresholdTraining(loss, learning_rate)",
}


class QuSecNet(CheckedModel):
    """Trains any Keras classifier for more than its loss on clean images.

    A wrapper for training only: `compile`, `fit` and `evaluate` as for any
    Keras model; the model inside is what is trained, saved and served.

    What it is trained for is an objective, or several that work on one
    another in the order given: an attack, for half of each batch
    (`AdversarialTraining`); `IntervalTraining`, for certificates; with an
    attack before it, both (MTL-IBP); `TRADES`, `MART`;
    `ConsistencyTraining`; `ThresholdTraining`, which gives thresholds a cost
    of their own; an `Objective` of yours.

    Loss, metrics, sample weights and the optimizer step are Keras' own on
    what the network is given. `evaluate` and validation report the compiled
    metrics on clean images, and beside them those of the objectives. As of
    Keras' `metrics`, sample weights do not count in these, and callbacks in
    mode `"auto"` know that more is better.

    Images and labels that do not fit (pixels outside of the range, several
    classes for one image) stop the step that is given them, whatever they
    come from.

    On several devices make the model, and call `compile` and `fit`, inside the
    scope of a `tf.distribute` strategy, as always in Keras. For several
    machines (`MultiWorkerMirroredStrategy`) make the `QuSecNet` itself outside
    of it, and say `steps_per_epoch`: Keras 3 cannot draw the batch from which
    it would build a network made inside.

    Args:
        model: A built Keras classifier.
        objective: A `keras_qsn.attacks.Attack` with a radius, which stands
            for `AdversarialTraining(attack)`; an `Objective`; or a list of
            these. Defaults to `None`: plain training.
        product_dtype: `"float32"` or `"bfloat16"`: what inner layers compute
            in while training, forward and backward, in attacks and bounds
            too, as under `mixed_bfloat16`. The weights, quantizers, logits,
            `evaluate` and the trained model stay float32. A CPU with bfloat16
            products trains faster (1.6 to 1.8 times with AVX512_BF16), one
            without slower. Defaults to `"float32"`.
        **kwargs: Base `Model` arguments such as `name`.

    Attributes:
        objectives: The objectives, built for this network.

    Raises:
        TypeError: If `model` is not a Keras model, or is a `QuSecNet`, or
            `objective` is no objective.
        ValueError: If an objective does not suit the model, two of them need
            different ranges of pixels, `product_dtype` is unknown, or data
            given to `fit` or `evaluate` do not fit the model, or it is made
            inside the scope of a `MultiWorkerMirroredStrategy`.

    Example:

    >>> net = QuSecNet(
    ...     cleverhans_cnn(quantizer=TrainableQuantization(), seed=0),
    ...     FastGradientMethod(eps=0.3),
    ... )
    >>> net.compile(
    ...     "adam",
    ...     keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...     metrics=["accuracy"],
    ... )
    >>> x, y = np.zeros((8, 28, 28, 1), "float32"), np.arange(8)
    >>> history = net.fit(x, y, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'adv_accuracy', 'loss']

    Limitations:
        Accuracy under the attack trained on is not robustness: see
        `AdversarialTraining`, and measure with `evaluate_robustness`.

    Reference:
        - Ali et al., 2018: https://arxiv.org/abs/1811.01437
    """

    def __init__(
        self, model, objective=None, *, product_dtype="float32", **kwargs
    ):
        for name in kwargs.keys() & _MOVED.keys():
            raise TypeError(
                f"`{name}` must be given as `objective={_MOVED[name]}`, or in "
                f"a list of objectives. Received: {name}={kwargs[name]!r}"
            )
        strategy = tf.distribute.get_strategy()
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError(
                "A `QuSecNet` for several machines must be made outside of "
                "the scope of its strategy, around a model made inside. "
                f"Received: the scope of a {type(strategy).__name__}"
            )
        super().__init__(**kwargs)
        if isinstance(model, QuSecNet):
            raise TypeError(
                "`model` must be the classifier itself. Received: a "
                "`QuSecNet`, which trains one. Give `model.model`."
            )
        self.wrapper = KerasModelWrapper.of(model)
        self.model = model = self.wrapper.model
        if self.wrapper.answers_only:
            raise ValueError(
                "`model` must be a network with weights to train. Received: "
                f"'{model.name}', of which only the answers are known. Train "
                "a network of your own, and evaluate this one beside it."
            )
        if product_dtype not in _PRODUCT_DTYPES:
            raise ValueError(
                f"`product_dtype` must be one of {_PRODUCT_DTYPES}. "
                f"Received: product_dtype={product_dtype!r}"
            )
        self._product_dtype = product_dtype
        # Examples lie between the bytes that a model of bytes would make of
        # them. Not kept as a layer: its layers are the model's.
        functional = getattr(model, "inputs", None)
        taking_floats = with_float_input(model) if functional else model
        self._forward = taking_floats.__call__
        self.objectives = _as_objectives(objective)
        for objective in self.objectives:
            # Its metrics count on every device that the weights are on.
            with _strategy_of(model).scope():
                objective.build(self)
            self.own_callbacks += tuple(objective.callbacks)
            for metric in objective.metrics:
                if hasattr(self, metric.name):
                    raise ValueError(
                        "Each metric of an objective must have a name that "
                        "nothing of the network has, as `net.free_name(name)` "
                        f"makes one. Received: '{metric.name}' of "
                        f"{type(objective).__name__}"
                    )
                setattr(self, metric.name, metric)
        self._check = BatchCheck(self.wrapper, self._value_range())
        self.built = True

    def call(self, inputs, training=None):
        def forward():
            with self.convolutions(training):
                return self._forward(inputs, training=training)

        for objective in self.objectives if training else ():
            forward = functools.partial(objective.outputs, forward)
        return forward()

    @property
    def deployed_model(self):
        """The model inside: what is saved, served and attacked."""
        return self.model

    @property
    def trainable_variables(self):
        """What the compiled optimizer trains."""
        own = {id(v) for o in self.objectives for v in o.trains}
        return [v for v in super().trainable_variables if id(v) not in own]

    @property
    def trainable_weights(self):
        return self.trainable_variables

    def reset_metrics(self):
        super().reset_metrics()
        for objective in self.objectives:
            objective.reset()

    def save(self, filepath, *args, **kwargs):
        """Save the model inside; it loads without this wrapper."""
        self.model.save(filepath, *args, **kwargs)

    def export(self, filepath, *args, **kwargs):
        """Export the model inside."""
        self.model.export(filepath, *args, **kwargs)

    def free_name(self, name):
        """A name for a metric: this, or with a number if something has it."""
        numbered = (f"{name}_{i}" for i in itertools.count(1))
        names = itertools.chain([name], numbered)
        return next(each for each in names if not hasattr(self, each))

    def convolutions(self, training):
        """A context in which the layers compute as fast as they can.

        For work of an objective on the layers, outside of the call of the
        network. In training, products are in `product_dtype`.
        """
        if training and self._product_dtype != "float32":
            return low_precision(self.model, self._product_dtype)
        return fast_convolutions(self.model)

    def _train(self, x, y, sample_weight):
        own = any(objective.trains for objective in self.objectives)
        weights = self.trainable_weights
        if not (weights or own):
            raise ValueError(
                "`model` must have weights to train. Received: none, or all "
                "frozen. Set `model.trainable = True`, or `evaluate` it."
            )
        labels = class_numbers(y, self.wrapper.num_classes)
        given = x
        for objective in self.objectives:
            given = objective.images(given, labels)
        with tf.GradientTape(persistent=own) as tape:
            outputs = self(given, training=True)
            batch = Batch(x, y, labels, sample_weight, given, outputs, tape)
            loss = self.compute_loss(given, y, outputs, sample_weight, True)
            for objective in self.objectives:
                loss = _checked_loss(objective, batch, loss)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            tracker = next(m for m in self.metrics if m.name == "loss")
            tracker.update_state(
                loss * replicas if replicas > 1 else loss, tf.shape(x)[0]
            )
            scaled = self.optimizer.scale_loss(loss)
        if weights:
            gradients = tape.gradient(scaled, weights)
            self.optimizer.apply_gradients(zip(gradients, weights))
        return self.compute_metrics(given, y, outputs, sample_weight)

    def _test(self, x, y, sample_weight):
        data = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        # The compiled metrics, by the step of Keras.
        keras.Model.test_step(self, data)
        labels = class_numbers(y, self.wrapper.num_classes)
        for objective in self.objectives:
            objective.evaluate(x, labels)
        return self.get_metrics_result()

    def _value_range(self):
        """The range of pixels that all objectives agree on."""
        ranges = [o.value_range for o in self.objectives if o.value_range]
        if any(not all(map(np.array_equal, r, ranges[0])) for r in ranges):
            raise ValueError(
                "All objectives must have the same range of pixels: "
                "`clip_min` and `clip_max` of an attack, `value_range` "
                f"elsewhere. Received: {', '.join(map(str, ranges))}"
            )
        return ranges[0] if ranges else self.wrapper.value_range


def _strategy_of(model):
    """The `tf.distribute.Strategy` that the weights of a model are made in."""
    values = [weight.value for weight in model.weights]
    found = [getattr(value, "distribute_strategy", None) for value in values]
    return next(filter(None, found), tf.distribute.get_strategy())


def _as_objectives(given):
    """A list of objectives, copies that can be built for one network."""
    if not isinstance(given, (list, tuple)):
        given = [] if given is None else [given]
    objectives = []
    for part in given:
        if isinstance(part, Attack):
            part = AdversarialTraining(part)
        if not isinstance(part, Objective):
            raise TypeError(
                "`objective` must be a `keras_qsn.attacks.Attack`, such as "
                "`FastGradientMethod(eps=0.3)`, a "
                "`keras_qsn.training.Objective`, or a list of these. "
                f"Received: {part!r} of type {type(part).__name__}"
            )
        objectives.append(copy.copy(part))
    return objectives


def _checked_loss(objective, batch, loss):
    """The loss with an objective's own, which must be returned."""
    loss = objective.loss(batch, loss)
    if loss is None:
        raise TypeError(
            f"`{type(objective).__name__}.loss` must return a scalar tensor, "
            "the loss it is given and what it adds. Received: None"
        )
    return loss
