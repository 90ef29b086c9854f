"""How far a long piece of work has come."""

import time

import keras


class Progress:
    """Passes progress on, and prints it where that is wanted.

    Args:
        progress: Optional function called with the name of what is at work,
            how much of it is done, and how much there is in all.
        verbose: `0`, `1` or `"auto"`: lines and bars never, always, or for
            what takes over a second where there is no `progress`.
        unit: What is counted. Defaults to `"image"`.

    Raises:
        TypeError: If `progress` is no function.
        ValueError: If there is no such `verbose`.
    """

    def __init__(self, progress, verbose, unit="image"):
        if verbose not in (0, 1, "auto"):
            raise ValueError(
                f"`verbose` must be 0, 1 or 'auto'. Received: {verbose!r}"
            )
        if not (progress is None or callable(progress)):
            raise TypeError(
                "`progress` must be a function of a name, the number done and "
                f"the number in all. Received: progress={progress!r}"
            )
        self._progress = progress
        self._verbose = verbose
        self._unit = unit
        self._started = time.perf_counter()
        self._name = None
        self._bar = None

    def __call__(self, name, done, total):
        if self._progress is not None:
            self._progress(name, done, total)
        if self._verbose == "auto":
            slow = time.perf_counter() - self._started > 1
            self._verbose = self._progress is None and slow and done < total
        if not self._verbose:
            return
        if name != self._name:
            self.line(name)
            self._name = name
            self._bar = keras.utils.Progbar(total, unit_name=self._unit)
        self._bar.update(done)

    def line(self, text):
        """Print a line of text, if anything is printed."""
        if self._verbose:
            print(text, flush=True)
