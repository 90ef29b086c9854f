"""An evaluation with its checks, run or kept."""

import dataclasses

from keras_qsn.evaluation.checks import running
from keras_qsn.evaluation.store import keep_checks
from keras_qsn.evaluation.store import kept_checks


def checked(evaluation, probe, folder, progress):
    """The evaluation with its checks, and what they broke."""
    kept = kept_checks(folder)
    if kept is None:
        checks = running.run_checks(probe, progress)
        kept = checks, probe.outcomes(), probe.curve, probe.trace
        keep_checks(folder, *kept)
    checks, outcomes, curve, trace = kept
    settings = evaluation.settings
    if curve:
        settings = {**settings, "curve_images": len(probe.numbers)}
    return dataclasses.replace(
        evaluation,
        settings=settings,
        outcomes=[*evaluation.outcomes, *outcomes],
        checks=checks,
        curve=curve,
        trace=trace,
    )
