"""Methods tried in turn on a set of images, each on what is left."""

import collections

import numpy as np

from keras_qsn._core.pool import work_off
from keras_qsn.certification.certificate import Certificate
from keras_qsn.certification.certificate import CertificationInterrupted
from keras_qsn.certification.certificate import arrays_of
from keras_qsn.certification.proving import Prover
from keras_qsn.certification.proving import nothing_of

# Seconds of work that a kill may cost.
_KEEP_AFTER = 10.0


class Escalation:
    """The certification of one set of images.

    A unit of its work is a batch, to be bounded, or one image of it, to be
    finished: the same ones wherever they run.

    Args:
        x: The images.
        y: Labels.
        eps: Radius.
        folder: `Folder` that keeps what is finished.
        progress: As for `certify`.
    """

    def __init__(self, x, y, eps, folder, progress):
        self._x = x
        self._y = y
        self._folder = folder
        self._progress = progress
        self._all = nothing_of(eps, len(y))
        self._done = np.zeros(len(y), bool)
        self._unkept = []
        self._unkept_seconds = 0.0
        self._parts = 0

    def run(self, prover, batch_size, executor):
        """The certificate; what the folder holds is not done again."""
        self.restore()
        starts = iter(range(0, len(self._y), batch_size))
        bounded = collections.deque()

        def unit():
            while True:
                while bounded:
                    i, more = bounded.popleft()
                    if more:
                        one = self._rows(np.array([i]))
                        given = self._x[i : i + 1], self._y[i : i + 1], one
                        return ("finish", i), Prover.finish, shared, *given
                    self._end(i)
                start = next(starts, None)
                if start is None:
                    return None
                batch = slice(start, start + batch_size)
                if not self._done[batch].all():
                    given = self._x[batch], self._y[batch]
                    return ("bound", start), Prover.bound, shared, *given

        def take(name, future):
            what, first = name
            if what == "finish":
                self._note([first], future.result())
                self._end(first)
                return
            known, more = future.result()
            left = np.flatnonzero(~self._done[first : first + batch_size])
            self._note(first + left, known, left)
            bounded.extend(zip((first + left).tolist(), more[left]))

        try:
            with executor as pool:
                shared = pool.share(prover)
                work_off(pool, unit, take)
        except KeyboardInterrupt as error:
            raise CertificationInterrupted(self.certificate()) from error
        finally:
            self._keep()
        return self.certificate()

    def certificate(self):
        """What is known of the first images, up to one that is not done."""
        count = np.append(self._done, False).argmin()
        return self._rows(np.arange(count))

    def restore(self):
        """Take over what the folder keeps."""
        while (part := self._folder.get(f"part-{self._parts}.npz")) is not None:
            arrays = {name: part[name] for name in arrays_of(self._all)}
            broken = dict(zip(part["rows"].tolist(), part["images"]))
            known = Certificate(self._all.eps, **arrays, counterexamples=broken)
            self._note(part["index"], known)
            self._done[part["index"]] = True
            self._parts += 1

    def _rows(self, index):
        """What is known of the images of these numbers."""
        arrays = {name: a[index] for name, a in arrays_of(self._all).items()}
        broken = self._all.counterexamples
        return Certificate(
            self._all.eps,
            **arrays,
            counterexamples={
                row: broken[i]
                for row, i in enumerate(index.tolist())
                if i in broken
            },
        )

    def _note(self, index, known, rows=slice(None)):
        """What is known of the images of these numbers, from `rows`."""
        for name, array in arrays_of(self._all).items():
            array[index] = getattr(known, name)[rows]
        for row, image in known.counterexamples.items():
            self._all.counterexamples[int(index[row])] = image

    def _end(self, i):
        """Count an image as done."""
        self._done[i] = True
        self._unkept.append(i)
        self._progress("certificates", int(self._done.sum()), len(self._y))
        self._unkept_seconds += self._all.seconds[i]
        if self._unkept_seconds > _KEEP_AFTER:
            self._keep()

    def _keep(self):
        """Write what is done, and in no file yet, to one more."""
        if not self._unkept:
            return
        index = np.array(self._unkept)
        part = self._rows(index)
        broken = part.counterexamples
        arrays = {
            **arrays_of(part),
            "index": index,
            "rows": np.array([*broken], int),
            "images": np.array([*broken.values()]),
        }
        self._folder.put(f"part-{self._parts}.npz", arrays)
        self._parts += 1
        self._unkept, self._unkept_seconds = [], 0.0
