"""The runner: every cell of a grid once, kept as soon as it is finished."""

import dataclasses
import functools
import os
import pathlib
import tempfile
import time
import traceback

import keras

from keras_qsn import datasets
from keras_qsn._core import kept
from keras_qsn._core.executors import here
from keras_qsn._core.pool import work_off
from keras_qsn.paper import cells
from keras_qsn.paper import extracting
from keras_qsn.paper import measuring
from keras_qsn.paper import networks
from keras_qsn.paper.defences import AFTER
from keras_qsn.paper.defences import AIMS

# Rough seconds on 2 cores, for the time left: an epoch of one image, an image
# of an attack. Only their ratios matter.
_EPOCH, _FGSM = 5e-4, 1e-3
# Epochs in which a copy is taught.
_TAUGHT = 30
_PLAN = {"quick": 0.2, "standard": 1.0, "full": 5.0}
_SLOW = {"CW-L2": 0.05, "CW-L2, full search": 0.25, "JSMA": 0.02, "PGD": 0.01}


class KeptCells:
    """The files of finished cells, in a folder, created if need be."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._folder = kept.Folder(self.path)

    def values(self, cell):
        """The values of a cell, or `None` if it has not finished."""
        name = cells.key(cell)
        if not (self.path / f"{name}.{_suffix(cell)}").exists():
            return None
        content = self._folder.get(f"{name}.json")
        return content and content["values"]

    def content(self, cell):
        """A network's file, as bytes, or the arrays of another cell."""
        return self._folder.get(f"{cells.key(cell)}.{_suffix(cell)}")

    def arrays(self, key):
        """The arrays kept of the cell of this key, or `None`."""
        return self._folder.get(f"{key}.npz")

    def keep(self, cell, values, content):
        """Keep a finished cell. Its JSON comes last: it says so."""
        name = cells.key(cell)
        self._folder.put(f"{name}.{_suffix(cell)}", content)
        described = {"kind": type(cell).__name__, **dataclasses.asdict(cell)}
        self._folder.put(f"{name}.json", {"cell": described, "values": values})


@dataclasses.dataclass
class Finished:
    """What is known of cells.

    Attributes:
        kept: The `KeptCells`.
        values: `{cell: plain values}` of the finished cells.
        failures: `{cell: text}` of those that failed, or need one that did.
    """

    kept: KeptCells
    values: dict
    failures: dict


def finished(wanted, folder):
    """What earlier runs finished of the cells and all they need."""
    known = KeptCells(folder)
    values = {cell: known.values(cell) for cell in cells.with_needs(wanted)}
    values = {cell: v for cell, v in values.items() if v is not None}
    return Finished(known, values, {})


def run(wanted, folder, data_dir=None, executor=None, progress=None):
    """Finish the cells, and all they need, or go on where a run stopped.

    A cell that fails is reported, the others are finished; the next run tries
    it again. One whose process dies is tried again at once.

    Args:
        wanted: The cells.
        folder: Where finished cells are kept.
        data_dir: Optional folder with the data sets.
        executor: Yields a `Pool`, in a context. Defaults to `None`: `here`.
        progress: Optional function of a line of text for each finished cell,
            the work done, and all of it.

    Returns:
        A `Finished`.

    Raises:
        ValueError: If another run is at work in the folder.
    """
    with (
        kept.locked(KeptCells(folder).path),
        executor or here() as pool,
    ):
        known = finished(wanted, folder)
        todo = [c for c in cells.with_needs(wanted) if c not in known.values]
        count, work, done = len(todo), sum(map(cost, todo)), []

        def end(cell, what):
            done.append(cost(cell))
            if progress is not None:
                line = f"{len(done)}/{count} {cells.key(cell)} {what}"
                progress(line, sum(done), work)

        def fail(cell, text):
            known.failures[cell] = text
            end(cell, f"FAILED: {text.strip().splitlines()[-1]}")

        def unit():
            for cell in list(todo):
                lost = [n for n in cell.needs if n in known.failures]
                if lost:
                    todo.remove(cell)
                    fail(cell, f"needs {cells.key(lost[0])}, which failed")
                elif all(needed in known.values for needed in cell.needs):
                    todo.remove(cell)
                    needed = [known.kept.content(n) for n in cell.needs]
                    return cell, perform, cell, needed, data_dir

        def take(cell, future):
            error = future.exception()
            if error is not None:
                fail(cell, "".join(traceback.format_exception(error)))
                return
            values, content = future.result()
            known.kept.keep(cell, values, content)
            known.values[cell] = values
            end(cell, "finished")

        work_off(pool, unit, take)
    return known


