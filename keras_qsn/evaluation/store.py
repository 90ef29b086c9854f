"""What an evaluation has finished, kept in a folder."""

import dataclasses
import json
import zipfile

import numpy as np

from keras_qsn.evaluation.outcome import Check
from keras_qsn.evaluation.outcome import Outcome
from keras_qsn.evaluation.outcome import Step
from keras_qsn.files import claim
from keras_qsn.files import write_arrays
from keras_qsn.files import write_json


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
        self.folder = None if folder is None else claim(folder, settings)

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
        write_arrays(
            self._path(number),
            tried=outcome.tried,
            broken=outcome.broken,
            x_adv=outcome.x_adv,
            blind=outcome.blind,
            seconds=outcome.seconds,
        )

    def load_checks(self):
        """What `save_checks` kept, or `None`."""
        if self.folder is None or not self._checks.exists():
            return None
        data = json.loads(self._checks.read_text(encoding="utf-8"))
        checks = [Check(**values) for values in data["checks"]]
        outcomes = [
            self.load(name, Step(f"checks: {name}", name, None))
            for name in data["broken_by"]
        ]
        return checks, outcomes, data["curve"], data["trace"]

    def save_checks(self, kept):
        """Keep the checks, what they broke, the curves and the trace."""
        if self.folder is None:
            return
        checks, outcomes, curve, trace = kept
        for outcome in outcomes:
            self.save(outcome.step.threat, outcome)
        data = {
            "checks": [dataclasses.asdict(check) for check in checks],
            "broken_by": [outcome.step.threat for outcome in outcomes],
            "curve": curve,
            "trace": trace,
        }
        write_json(self._checks, data)

    @property
    def _checks(self):
        return self.folder / "checks.json"

    def _path(self, number):
        return self.folder / f"attack-{number}.npz"
