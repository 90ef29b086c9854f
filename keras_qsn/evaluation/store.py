"""What an evaluation has finished, kept in a folder."""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile

import numpy as np

from keras_qsn.evaluation.outcome import Check
from keras_qsn.evaluation.outcome import Outcome
from keras_qsn.evaluation.outcome import Step
from keras_qsn.report.files import write_json


class Store:
    """A folder with one file for each finished attack.

    Every file is written whole or not at all, so that a run killed at any
    moment can go on.

    Args:
        folder: Where to keep results; `None` keeps nothing.
        settings: What is evaluated; a folder of another evaluation is
            refused.

    Raises:
        ValueError: If the folder holds something else.
    """

    def __init__(self, folder, settings):
        self.folder = None if folder is None else pathlib.Path(folder)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "settings.json"
        if path.exists():
            self._compare(path, settings)
        elif any(self.folder.iterdir()):
            raise ValueError(
                "`folder` must be new, empty or that of the same evaluation. "
                f"Received: {self.folder}, which holds other files."
            )
        else:
            write_json(path, settings)

    def load(self, number, step):
        """The outcome of an attack, or `None` if it has not finished."""
        if self.folder is None or not self._path(number).exists():
            return None
        try:
            with np.load(self._path(number), allow_pickle=False) as file:
                return Outcome(
                    step,
                    file["tried"],
                    file["broken"],
                    file["x_adv"],
                    int(file["blind"]),
                    float(file["seconds"]),
                )
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self._path(number)} is damaged ({error}). Delete it: the "
                "attack is run again."
            ) from error

    def save(self, number, outcome):
        """Keep the outcome of an attack."""
        if self.folder is None:
            return
        part = self._path(number).with_suffix(".part")
        with open(part, "wb") as file:
            np.savez_compressed(
                file,
                tried=outcome.tried,
                broken=outcome.broken,
                x_adv=outcome.x_adv,
                blind=outcome.blind,
                seconds=outcome.seconds,
            )
        os.replace(part, self._path(number))

    def load_checks(self):
        """What `save_checks` kept, or `None`."""
        if self.folder is None or not self._checks.exists():
            return None
        data = json.loads(self._checks.read_text(encoding="utf-8"))
        checks = [Check(**values) for values in data["checks"]]
        step = Step("checks", "adaptive", None)
        outcome = self.load("checks", step)
        return checks, outcome, data["curve"], data["trace"]

    def save_checks(self, kept):
        """Keep the checks, what they broke, the curves and the trace."""
        if self.folder is None:
            return
        checks, outcome, curve, trace = kept
        self.save("checks", outcome)
        data = {
            "checks": [dataclasses.asdict(check) for check in checks],
            "curve": curve,
            "trace": trace,
        }
        write_json(self._checks, data)

    @property
    def _checks(self):
        return self.folder / "checks.json"

    def _path(self, number):
        return self.folder / f"attack-{number}.npz"

    def _compare(self, path, settings):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path} is damaged ({error}). Name another folder."
            ) from error
        wanted = json.loads(json.dumps(settings))
        if found != wanted:
            different = sorted(
                key
                for key in {*found, *wanted}
                if found.get(key) != wanted.get(key)
            )
            raise ValueError(
                f"`folder` {self.folder} holds another evaluation: it differs "
                f"in {', '.join(different)}. Name another folder, or delete "
                "that one."
            )


def fingerprint(*arrays):
    """A short text that differs for other arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