def perform(cell, needed, data_dir=None):
    """Compute a cell, anywhere: it gets and returns content, no paths.

    Args:
        cell: The cell.
        needed: The content of `cell.needs`: of networks, the bytes of their
            files; of examples, their arrays.
        data_dir: Optional folder with the data sets.

    Returns:
        Plain values, and the content to keep.
    """
    start, start_here = time.perf_counter(), time.process_time()
    needed = [
        _model(content) if isinstance(content, bytes) else content
        for content in needed
    ]
    data = _data(cells.network_of(cell).data, data_dir)
    if isinstance(cell, cells.Network):
        make = networks.deployed if cell.after else networks.train
        model, values = make(cell, *needed or [None], data)
        content = _bytes(model)
    elif isinstance(cell, cells.Examples):
        values, content = measuring.craft(cell, *needed, data)
    elif isinstance(cell, cells.Attacked):
        model, examples = [*needed, None][:2]
        values, content = measuring.measure_attack(cell, model, examples, data)
    elif isinstance(cell, cells.Inference):
        values, content = measuring.measure_inference(cell, *needed, data)
    elif isinstance(cell, cells.Proved):
        values, content = measuring.measure_proof(cell, *needed, data)
    elif isinstance(cell, cells.Extracted):
        values, content = extracting.measure_extraction(
            cell, *needed, data, data_dir
        )
    else:
        values, content = measuring.measure_worst_case(cell, *needed, data)
    taken = {
        "seconds": time.perf_counter() - start,
        # What else the machine does is no part of it.
        "processor_seconds": time.process_time() - start_here,
    }
    return {**values, **taken, "data": data.description}, content


def cost(cell):
    """Rough seconds that a cell takes."""
    if isinstance(cell, cells.WorstCase):
        return _PLAN[cell.plan] * cell.images
    if isinstance(cell, cells.Inference):
        return 1
    if isinstance(cell, cells.Proved):
        return cell.seconds * cell.images
    if isinstance(cell, cells.Extracted):
        return 1 + _EPOCH * cell.queries * _TAUGHT
    if isinstance(cell, cells.Attacked):
        images = cell.images * (9 if cell.targeted else 1)
        given = len(cell.needs) > 1
        each = _FGSM if given else _SLOW.get(cell.attack, _FGSM)
        return 1 + each * images
    if cell.after:
        return AFTER[cell.after].seconds
    images = cell.train_images or 60000
    plain_fgsm = cell.adversarial_eps and not cell.aim
    factor = (2 if plain_fgsm else AIMS[cell.aim].passes) * (
        2 if cell.defence == "BReLU+GDA" else 1
    )
    return 1 + _EPOCH * images * cell.epochs * factor


def _suffix(cell):
    return "keras" if isinstance(cell, cells.Network) else "npz"


# Cells of one network follow one another: it is loaded, and what attacks
# compile of it compiled, once.
@functools.lru_cache(maxsize=2)
def _model(content):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.keras")
        with open(path, "wb") as file:
            file.write(content)
        return keras.models.load_model(path)


@functools.lru_cache(maxsize=1)
def _data(name, data_dir):
    return datasets.load(name, data_dir)


def _bytes(model):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.keras")
        model.save(path)
        with open(path, "rb") as file:
            return file.read()
