"""The certification of a set of images, method after method."""

import functools
import time

import numpy as np

from keras_qsn._core.kept import keep_arrays
from keras_qsn._core.kept import kept_arrays
from keras_qsn.certification.branching.search import branch
from keras_qsn.certification.certificate import Certificate

# Images bounded by CROWN at a time, each as large as one for every class.
_CROWN = 32


class Work:
    """The certification of one set of images."""

    def __init__(self, proofs, deployed, methods, time_limit, eps, images, y):
        self._proofs = proofs
        self._deployed = deployed
        self._methods = methods
        self._time_limit = time_limit
        self._eps = eps
        self._x, self._low, self._high = images
        self._y = y
        self._status = np.full(len(y), "unknown", "<U13")
        self._method = np.full(len(y), "", "<U13")
        self._margin = np.full(len(y), -np.inf)
        self._undetermined = np.zeros(len(y), int)
        self._seconds = np.zeros(len(y))
        self._bounded = np.ones(len(y), bool)
        self._counterexamples = {}

    def certificate(self, done):
        """What is known of the first images."""
        found = {name: array[:done] for name, array in self._found().items()}
        broken = {i: v for i, v in self._counterexamples.items() if i < done}
        return Certificate(float(self._eps), **found, counterexamples=broken)

    def seconds(self, first, stop):
        """Time spent on some of the images."""
        return self._seconds[first:stop].sum()

    def keep(self, first, stop, path):
        """Write what was found of some of the images to a file."""
        broken = [i for i in self._counterexamples if first <= i < stop]
        keep_arrays(
            path,
            **{
                name: found[first:stop] for name, found in self._found().items()
            },
            broken=np.array(broken, int),
            images=np.array([self._counterexamples[i] for i in broken]),
        )

    def restore(self, first, path):
        """Take over what `keep` wrote; returns where the file ends."""
        kept = kept_arrays(path)
        stop = first + len(kept["status"])
        for name, found in self._found().items():
            found[first:stop] = kept[name]
        broken = kept["broken"].tolist()
        self._counterexamples.update(zip(broken, kept["images"]))
        return stop

    def _found(self):
        return {
            "status": self._status,
            "method": self._method,
            "margin": self._margin,
            "undetermined": self._undetermined,
            "seconds": self._seconds,
        }

    def bound(self, batch):
        """Intervals, then CROWN, for a slice of the images."""
        started = time.perf_counter()
        index = np.arange(batch.start, batch.stop)
        y = self._y[batch]
        low, high = self._levels(batch)
        self._undetermined[batch] = (low != high).reshape(len(y), -1).sum(1)
        logits = self._deployed.logits(self._x[batch]).numpy()
        wrong = logits.argmax(1) != y
        self._status[index[wrong]] = "misclassified"
        self._method[index[wrong]] = "model"
        margins, floor, roof = self._proofs.by_interval(low, high, y)
        _check_logits(logits, floor, roof)
        self._bounded[batch] = np.isfinite(floor).all(1)
        if "interval" in self._methods:
            self._note("interval", index, margins)
        self._seconds[batch] = (time.perf_counter() - started) / len(y)
        if "crown" not in self._methods:
            return
        left = np.flatnonzero(self._status[batch] == "unknown")
        for start in range(0, len(left), _CROWN):
            started = time.perf_counter()
            some = left[start : start + _CROWN]
            margins = self._proofs.by_crown(low[some], high[some], y[some])
            self._note("crown", index[some], margins)
            passed = time.perf_counter() - started
            self._seconds[index[some]] += passed / len(some)

    def finish(self, i):
        """What is dear, for one image that nothing has decided yet."""
        for method, prove in (
            ("crown-full", self._bound_fully),
            ("branching", self._branch),
        ):
            open_yet = self._status[i] == "unknown" and self._bounded[i]
            if open_yet and method in self._methods:
                started = time.perf_counter()
                prove(i, *self._levels(slice(i, i + 1)))
                self._seconds[i] += time.perf_counter() - started

    def _bound_fully(self, i, low, high):
        """CROWN on backward bounds of the hidden layers."""
        late = self._proofs.clock.alarm(self._time_limit)
        known = self._proofs.full_hidden(low, high, late)
        classes = np.eye(self._proofs.graph.num_classes)
        rows = classes[self._y[i]] - classes
        margins, _ = self._proofs.of_nodes(low, high, rows, known)
        self._note("crown-full", np.array([i]), margins)

    def _branch(self, i, low, high):
        """The complete check."""
        verdict = branch(
            self._proofs,
            functools.partial(
                self._deployed.broken,
                label=self._y[i],
                x=self._x[i],
                low=self._low[i],
                high=self._high[i],
            ),
            low[0],
            high[0],
            self._y[i],
            self._deployed.step,
            self._proofs.clock.alarm(self._time_limit),
        )
        self._margin[i] = max(self._margin[i], verdict.margin)
        self._status[i] = verdict.status
        if verdict.status != "unknown":
            self._method[i] = "branching"
        if verdict.image is not None:
            self._counterexamples[i] = verdict.image

    def _levels(self, batch):
        return self._proofs.levels(self._low[batch], self._high[batch])

    def _note(self, method, index, margins):
        """What a method proved of images, from their margins."""
        classes = np.arange(margins.shape[1])
        others = np.where(classes == self._y[index, None], np.inf, margins)
        margin = others.min(1)
        self._margin[index] = np.fmax(self._margin[index], margin)
        proved = (margin > 0) & (self._status[index] == "unknown")
        self._status[index[proved]] = "certified"
        self._method[index[proved]] = method


def _check_logits(logits, floor, roof):
    """Refuse a proof that the model itself contradicts."""
    outside = ~((logits >= floor) & (logits <= roof))
    # Where float32 may overflow nothing is proved, and nothing contradicted.
    outside &= np.isfinite(floor) & np.isfinite(roof)
    if outside.any():
        raise RuntimeError(
            "The model's logits must lie in their bounds. Received: "
            f"{int(outside.any(1).sum())} image(s) outside. Does the device "
            "compute in less than float32? Call "
            "`tf.config.experimental.enable_tensor_float_32_execution(False)`"
            ", or run on a CPU."
        )
