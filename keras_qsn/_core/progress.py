"""How far a long piece of work has come."""

import time

import keras


class ImageProgress:
    """Tells the callback, and draws a bar where one is wanted."""

    def __init__(self, total, callback, verbose):
        if verbose not in (0, 1, "auto"):
            raise ValueError(
                f"`verbose` must be 0, 1 or 'auto'. Received: {verbose!r}"
            )
        self.callback = callback
        self.verbose = verbose
        self.total = total
        self.started = time.perf_counter()
        self.bar = keras.utils.Progbar(total, unit_name="image")

    def __call__(self, done):
        if self.callback is not None:
            self.callback(done)
        if self.verbose == "auto":
            slow = time.perf_counter() - self.started > 1
            self.verbose = self.callback is None and slow and done < self.total
        if self.verbose:
            self.bar.update(done)
