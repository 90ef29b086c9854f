"""`QueryModel`: a model of which nothing is known but its answers."""

import time

import keras
import numpy as np

from keras_qsn._core.numbers import check_at_least
from keras_qsn._core.numbers import check_count
from keras_qsn.classifier.preprocessing import NumpyFunction

ANSWERS = ("scores", "probabilities", "classes")
# Of the logarithm of a probability.
_SMALLEST = 1e-12


class QueryError(RuntimeError):
    """A function kept failing, or its budget would be exceeded.

    Attributes:
        args: The message: what was asked for, what came, how to mend it.
    """


class QueryModel(keras.Model):
    """Any function from images to answers, as a model to attack.

    A `.tflite` file, a service behind HTTP, a network of another framework:
    attacks that need only answers take it (`SquareAttack`, `SPSA`,
    `HopSkipJumpAttack`, `LocalSearchAttack`, `PointwiseAttack`,
    `TransferAttack` from another model), and `evaluate_robustness` chooses
    those by itself. Each image that is sent counts, those sent again too.

    Answers that fail are asked for again: exceptions, another shape, and, of
    single images, numbers that are not finite.

    Args:
        function: From a float32 NumPy array `(images, ...)` to an array of
            scores `(images, classes)`, or of classes `(images,)`.
        num_classes: Integer >= 2.
        input_shape: Shape of one image.
        answers: `"scores"`: logits, any numbers that grow with the class's
            chance; `"probabilities"`, whose logarithm is taken; `"classes"`,
            whole numbers: attacks on scores then see steps alone. Defaults to
            `"scores"`.
        budget: Integer >= 1. Images that may be sent. Defaults to `None`: no
            limit.
        batch_size: Integer >= 1. Images sent at once. Defaults to `128`.
        attempts: Integer >= 1. How often one image is asked for. Defaults to
            `3`.
        wait: Float >= 0. Seconds before the second attempt, doubled before
            each further one. Defaults to `0.0`.
        name: Name of the model. Defaults to `"queries"`.

    Attributes:
        queries: Images sent so far.
        failures: How many times each of `"exception"`, `"shape"` and
            `"not finite"` was answered.

    Raises:
        TypeError: If `function` cannot be called.
        ValueError: If an argument is out of range.
        QueryError: In a call, if the next images exceed the budget (then none
            of them is sent), or each attempt failed. Inside of an attack it is
            a `tf.errors.UnknownError` with the same text.

    Example:

    >>> def service(x):
    ...     return np.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1)
    >>> model = QueryModel(service, 2, (28, 28, 1), budget=500)
    >>> x = np.full((2, 28, 28, 1), 0.45, "float32")
    >>> x_adv = SquareAttack(eps=0.1, nb_queries=50).generate(model, x, [1, 1])
    >>> 100 <= model.queries <= 500
    True

    Limitations:
        Attacks without the model's gradient find less: where the network is
        known, attack a twin of it, and carry over (`sources={"twin": twin}`).
        The model runs in Python, in this process, and is not saved. Ctrl-C
        takes effect when the attack is done with its batch of images, whose
        queries are paid and lost: give an evaluation of a slow service a
        small `batch_size`, and a `folder`.
    """

    def __init__(
        self,
        function,
        num_classes,
        input_shape,
        answers="scores",
        budget=None,
        batch_size=128,
        attempts=3,
        wait=0.0,
        name="queries",
    ):
        layer = Queries(
            function,
            num_classes,
            answers,
            budget,
            batch_size,
            attempts,
            wait,
            name="asked",
        )
        x = keras.Input(input_shape)
        # By its kind the library sees that these are logits.
        y = keras.layers.Activation("linear", name="logits")(layer(x))
        super().__init__(x, y, name=name)
        self.asked = layer

    def get_config(self):
        """Refused: saved or copied, it would ask and count elsewhere."""
        raise ValueError(
            "A `QueryModel` must stay in this process, where its queries are "
            "counted. Received: a call to save it, to clone it, or to share "
            "it with other processes. Make it again from its function, and "
            "leave `workers=1`."
        )

    @property
    def queries(self):
        return self.asked.queries

    @property
    def failures(self):
        return dict(self.asked.failures)


