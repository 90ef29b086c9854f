"""The attacks of a plan, one after the other, on what is still unbroken."""

import time
import warnings

import keras
import numpy as np

from keras_qsn.attacks import norms
from keras_qsn.evaluation.outcome import Outcome


def run(evaluation, wrapper, steps, threat, batch_size, store, tell):
    """The outcomes of the attacks.

    Args:
        evaluation: The `Evaluation` before any attack.
        wrapper: The model's `KerasModelWrapper`.
        steps: The plan, a list of `Step`.
        threat: The `ThreatModel`.
        batch_size: Images attacked at once.
        store: The `Store` of finished attacks.
        tell: The `Teller`.

    Returns:
        A list of `Outcome`, one for each step.
    """
    x, y, robust = evaluation.x, evaluation.y, evaluation.robust
    outcomes = []
    for number, step in enumerate(steps):
        outcome = store.load(number, step)
        if outcome is None:
            outcome = _attack(
                wrapper, x, y, robust, step, threat, batch_size, tell
            )
            store.save(number, outcome)
        robust[outcome.broken] = False
        outcomes.append(outcome)
        tell.finished(step, robust.mean())
    return outcomes


def _attack(wrapper, x, y, robust, step, threat, batch_size, tell):
    """Run a step on the images still robust."""
    started = time.perf_counter()
    tried = np.flatnonzero(robust)[: step.max_images]
    if not len(tried):
        return Outcome(step, tried, tried, x[:0], 0, 0.0)
    with warnings.catch_warnings():
        # Blind images are counted in the outcome, and checked.
        warnings.filterwarnings("ignore", ".*found a gradient of zero")
        result = step.attack.run(
            wrapper,
            x[tried],
            y[tried],
            batch_size=batch_size,
            callback=lambda done: tell(step.name, done, len(tried)),
        )
    inside = norms.inside(x[tried], result.x_adv, threat.eps, threat.norm)
    # Of the images returned: of a batch of another size, a lead of one
    # rounding error may be gone.
    wrong = wrapper.predict(result.x_adv, batch_size) != y[tried]
    hit = result.success & inside & wrong
    return Outcome(
        step,
        tried,
        tried[hit],
        result.x_adv[hit],
        int(result.blind.sum()),
        time.perf_counter() - started,
    )


class Teller:
    """Says how far the evaluation is.

    Args:
        progress: Optional function called with the name of the attack, the
            number of images it has finished, and their count.
        verbose: Whether to print lines and bars.
    """

    def __init__(self, progress, verbose):
        self._progress = progress
        self._verbose = verbose
        self._bar = None
        self._name = None

    def __call__(self, name, done, total):
        if self._progress is not None:
            self._progress(name, done, total)
        if not self._verbose:
            return
        if name != self._name:
            print(name, flush=True)
            self._name = name
            self._bar = keras.utils.Progbar(total, unit_name="image")
        self._bar.update(done)

    def finished(self, step, accuracy):
        """Say what an attack left."""
        if self._verbose:
            print(f"{step.name}: {100 * accuracy:.1f} % left", flush=True)
