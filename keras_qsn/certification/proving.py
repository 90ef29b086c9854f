"""What is proved of some images, in whatever process."""

import dataclasses
import functools
import time

import numpy as np

from keras_qsn.attacks.norms import ball
from keras_qsn.certification.bounds.compiled import CompiledBounds
from keras_qsn.certification.branching.search import branch
from keras_qsn.certification.certificate import Certificate
from keras_qsn.certification.certificate import arrays_of
from keras_qsn.certification.deployed import Deployed

# Images bounded by CROWN at a time, each as large as one for every class.
_CROWN = 32


class Prover:
    """The methods of one certification, tried in turn.

    A copy in another process, which pickling makes, builds its own functions.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.
        bounds: `CompiledBounds` of the model.
        methods, time_limit, eps, value_range: As for `certify`, checked.
    """

    def __init__(
        self, wrapper, shape, bounds, methods, time_limit, eps, value_range
    ):
        self._bounds = bounds
        self._deployed = Deployed(
            wrapper, shape, bounds.network.hard, value_range, bounds.clock
        )
        self._methods = methods
        self._time_limit = time_limit
        self._eps = float(eps)
        self._value_range = value_range
        self._copy = (
            (wrapper, shape),
            (methods, time_limit, eps, value_range),
        )

    def __reduce__(self):
        return _built, self._copy

    def bound(self, x, y):
        """Intervals, then CROWN.

        Args:
            x: Images.
            y: Their labels.

        Returns:
            A `Certificate`, and booleans: of which images `finish` may prove
            more.
        """
        started = time.perf_counter()
        known = nothing_of(self._eps, len(y))
        low, high = self._levels(x)
        known.undetermined[:] = (low != high).reshape(len(y), -1).sum(1)
        logits = self._deployed.logits(x).numpy()
        wrong = logits.argmax(1) != y
        known.status[wrong] = "misclassified"
        known.method[wrong] = "model"
        margins, *ends = (
            t.numpy() for t in self._bounds.margins_by_interval(low, high, y)
        )
        _check_logits(logits, *ends)
        if "interval" in self._methods:
            _note(known, "interval", np.arange(len(y)), y, margins)
        known.seconds[:] = (time.perf_counter() - started) / len(y)
        if "crown" in self._methods:
            self._bound_by_crown(known, low, high, y)
        dear = {"crown-full", "branching"} & {*self._methods}
        more = np.isfinite(ends[0]).all(1) & bool(dear)
        return known, more & (known.status == "unknown")

    def finish(self, x, y, known):
        """What is dear, for an image that nothing has decided yet.

        Args:
            x: The image, in an array of one.
            y: Its label, likewise.
            known: `Certificate` of what `bound` says of it.

        Returns:
            A `Certificate`.
        """
        arrays = {name: a.copy() for name, a in arrays_of(known).items()}
        known = dataclasses.replace(known, **arrays, counterexamples={})
        for method, prove in (
            ("crown-full", self._bound_fully),
            ("branching", self._branch),
        ):
            if method in self._methods and known.status[0] == "unknown":
                started = time.perf_counter()
                late = self._bounds.clock.alarm(self._time_limit)
                prove(known, x, y, late)
                known.seconds[0] += time.perf_counter() - started
        return known

    def _bound_by_crown(self, known, low, high, y):
        left = np.flatnonzero(known.status == "unknown")
        for start in range(0, len(left), _CROWN):
            started = time.perf_counter()
            some = left[start : start + _CROWN]
            margins = self._bounds.margins_by_crown(
                low[some], high[some], y[some]
            )
            _note(known, "crown", some, y, margins.numpy())
            passed = time.perf_counter() - started
            known.seconds[some] += passed / len(some)

    def _bound_fully(self, known, x, y, late):
        """CROWN on backward bounds of the hidden layers."""
        low, high = self._levels(x)
        intermediate = self._bounds.by_crown(low, high, late)
        classes = np.eye(self._bounds.network.num_classes)
        margins, _ = self._bounds.lower_bound(
            low, high, classes[y[0]] - classes, intermediate
        )
        _note(known, "crown-full", np.array([0]), y, margins.numpy())

    def _branch(self, known, x, y, late):
        """The complete check."""
        low, high = self._levels(x)
        whole = x[0], *(end[0] for end in self._ball(x))
        verdict = branch(
            self._bounds,
            functools.partial(self._deployed.broken, y[0], *whole),
            low[0],
            high[0],
            y[0],
            self._deployed.step,
            late,
        )
        known.margin[0] = max(known.margin[0], verdict.margin)
        known.status[0] = verdict.status
        if verdict.status != "unknown":
            known.method[0] = "branching"
        if verdict.image is not None:
            known.counterexamples[0] = verdict.image

    def _ball(self, x):
        """The smallest and the largest images of the balls."""
        ends = ball(x, self._eps, *self._value_range)
        return [end.numpy() for end in ends]

    def _levels(self, x):
        return self._bounds.levels(*self._ball(x))


def nothing_of(eps, count):
    """The `Certificate` of so many images of which nothing is known."""
    return Certificate(
        float(eps),
        status=np.full(count, "unknown", "<U13"),
        method=np.full(count, "", "<U13"),
        margin=np.full(count, -np.inf),
        undetermined=np.zeros(count, int),
        seconds=np.zeros(count),
        counterexamples={},
    )


def _built(model, settings):
    return Prover(*model, CompiledBounds(*model), *settings)


def _note(known, method, index, y, margins):
    """What a method proves of the images of these numbers."""
    classes = np.arange(margins.shape[1])
    others = np.where(classes == y[index, None], np.inf, margins)
    margin = others.min(1)
    known.margin[index] = np.fmax(known.margin[index], margin)
    proved = index[(margin > 0) & (known.status[index] == "unknown")]
    known.status[proved] = "certified"
    known.method[proved] = method


def _check_logits(logits, lower, upper):
    """Refuse a proof that the model itself contradicts."""
    outside = ~((logits >= lower) & (logits <= upper))
    # Where float32 may overflow nothing is proved, and nothing contradicted.
    outside &= np.isfinite(lower) & np.isfinite(upper)
    if outside.any():
        raise RuntimeError(
            "The model's logits must lie in their bounds. Received: "
            f"{int(outside.any(1).sum())} image(s) outside. Does the device "
            "compute in less than float32? Call "
            "`tf.config.experimental.enable_tensor_float_32_execution(False)`"
            ", or run on a CPU. Or is the rule of a layer of your own wrong?"
        )
