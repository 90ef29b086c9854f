"""A clock that stands still while functions are built."""

import time


class Clock:
    """Seconds of work: of search, not of what has to be built for it once."""

    def __init__(self):
        self._stood = 0.0

    def alarm(self, seconds):
        """A function that tells whether so many seconds have passed by now."""
        end = time.perf_counter() - self._stood + seconds
        return lambda: time.perf_counter() - self._stood >= end

    def built(self, make):
        """The function that `make` makes: made at its first call.

        That call takes no time, since what it costs more than others
        (tracing, compiling) cannot be told from it.
        """
        made = []

        def call(*arguments):
            if made:
                return made[0](*arguments)
            started = time.perf_counter()
            try:
                made.append(make())
                return made[0](*arguments)
            finally:
                self._stood += time.perf_counter() - started

        return call
