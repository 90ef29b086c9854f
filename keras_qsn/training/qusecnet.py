"""`QuSecNet`: training, also adversarial and certified, inside `fit`."""

import keras
import tensorflow as tf

from keras_qsn._core.convolution import fast_convolutions
from keras_qsn.attacks.base import Attack
from keras_qsn.certification.graph import trace
from keras_qsn.classifier.accepted import with_float_input
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.training.batches import BatchCheck
from keras_qsn.training.batches import class_numbers
from keras_qsn.training.batches import num_clean
from keras_qsn.training.batches import numbered
from keras_qsn.training.checked import CheckedModel
from keras_qsn.training.intervals import IntervalTraining
from keras_qsn.training.intervals import proved
from keras_qsn.training.intervals import regularization
from keras_qsn.training.intervals import worst_logits
from keras_qsn.training.metrics import Share
from keras_qsn.training.outputs import as_returned
from keras_qsn.training.outputs import class_scores
from keras_qsn.training.outputs import returns_logits
from keras_qsn.training.schedules import GrowingBox

_PRODUCT_DTYPES = ("float32", "bfloat16")


class QuSecNet(CheckedModel):
    """Trains any Keras classifier, adversarially, for certificates, or both.

    A wrapper for training only: `compile`, `fit` and `evaluate` as for any
    Keras model; the model inside is what is trained, saved and served.

    In each batch, the first `clean_share` of the images stay as they are and
    the others are replaced by adversarial examples, crafted on the current
    weights in inference mode, with the true labels; loss, metrics, sample
    weights and the optimizer step are Keras' own on that batch (Kurakin et
    al., 2017). `evaluate` and validation report the compiled metrics on clean
    images and `adv_accuracy`, the accuracy under the full attack. During
    `fit`, `adv_accuracy` is that of the adversarial part of each batch. As of
    Keras' `metrics`, sample weights do not count in it, and callbacks in mode
    `"auto"` know that more is better.

    Random starts follow from the attack's seed and an image's place: in
    `evaluate` and validation its place in the data, so that the same data
    give the same number, and training goes on as without; in training its
    place among all images attacked so far. Replicas of a distribution
    strategy share no start. Images and labels that do not fit (pixels outside
    of the range, several classes for one image) stop the step that is given
    them, whatever they come from.

    With a `certification` the loss on what the network is given is mixed with
    that on the worst case of interval bounds around the clean images (see
    `IntervalTraining`); `evaluate`, validation and `fit` also report
    `cert_accuracy`, the share of images whose bounds allow no other class, at
    full radius. It is a float32 estimate: `certify` proves.

    Thresholds of quantization layers train with the other weights unless
    asked for a cost or a learning rate of their own:

        t <- t - threshold_learning_rate * d(threshold_loss)/dt    (Eq. 3)

    of the same forward pass that the weights are trained on.

    Args:
        model: A built Keras classifier.
        attack: Optional `keras_qsn.attacks.Attack` with a radius. Defaults to
            `None`: plain training.
        clean_share: Float in `[0, 1)`. Share of each batch left clean,
            rounded down (0.29 of 100 are 29). Defaults to `0.5`; `0` trains
            on adversarial examples alone.
        certification: Optional `IntervalTraining`. Defaults to `None`.
        threshold_loss: Optional Keras loss for the thresholds, such as
            `keras_qsn.losses.ProbabilityMeanSquaredError()`. Defaults to
            `None`: the compiled loss.
        threshold_learning_rate: Optional float or Keras schedule, the
            paper's eta. Defaults to `None`: the thresholds take the
            compiled optimizer's steps; or `1e-3` with a `threshold_loss`.
        product_dtype: `"float32"` or `"bfloat16"`: what convolutions multiply
            in while training, forward and backward, in attacks and bounds
            too. The weights, all else, `evaluate` and the trained model stay
            float32. A CPU with bfloat16 products trains faster (1.5 times
            here), one without slower. Defaults to `"float32"`.
        **kwargs: Base `Model` arguments such as `name`.

    Raises:
        TypeError: If `model` is not a Keras model, or is a `QuSecNet`, or
            `attack` is not an attack.
        ValueError: If `attack` has no radius, `clean_share` is outside
            `[0, 1)`, `product_dtype` is unknown, thresholds are to be trained
            on their own and there are none, or data given to `fit` or
            `evaluate` do not fit the model.

    Example:

    >>> net = QuSecNet(
    ...     cleverhans_cnn(quantizer=TrainableQuantization(), seed=0),
    ...     attack=FastGradientMethod(eps=0.3),
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
        Training on single-step examples can collapse: accuracy under FGSM
        rises while accuracy under PGD falls to zero (catastrophic
        overfitting, Wong et al., 2020). Validate with another attack than the
        one trained on. `fit` on data of unknown length lets the box of a
        `certification` wait for the end of its first epoch, also of a `fit`
        that goes on from a backup.

    Reference:
        - Ali et al., 2018, Eqs. 2 to 8 and Fig. 5:
          https://arxiv.org/abs/1811.01437
        - Kurakin et al., 2017, adversarial training on mixed batches:
          https://arxiv.org/abs/1611.01236
        - Wong et al., 2020: https://arxiv.org/abs/2001.03994
    """

    def __init__(
        self,
        model,
        attack=None,
        clean_share=0.5,
        certification=None,
        threshold_loss=None,
        threshold_learning_rate=None,
        product_dtype="float32",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if isinstance(model, QuSecNet):
            raise TypeError(
                "`model` must be the classifier itself. Received: a "
                "`QuSecNet`, which trains one. Give `model.model`."
            )
        self._wrapper = KerasModelWrapper.of(model)
        model = self._wrapper.model
        if attack is not None and not isinstance(attack, Attack):
            raise TypeError(
                "`attack` must be a `keras_qsn.attacks.Attack`, such as "
                f"`FastGradientMethod(eps=0.3)`. Received: attack={attack!r}"
            )
        if attack is not None and attack.eps is None:
            raise ValueError(
                "`attack` must have a radius, `eps`: without one it breaks "
                "every image, however far it must go, and `adv_accuracy` is "
                f"near 0 whatever the model. Received: attack={attack!r}. "
                "Take an attack inside a ball, such as "
                "`ProjectedGradientDescent(eps=0.3)`."
            )
        if not 0.0 <= clean_share < 1.0:
            raise ValueError(
                "`clean_share` must lie in [0, 1); for plain training give "
                f"no attack. Received: clean_share={clean_share}"
            )
        if product_dtype not in _PRODUCT_DTYPES:
            raise ValueError(
                f"`product_dtype` must be one of {_PRODUCT_DTYPES}. "
                f"Received: product_dtype={product_dtype!r}"
            )
        self.model = model
        # Examples lie between the bytes that a model of bytes would make of
        # them. Not kept as a layer: its layers are the model's.
        functional = getattr(model, "inputs", None)
        taking_floats = with_float_input(model) if functional else model
        self._forward = taking_floats.__call__
        self.attack = attack
        self._product_dtype = product_dtype
        self.clean_share = clean_share
        self._threshold_loss = keras.losses.get(threshold_loss)
        self._own_thresholds = []
        if threshold_loss is not None or threshold_learning_rate is not None:
            self._own_thresholds = [
                layer.thresholds
                for layer in self._wrapper.quantizers
                if layer.trainable
            ]
            if not self._own_thresholds:
                raise ValueError(
                    "`threshold_loss` and `threshold_learning_rate` need a "
                    "model with trainable thresholds, such as one that starts "
                    "with `TrainableQuantization`. Received: a model with "
                    f"layers {[layer.name for layer in model.layers]}"
                )
            self._threshold_optimizer = keras.optimizers.SGD(
                1e-3
                if threshold_learning_rate is None
                else threshold_learning_rate
            )
            self._threshold_optimizer.build(self._own_thresholds)
        self.eps = None
        if attack is not None:
            self.eps = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(attack.eps),
                trainable=False,
                name="eps",
            )
            self.adv_accuracy = Share("adv_accuracy")
            self._crafted = self.add_weight(
                shape=(),
                initializer="zeros",
                trainable=False,
                dtype="int32",
                aggregation="only_first_replica",
                name="crafted",
            )
            # Of one evaluation only: no weight, it is not kept.
            self._evaluated = tf.Variable(
                0,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        self.certification = certification
        if certification is not None:
            if not isinstance(certification, IntervalTraining):
                raise TypeError(
                    "`certification` must be an `IntervalTraining`, such as "
                    "`IntervalTraining(eps=0.3)`. "
                    f"Received: certification={certification!r}"
                )
            self._graph = trace(self._wrapper, self._wrapper.input_shape)
            self.growth = self.add_weight(
                shape=(), initializer="zeros", trainable=False, name="growth"
            )
            self.cert_accuracy = Share("cert_accuracy")
        self._check = BatchCheck(self._wrapper, self._value_range())
        # A matter of one column, and of bounds: else scores are scores.
        self._returns_logits = (
            self._wrapper.num_classes > 2 and certification is None
        ) or returns_logits(self._wrapper)
        self.built = True

    def call(self, inputs, training=None):
        def outputs():
            with self._convolutions(training):
                return self._forward(inputs, training=training)

        if not training or self.certification is None:
            return outputs()
        # Where nothing of the loss is left on them, no gradient is taken.
        return tf.cond(
            self._share_of_clean() > 0,
            outputs,
            lambda: tf.stop_gradient(outputs()),
        )

    @property
    def deployed_model(self):
        """The model inside: what is saved, served and attacked."""
        return self.model

    @property
    def trainable_variables(self):
        """What the compiled optimizer trains."""
        own = {id(variable) for variable in self._own_thresholds}
        return [v for v in super().trainable_variables if id(v) not in own]

    @property
    def trainable_weights(self):
        return self.trainable_variables

    def reset_metrics(self):
        super().reset_metrics()
        if self.attack is not None:
            self._evaluated.assign(0)

    def save(self, filepath, *args, **kwargs):
        """Save the model inside; it loads without this wrapper."""
        self.model.save(filepath, *args, **kwargs)

    def export(self, filepath, *args, **kwargs):
        """Export the model inside."""
        self.model.export(filepath, *args, **kwargs)

    def _own_callbacks(self):
        return [] if self.certification is None else [GrowingBox()]

    def _train(self, x, y, sample_weight):
        labels = class_numbers(y, self._wrapper.num_classes)
        given = x
        if self.attack is not None:
            clean = num_clean(tf.shape(x)[0], self.clean_share)
            rest = x[clean:], labels[clean:]
            x_adv = self._craft(*rest, self.eps, self._crafted, training=True)
            given = tf.concat([x[:clean], x_adv], 0)
        thresholds = [variable.value for variable in self._own_thresholds]
        with tf.GradientTape(persistent=bool(thresholds)) as tape:
            y_pred = self(given, training=True)
            loss = self._objective(x, given, y, y_pred, sample_weight, labels)
            cost = loss
            if thresholds and self._threshold_loss is not None:
                cost = self._threshold_loss(y, y_pred, sample_weight)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            tracker = next(m for m in self.metrics if m.name == "loss")
            tracker.update_state(
                loss * replicas if replicas > 1 else loss, tf.shape(x)[0]
            )
            scaled = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        gradients = tape.gradient(scaled, weights)
        # Of the same pass: a second one would move statistics and draws.
        own = thresholds and tape.gradient(cost, thresholds)
        del tape
        if weights or not own:
            self.optimizer.apply_gradients(zip(gradients, weights))
        if own:
            self._threshold_optimizer.apply(own, self._own_thresholds)
        if self.attack is not None:
            scores = class_scores(y_pred, self._returns_logits)
            self._count_adversarial(labels[clean:], scores[clean:])
        return self.compute_metrics(given, y, y_pred, sample_weight)

    def _test(self, x, y, sample_weight):
        data = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        # The compiled metrics, by the step of Keras.
        keras.Model.test_step(self, data)
        labels = class_numbers(y, self._wrapper.num_classes)
        if self.attack is not None:
            x_adv = self._craft(
                x, labels, self.attack.eps, self._evaluated, training=False
            )
            with self._convolutions(training=False):
                logits = self._wrapper.get_logits(x_adv)
            self._count_adversarial(labels, logits)
        if self.certification is not None:
            worst, _ = self._worst_logits(x, labels, 1.0, training=False)
            self.cert_accuracy.update_state(proved(worst, labels))
        return self.get_metrics_result()

    def _objective(self, x, given, y, y_pred, sample_weight, labels):
        """The loss: compiled, or mixed with that on the worst of the boxes."""
        loss = self.compute_loss(given, y, y_pred, sample_weight, True)
        if self.certification is None:
            return loss
        growth = tf.convert_to_tensor(self.growth)
        worst, bounds = self._worst_logits(x, labels, growth, training=True)
        self.cert_accuracy.update_state(proved(worst, labels))
        returned = as_returned(worst, y_pred.shape[1], self._returns_logits)
        lost = self.compute_loss(given, y, returned, sample_weight, True)
        share = self._share_of_clean()
        loss = share * loss + (1 - share) * lost
        weight = self.certification.regularizer
        if weight:
            loss += tf.cond(
                growth < 1,
                lambda: (
                    weight * (1 - growth) * regularization(self._graph, bounds)
                ),
                lambda: 0.0,
            )
        return loss

    def _craft(self, x, labels, eps, counter, training):
        """Adversarial examples, from starts by place in the data."""
        index, seen = numbered(tf.convert_to_tensor(counter), tf.shape(x)[0])
        counter.assign(seen)
        seeds = tf.stack([tf.fill(tf.shape(index), self.attack.seed), index], 1)
        with self._convolutions(training):
            return self.attack.craft(
                self.attack.seen(self._wrapper),
                x,
                labels,
                tf.convert_to_tensor(eps, tf.float32),
                seeds,
            )

    def _count_adversarial(self, labels, scores):
        predicted = tf.argmax(scores, -1, output_type=tf.int32)
        self.adv_accuracy.update_state(tf.equal(labels, predicted))

    def _worst_logits(self, x, labels, growth, training):
        """The worst that intervals allow, and the bounds of all nodes."""
        with self._convolutions(training):
            bounds = self.certification.bounds(self._graph, x, growth)
            return worst_logits(self._graph, bounds, labels), bounds

    def _convolutions(self, training):
        rounded = training and self._product_dtype != "float32"
        return fast_convolutions(
            self.model, self._product_dtype if rounded else None
        )

    def _share_of_clean(self):
        """Weight of the loss on what the network is given."""
        growth = tf.convert_to_tensor(self.growth)
        return 1 - (1 - self.certification.clean_share) * growth

    def _value_range(self):
        if self.attack is not None:
            return self.attack.clip_min, self.attack.clip_max
        if self.certification is not None:
            return self.certification.value_range
        return self._wrapper.value_range