class Queries(NumpyFunction):
    """The layer of a `QueryModel`, whose arguments these are."""

    def __init__(
        self,
        function,
        num_classes,
        answers="scores",
        budget=None,
        batch_size=128,
        attempts=3,
        wait=0.0,
        **kwargs,
    ):
        super().__init__(function, **kwargs)
        self.num_classes = check_count("num_classes", num_classes, 2)
        if answers not in ANSWERS:
            raise ValueError(
                f"`answers` must be one of {', '.join(ANSWERS)}. "
                f"Received: answers={answers!r}"
            )
        self.answers = answers
        if budget is not None:
            budget = check_count("budget", budget)
        self.budget = budget
        self.batch_size = check_count("batch_size", batch_size)
        self.attempts = check_count("attempts", attempts)
        self.wait = check_at_least("wait", wait, 0)
        self.queries = 0
        self.failures = {"exception": 0, "shape": 0, "not finite": 0}

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_classes)

    def get_config(self):
        names = ("num_classes", "answers", "budget", "batch_size")
        names += ("attempts", "wait")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own}

    def ask(self, x):
        """Scores of images, in batches; outside of any graph."""
        starts = range(0, len(x), self.batch_size)
        size = self.batch_size
        found = [self._asked(x[i : i + size]) for i in starts]
        return np.concatenate(
            [np.zeros((0, self.num_classes), "float32")] + found
        )

    def _made(self, x):
        return self.ask(x)

    def _asked(self, x):
        """Scores of a batch; `QueryError` unless each image has some."""
        scores, reason = self.answered(x)
        if reason:
            raise QueryError(reason)
        return scores

    def answered(self, x):
        """Scores of a batch, each of its images asked for until it is told.

        Args:
            x: Float32 array of images, sent at once.

        Returns:
            Scores, NaN for images without an answer; and, if there are such,
            the text of the error that this is, else `""`.

        Raises:
            QueryError: If the budget does not allow for all; none is sent.
        """
        scores = np.full((len(x), self.num_classes), np.nan, "float32")
        missing, attempts, reason = np.arange(len(x)), 0, ""
        while attempts < self.attempts and len(missing):
            if attempts and not self._affords(len(missing)):
                break
            if attempts and self.wait:
                time.sleep(self.wait * 2 ** (attempts - 1))
            self.count(len(missing))
            found, reason = self._answer(x[missing])
            attempts += 1
            if found is not None:
                scores[missing] = found
                missing = missing[~np.isfinite(found).all(1)]
        if not len(missing):
            return scores, ""
        return scores, (
            f"The function must answer each image. Received: {reason}, in "
            f"{attempts} attempts, for {len(missing)} of {len(x)} images "
            f"after {self.queries:,} queries. Mend it, or allow for more "
            "`attempts` and a longer `wait`."
        )

    def count(self, count):
        """Count images that are about to be sent, or refuse them."""
        if not self._affords(count):
            raise QueryError(
                f"The budget of {self.budget:,} queries must not be exceeded. "
                f"Received: {count} images more, after {self.queries:,} "
                "queries. Attack fewer images, or give a larger `budget`."
            )
        self.queries += count

    def _affords(self, count):
        return self.budget is None or self.queries + count <= self.budget

    def _answer(self, x):
        """Scores of images, with NaN for those that failed, and why."""
        try:
            found = np.asarray(self.function(x))
        # Any: it may be a service.
        except Exception as error:
            self.failures["exception"] += 1
            return None, f"{type(error).__name__}: {error}"
        shape = (len(x),)
        if self.answers != "classes":
            shape = (len(x), self.num_classes)
        if found.shape != shape or found.dtype.kind not in "biuf":
            self.failures["shape"] += 1
            return None, (
                f"an array of shape {found.shape} and type {found.dtype}, not "
                f"numbers of shape {shape}"
            )
        scores = self._scores(found)
        bad = int((~np.isfinite(scores).all(1)).sum())
        self.failures["not finite"] += bad
        return scores, "numbers that are not finite, or no classes"

    def _scores(self, found):
        if self.answers == "classes":
            classes = np.arange(self.num_classes)
            scores = np.where(found[:, None] == classes, 1.0, -1.0)
            scores[~np.isin(found, classes)] = np.nan
            return scores.astype("float32")
        found = found.astype("float32")
        if self.answers == "probabilities":
            found = np.where(found < 0, np.nan, found)
            return np.log(np.maximum(found, np.float32(_SMALLEST)))
        return found
