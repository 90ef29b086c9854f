"""The runner: every cell of a grid once, kept as soon as it is finished."""

import concurrent.futures
import dataclasses
import io
import os
import pathlib
import tempfile
import traceback

import keras
import numpy as np

from keras_qsn import datasets
from keras_qsn._core.kept import keep_bytes
from keras_qsn._core.kept import keep_json
from keras_qsn._core.kept import kept_arrays
from keras_qsn._core.kept import kept_bytes
from keras_qsn._core.kept import kept_json
from keras_qsn._core.kept import locked
from keras_qsn.paper import cells
from keras_qsn.paper import executors
from keras_qsn.paper import measuring
from keras_qsn.paper import networks

# Rough seconds on 2 cores, for the time left: an epoch of one image, an image
# of an attack. Only their ratios matter.
_EPOCH, _FGSM, _QUICK_PLAN = 5e-4, 1e-3, 0.2
_SLOW = {"CW-L2": 0.05, "CW-L2, full search": 0.25, "JSMA": 0.02}


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a run knows.

    Attributes:
        values: `{cell: plain values}` of the finished cells.
        failures: `{cell: text}` of those that failed, or need one that did.
        store: The `Store` with their files.
    """

    values: dict
    failures: dict
    store: object


class Store:
    """A folder with the files of finished cells.

    Args:
        folder: Where; created if need be.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def load(self, cell):
        """The values of a cell, or `None` if it has not finished."""
        needed = "keras" if isinstance(cell, cells.Network) else "npz"
        paths = [self._path(cell, suffix) for suffix in ("json", needed)]
        if not all(path.exists() for path in paths):
            return None
        return kept_json(paths[0])["values"]

    def save(self, cell, values, files):
        """Keep a finished cell. Its JSON comes last: it says so."""
        for suffix, content in files.items():
            keep_bytes(self._path(cell, suffix), content)
        keep_json(
            self._path(cell, "json"),
            {"cell": cells.describe(cell), "values": values},
        )

    def network(self, cell):
        """A trained network's file, as bytes."""
        return kept_bytes(self._path(cell, "keras"))

    def pictures(self, key):
        """The arrays kept of the cell of this key, or `None`."""
        path = self.folder / f"{key}.npz"
        return kept_arrays(path) if path.exists() else None

    def _path(self, cell, suffix):
        return self.folder / f"{cells.key(cell)}.{suffix}"


def finished(wanted, folder):
    """What earlier runs finished of the cells and all they need.

    Args:
        wanted: The cells.
        folder: Where finished cells are kept.

    Returns:
        A `Finished`.
    """
    store = Store(folder)
    values = {cell: store.load(cell) for cell in cells.with_needs(wanted)}
    values = {c: found for c, found in values.items() if found is not None}
    return Finished(values, {}, store)


def run(wanted, folder, data_dir=None, executor=None, progress=None, say=None):
    """Finish the cells, and all they need, or go on where a run stopped.

    A cell that fails is reported, the others are finished; the next run tries
    it again.

    Args:
        wanted: The cells.
        folder: Where finished cells are kept.
        data_dir: Optional folder with the data sets.
        executor: Context manager of `executors`. Defaults to `None`: here.
        progress: Optional function of a name, the work done, and all of it.
        say: Optional function of a line of text for each finished cell.

    Returns:
        A `Finished`.

    Raises:
        ValueError: If another run is at work in the folder.
    """
    store = Store(folder)
    with locked(store.folder), executor or executors.here() as (slots, submit):
        values = finished(wanted, folder).values
        waiting = [c for c in cells.with_needs(wanted) if c not in values]
        state = _State(store, values, waiting, progress, say)
        running = {}
        while running or state.waiting:
            for cell in state.ready(slots - len(running)):
                needed = [store.network(n) for n in cell.needs]
                running[submit(perform, cell, needed, data_dir)] = cell
            if not running:
                break
            done, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                state.finish(running.pop(future), future)
    return Finished(state.values, state.failures, store)


def perform(cell, needed, data_dir=None):
    """Compute a cell, anywhere: it gets and returns bytes, no paths.

    Args:
        cell: The cell.
        needed: The networks of `cell.needs`, as the bytes of their files.
        data_dir: Optional folder with the data sets.

    Returns:
        Plain values, and `{suffix: bytes}` of files to keep.
    """
    models = [_model(content) for content in needed]
    if isinstance(cell, cells.Network) and cell.squeezer:
        return {}, {"keras": _bytes(networks.squeeze(cell, models[0]))}
    network = cell if isinstance(cell, cells.Network) else cell.network
    data = datasets.load(network.data, data_dir)
    if isinstance(cell, cells.Network):
        model, values = networks.train(cell, data)
        return values | {"data": data.description}, {"keras": _bytes(model)}
    measure = measuring.measure_attack
    if isinstance(cell, cells.WorstCase):
        measure = measuring.measure_worst_case
    model, source = [*models, None][:2]
    values, pictures = measure(cell, model, source, data)
    file = io.BytesIO()
    np.savez_compressed(file, **pictures)
    return values | {"data": data.description}, {"npz": file.getvalue()}


def cost(cell):
    """Rough seconds that a cell takes."""
    if isinstance(cell, cells.WorstCase):
        return _QUICK_PLAN * cell.images
    if isinstance(cell, cells.Attacked):
        images = cell.images * (9 if cell.targeted else 1)
        return 1 + _SLOW.get(cell.attack, _FGSM) * images
    if cell.squeezer:
        return 1
    images = cell.train_images or 60000
    factor = (2 if cell.adversarial_eps else 1) * (
        2 if cell.defence == "BReLU+GDA" else 1
    )
    return 1 + _EPOCH * images * cell.epochs * factor


class _State:
    """What is finished, failed and waiting, and telling of it."""

    def __init__(self, store, values, waiting, progress, say):
        self.values, self.failures = values, {}
        self.waiting = waiting
        self._store = store
        self._count, self._finished = len(waiting), 0
        self._total = sum(map(cost, waiting))
        self._done = 0.0
        self._progress = progress or (lambda name, done, total: None)
        self._say = say or (lambda line: None)
        self._tell()

    def ready(self, count):
        """Up to `count` waiting cells whose needs are met, to be started."""
        found = []
        for cell in list(self.waiting):
            lost = [n for n in cell.needs if n in self.failures]
            if lost:
                self.waiting.remove(cell)
                self._fail(cell, f"needs {cells.key(lost[0])}, which failed")
            elif len(found) < count and self._met(cell):
                self.waiting.remove(cell)
                found.append(cell)
        return found

    def _met(self, cell):
        return all(needed in self.values for needed in cell.needs)

    def finish(self, cell, future):
        """Keep what a cell gave, or why it failed."""
        error = future.exception()
        if error is not None:
            text = "".join(traceback.format_exception(error))
            self._fail(cell, text)
            return
        values, files = future.result()
        self._store.save(cell, values, files)
        self.values[cell] = values
        self._tell(cell, "finished")

    def _fail(self, cell, text):
        self.failures[cell] = text
        self._tell(cell, f"FAILED: {text.strip().splitlines()[-1]}")

    def _tell(self, cell=None, what=None):
        if cell is not None:
            self._done += cost(cell)
            self._finished += 1
            self._say(
                f"{self._finished}/{self._count} {cells.key(cell)} {what}"
            )
        self._progress("grid", self._done, self._total)


def _model(content):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.keras")
        with open(path, "wb") as file:
            file.write(content)
        return keras.models.load_model(path)


def _bytes(model):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.keras")
        model.save(path)
        with open(path, "rb") as file:
            return file.read()
