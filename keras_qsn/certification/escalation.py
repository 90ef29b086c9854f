"""Methods tried in turn on a set of images, each on what is left."""

import functools
import time

import numpy as np

from keras_qsn.certification.branching.search import branch
from keras_qsn.certification.certificate import Certificate
from keras_qsn.certification.certificate import CertificationInterrupted
from keras_qsn.certification.certificate import arrays_of

# Images bounded by CROWN at a time, each as large as one for every class.
_CROWN = 32

# Seconds of work that a kill may cost.
_KEEP_AFTER = 10.0


class Escalation:
    """The certification of one set of images.

    Args:
        bounds: `CompiledBounds` of the model.
        deployed: `Deployed`, the model itself.
        methods, time_limit, eps: As for `certify`.
        images: The images, and the smallest and largest ones of their balls.
        y: Labels.
    """

    def __init__(self, bounds, deployed, methods, time_limit, eps, images, y):
        self._bounds = bounds
        self._deployed = deployed
        self._methods = methods
        self._time_limit = time_limit
        self._x, self._low, self._high = images
        self._y = y
        self._finite = np.ones(len(y), bool)
        self._all = Certificate(
            float(eps),
            status=np.full(len(y), "unknown", "<U13"),
            method=np.full(len(y), "", "<U13"),
            margin=np.full(len(y), -np.inf),
            undetermined=np.zeros(len(y), int),
            seconds=np.zeros(len(y)),
            counterexamples={},
        )

    def run(self, batch_size, folder, progress):
        """The certificate; what a `Folder` holds is not done again."""
        done = kept = self.restore(folder)
        try:
            while done < len(self._y):
                batch = slice(done, min(done + batch_size, len(self._y)))
                self._bound(batch)
                for i in range(batch.start, batch.stop):
                    self._finish(i)
                    done = i + 1
                    progress("certificates", done, len(self._y))
                    if self._all.seconds[kept:done].sum() > _KEEP_AFTER:
                        self._keep(folder, kept, done)
                        kept = done
        except KeyboardInterrupt as error:
            raise CertificationInterrupted(self.certificate(done)) from error
        finally:
            if kept < done:
                self._keep(folder, kept, done)
        return self.certificate(done)

    def certificate(self, done):
        """What is known of the first images."""
        arrays = arrays_of(self._all).items()
        broken = self._all.counterexamples.items()
        return Certificate(
            self._all.eps,
            **{name: array[:done] for name, array in arrays},
            counterexamples={i: image for i, image in broken if i < done},
        )

    def restore(self, folder):
        """Take over what a folder keeps; returns how many images it is."""
        done = 0
        while (kept := folder.get(f"from-{done}.npz")) is not None:
            broken = zip(kept["broken"].tolist(), kept["images"])
            self._all.counterexamples.update(broken)
            part = slice(done, done + len(kept["status"]))
            for name, array in arrays_of(self._all).items():
                array[part] = kept[name]
            done = part.stop
        return done

    def _keep(self, folder, first, stop):
        images = self._all.counterexamples
        broken = [i for i in images if first <= i < stop]
        part = {
            name: array[first:stop]
            for name, array in arrays_of(self._all).items()
        }
        part["broken"] = np.array(broken, int)
        part["images"] = np.array([images[i] for i in broken])
        folder.put(f"from-{first}.npz", part)

    def _bound(self, batch):
        """Intervals, then CROWN, for a slice of the images."""
        started = time.perf_counter()
        index = np.arange(batch.start, batch.stop)
        x, y = self._x[batch], self._y[batch]
        low, high = self._levels(batch)
        changes = (low != high).reshape(len(y), -1)
        self._all.undetermined[batch] = changes.sum(1)
        logits = self._deployed.logits(x).numpy()
        wrong = index[logits.argmax(1) != y]
        self._all.status[wrong] = "misclassified"
        self._all.method[wrong] = "model"
        margins, *ends = (
            t.numpy() for t in self._bounds.margins_by_interval(low, high, y)
        )
        _check_logits(logits, *ends)
        self._finite[batch] = np.isfinite(ends[0]).all(1)
        if "interval" in self._methods:
            self._note("interval", index, margins)
        self._all.seconds[batch] = (time.perf_counter() - started) / len(y)
        if "crown" not in self._methods:
            return
        left = np.flatnonzero(self._all.status[batch] == "unknown")
        for start in range(0, len(left), _CROWN):
            started = time.perf_counter()
            some = left[start : start + _CROWN]
            margins = self._bounds.margins_by_crown(
                low[some], high[some], y[some]
            )
            self._note("crown", index[some], margins.numpy())
            passed = time.perf_counter() - started
            self._all.seconds[index[some]] += passed / len(some)

    def _finish(self, i):
        """What is dear, for one image that nothing has decided yet."""
        for method, prove in (
            ("crown-full", self._bound_fully),
            ("branching", self._branch),
        ):
            undecided = self._all.status[i] == "unknown" and self._finite[i]
            if undecided and method in self._methods:
                started = time.perf_counter()
                late = self._bounds.clock.alarm(self._time_limit)
                prove(i, *self._levels(slice(i, i + 1)), late)
                self._all.seconds[i] += time.perf_counter() - started

    def _bound_fully(self, i, low, high, late):
        """CROWN on backward bounds of the hidden layers."""
        intermediate = self._bounds.by_crown(low, high, late)
        classes = np.eye(self._bounds.network.num_classes)
        margins, _ = self._bounds.lower_bound(
            low, high, classes[self._y[i]] - classes, intermediate
        )
        self._note("crown-full", np.array([i]), margins.numpy())

    def _branch(self, i, low, high, late):
        """The complete check."""
        ball = self._x[i], self._low[i], self._high[i]
        verdict = branch(
            self._bounds,
            functools.partial(self._deployed.broken, self._y[i], *ball),
            low[0],
            high[0],
            self._y[i],
            self._deployed.step,
            late,
        )
        self._all.margin[i] = max(self._all.margin[i], verdict.margin)
        self._all.status[i] = verdict.status
        if verdict.status != "unknown":
            self._all.method[i] = "branching"
        if verdict.image is not None:
            self._all.counterexamples[i] = verdict.image

    def _levels(self, batch):
        return self._bounds.levels(self._low[batch], self._high[batch])

    def _note(self, method, index, margins):
        """What a method proves of images, from their margins."""
        classes = np.arange(margins.shape[1])
        others = np.where(classes == self._y[index, None], np.inf, margins)
        margin = others.min(1)
        known = self._all
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
