"""What an evaluation has finished, kept in a folder."""

import dataclasses

from keras_qsn._core.kept import keep_arrays
from keras_qsn._core.kept import keep_json
from keras_qsn._core.kept import kept_arrays
from keras_qsn._core.kept import kept_json
from keras_qsn.evaluation.outcome import Check
from keras_qsn.evaluation.outcome import Outcome
from keras_qsn.evaluation.outcome import Step


class Store:
    """The files of finished attacks, each written whole or not at all.

    Args:
        folder: Where to keep results, `claimed`; `None` keeps nothing.
    """

    def __init__(self, folder):
        self.folder = folder

    def load(self, number, step):
        """The outcome of an attack, or `None` if it has not finished.

        Raises:
            ValueError: If its file is damaged.
        """
        if self.folder is None or not self._path(number).exists():
            return None
        found = kept_arrays(self._path(number))
        return Outcome(
            step,
            found["tried"],
            found["broken"],
            found["x_adv"],
            int(found["blind"]),
            float(found["seconds"]),
        )

    def save(self, number, outcome):
        """Keep the outcome of an attack."""
        if self.folder is None:
            return
        keep_arrays(
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
        data = kept_json(self._checks)
        outcomes = [
            self.load(name, Step(f"checks: {name}", name, None))
            for name in data["broken_by"]
        ]
        if None in outcomes:
            # Its file was damaged, and deleted.
            return None
        checks = [Check(**values) for values in data["checks"]]
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
        keep_json(self._checks, data)

    @property
    def _checks(self):
        return self.folder / "checks.json"

    def _path(self, number):
        return self.folder / f"attack-{number}.npz"
