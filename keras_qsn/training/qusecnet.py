"""`QuSecNet`: training, also adversarial and certified, inside `fit`."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn.attacks.base import Attack
from keras_qsn.certification.graph import trace
from keras_qsn.convolution import fast_convolutions
from keras_qsn.inputs import check_images
from keras_qsn.inputs import check_labels
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper
from keras_qsn.tracing import layers_of
from keras_qsn.training.intervals import IntervalTraining
from keras_qsn.training.intervals import regularization
from keras_qsn.training.intervals import worst_logits
from keras_qsn.training.schedules import GrowingBox

_PRODUCT_DTYPES = ("float32", "bfloat16")


class QuSecNet(keras.Model):
    """Trains any Keras classifier, adversarially, for certificates, or both.

    A wrapper for training only: `compile`, `fit` and `evaluate` as for any
    Keras model; the model inside is what is trained, saved and served.

    In each batch, the first `clean_share` of the images stay as they are and
    the others are replaced by adversarial examples, crafted on the current
    weights in inference mode, with the true labels; loss, metrics, sample
    weights and the optimizer step are Keras' own on that batch (Kurakin et
    al., 2017). `evaluate` and validation report the compiled metrics on clean
    images and `adv_accuracy`, the accuracy under the full attack. During
    `fit`, `adv_accuracy` is that of the adversarial part of each batch.

    With a `certification` the loss on what the network is given is mixed with
    that on the worst case of interval bounds around the clean images (see
    `IntervalTraining`); `evaluate`, validation and `fit` also report
    `cert_accuracy`, the share of images whose bounds allow no other class, at
    full radius. It is a float32 estimate: `certify` proves.

    Thresholds of quantization layers train with the other weights unless
    asked for a cost or a learning rate of their own:

        t <- t - threshold_learning_rate * d(threshold_loss)/dt    (Eq. 3)

    Args:
        model: A built Keras classifier.
        attack: Optional `keras_qsn.attacks.Attack`. Defaults to `None`: plain
            training.
        clean_share: Float in `[0, 1)`. Share of each batch left clean,
            rounded down. Defaults to `0.5`; `0` trains on adversarial
            examples alone.
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
        TypeError: If `model` is not a Keras model or `attack` not an attack.
        ValueError: If `clean_share` is outside `[0, 1)`, `product_dtype` is
            unknown, thresholds are to be trained on their own and there are
            none, or data given to `fit` or `evaluate` do not fit the model.

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
        one trained on.

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
        self._wrapper = KerasModelWrapper(model)
        if attack is not None and not isinstance(attack, Attack):
            raise TypeError(
                "`attack` must be a `keras_qsn.attacks.Attack`, such as "
                f"`FastGradientMethod(eps=0.3)`. Received: attack={attack!r}"
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
        self.attack = attack
        self._product_dtype = product_dtype
        self.clean_share = clean_share
        self._threshold_loss = keras.losses.get(threshold_loss)
        self._own_thresholds = []
        if threshold_loss is not None or threshold_learning_rate is not None:
            self._own_thresholds = _trainable_thresholds(model)
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
            self.adv_accuracy = keras.metrics.Mean(name="adv_accuracy")
            self._crafted = self.add_weight(
                shape=(),
                initializer="zeros",
                trainable=False,
                dtype="int32",
                name="crafted",
            )
        self.certification = certification
        if certification is not None:
            if not isinstance(certification, IntervalTraining):
                raise TypeError(
                    "`certification` must be an `IntervalTraining`, such as "
                    "`IntervalTraining(eps=0.3)`. "
                    f"Received: certification={certification!r}"
                )
            self._graph = trace(self._wrapper, model.input_shape[1:])
            self.growth = self.add_weight(
                shape=(), initializer="zeros", trainable=False, name="growth"
            )
            self.cert_accuracy = keras.metrics.Mean(name="cert_accuracy")
        self._num_clean = None
        self._around = None
        self.built = True

    def call(self, inputs, training=None):
        def outputs():
            with self._convolutions(training):
                return self.model(inputs, training=training)

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

    def fit(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.fit`, after a check of the images and labels."""
        self._check(x, y)
        if kwargs.get("validation_data") is not None:
            validation = kwargs["validation_data"]
            if isinstance(validation, tuple):
                self._check(*validation[:2])
            else:
                self._check(validation, None)
        if self.certification is not None:
            kwargs["callbacks"] = [
                *(kwargs.get("callbacks") or ()),
                GrowingBox(),
            ]
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.evaluate`, with `adv_accuracy` under the attack."""
        self._check(x, y)
        return super().evaluate(x, y, *args, **kwargs)

    def save(self, filepath, *args, **kwargs):
        """Save the model inside; it loads without this wrapper."""
        self.model.save(filepath, *args, **kwargs)

    def export(self, filepath, *args, **kwargs):
        """Export the model inside."""
        self.model.export(filepath, *args, **kwargs)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._around = x
        if self.attack is not None:
            x = self._mix(x, y)
        gradients = self._threshold_gradients(x, y, sample_weight)
        logs = super().train_step(
            keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        )
        if gradients:
            self._threshold_optimizer.apply(gradients, self._own_thresholds)
        return logs

    def test_step(self, data):
        self._num_clean = self._around = None
        super().test_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.attack is not None:
            x_adv = self._craft(x, y, self.attack.eps, training=False)
            self._update_adv_accuracy(
                y, self(x_adv, training=False), sample_weight
            )
        if self.certification is not None:
            worst, _ = self._worst_logits(x, y, 1.0, training=False)
            self._update_cert_accuracy(y, worst, sample_weight)
        return self.get_metrics_result()

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        given = super().compute_loss(x, y, y_pred, sample_weight, training)
        if self.certification is None or self._around is None:
            return given
        growth = tf.convert_to_tensor(self.growth)
        worst, bounds = self._worst_logits(self._around, y, growth, training)
        self._update_cert_accuracy(y, worst, sample_weight)
        lost = super().compute_loss(x, y, worst, sample_weight, training)
        share = self._share_of_clean()
        loss = share * given + (1 - share) * lost
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

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if self._num_clean is not None:
            rows = slice(self._num_clean, None)
            self._update_adv_accuracy(
                y[rows],
                y_pred[rows],
                None if sample_weight is None else sample_weight[rows],
            )
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _mix(self, x, y):
        """The batch with its last images replaced by adversarial ones."""
        share = tf.cast(tf.shape(x)[0], tf.float32) * self.clean_share
        self._num_clean = tf.cast(tf.floor(share), tf.int32)
        clean, rest = x[: self._num_clean], x[self._num_clean :]
        x_adv = self._craft(rest, y[self._num_clean :], self.eps, training=True)
        return tf.concat([clean, x_adv], 0)

    def _craft(self, x, y, eps, training):
        count = tf.shape(x)[0]
        first = tf.convert_to_tensor(self._crafted)
        self._crafted.assign(first + count)
        index = first + tf.range(count)
        seeds = tf.stack([tf.fill([count], self.attack.seed), index], 1)
        with self._convolutions(training):
            return self.attack.craft(
                self.attack.view(self._wrapper),
                tf.cast(x, tf.float32),
                _class_numbers(y, self.model.output_shape[-1]),
                tf.convert_to_tensor(eps, tf.float32),
                seeds,
            )

    def _convolutions(self, training):
        rounded = training and self._product_dtype != "float32"
        return fast_convolutions(
            self.model, self._product_dtype if rounded else None
        )

    def _share_of_clean(self):
        """Weight of the loss on what the network is given."""
        growth = tf.convert_to_tensor(self.growth)
        return 1 - (1 - self.certification.clean_share) * growth

    def _worst_logits(self, x, y, growth, training):
        """The worst that intervals allow, and the bounds of all nodes."""
        x = tf.cast(x, tf.float32)
        with self._convolutions(training):
            bounds = self.certification.bounds(self._graph, x, growth)
            labels = _class_numbers(y, self._graph.num_classes)
            return worst_logits(self._graph, bounds, labels), bounds

    def _update_cert_accuracy(self, y, worst, sample_weight):
        others = tf.one_hot(
            _class_numbers(y, worst.shape[-1]),
            worst.shape[-1],
            on_value=-np.inf,
            off_value=0.0,
        )
        proved = tf.reduce_max(worst + others, 1) < 0
        self.cert_accuracy.update_state(
            tf.cast(proved, tf.float32), sample_weight
        )

    def _update_adv_accuracy(self, y, y_pred, sample_weight):
        labels = _class_numbers(y, y_pred.shape[-1])
        predicted = tf.argmax(y_pred, -1, output_type=tf.int32)
        self.adv_accuracy.update_state(
            tf.cast(tf.equal(labels, predicted), tf.float32), sample_weight
        )

    def _threshold_gradients(self, x, y, sample_weight):
        if not self._own_thresholds:
            return []
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            if self._threshold_loss is None:
                cost = self.compute_loss(x, y, y_pred, sample_weight)
            else:
                cost = self._threshold_loss(y, y_pred, sample_weight)
        return tape.gradient(cost, [t.value for t in self._own_thresholds])

    def _check(self, x, y):
        """Refuse data that do not fit, before any training."""
        if isinstance(x, tf.data.Dataset):
            batch = next(iter(x), None)
            if batch is None:
                raise ValueError(
                    "`x` must hold at least one batch. Received: an empty "
                    "tf.data.Dataset."
                )
            x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        if not (isinstance(x, np.ndarray) or tf.is_tensor(x)):
            return
        low, high = self._pixel_range()
        images = check_images(x, low, high, self.model)
        if y is not None:
            check_labels(y, len(images), self.model.output_shape[-1])

    def _pixel_range(self):
        if self.attack is not None:
            return self.attack.clip_min, self.attack.clip_max
        quantizers = _quantizers(self.model)
        if quantizers:
            return quantizers[0].value_range
        return -np.inf, np.inf


def _quantizers(model):
    return [q for q in layers_of(model) if isinstance(q, QuantLayer)]


def _trainable_thresholds(model):
    return [layer.thresholds for layer in _quantizers(model) if layer.trainable]


def _class_numbers(y, num_classes):
    """Integer classes from integer or one-hot labels."""
    y = tf.convert_to_tensor(y)
    if len(y.shape) == 2 and y.shape[-1] == num_classes:
        return tf.argmax(y, -1, output_type=tf.int32)
    return tf.cast(tf.reshape(y, [-1]), tf.int32)
