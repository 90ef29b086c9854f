"""Units of work, and what takes them."""

import collections
import concurrent.futures
import functools
import os
import typing

import tensorflow as tf

# Processes that may die of a unit, one after the other, while none finishes.
_DEATHS = 3


class Pool(typing.NamedTuple):
    """What takes units of work.

    Args:
        slots: How many to hand over at once.
        submit: Function of a function and its arguments, which returns a
            `concurrent.futures.Future`.
        share: Function from a value that many units need to what stands for
            it among their arguments.
        lost: Exceptions that say that a unit's process died.
    """

    slots: int
    submit: typing.Callable
    share: typing.Callable
    lost: tuple = ()


def work_off(pool, unit, take):
    """Run units of work until none is left; one whose process dies, again.

    Args:
        pool: `Pool`.
        unit: Function that returns the next unit: its name, a function, and
            the function's arguments. Or `None`: there is none, or none before
            one that is running has been taken.
        take: Function of a unit's name and its `Future`, which is done.
            Called once for each unit.
    """
    running, again, deaths = {}, [], collections.Counter()
    while True:
        while len(running) < pool.slots:
            given = again.pop() if again else unit()
            if given is None:
                break
            running[pool.submit(*given[1:])] = given
        if not running:
            return
        for future in concurrent.futures.wait(
            running, return_when=concurrent.futures.FIRST_COMPLETED
        ).done:
            name, *_ = given = running.pop(future)
            if not isinstance(future.exception(), pool.lost):
                deaths.clear()
                take(name, future)
                continue
            deaths[name] += 1
            if deaths[name] < _DEATHS:
                again.append(given)
            else:
                take(name, _given_up(future.exception()))


@functools.cache
def share_cores(threads):
    """Threads of TensorFlow in a process that is one of several.

    Another number rounds sums in another order. What the user has set in the
    environment holds.
    """
    if "TF_NUM_INTRAOP_THREADS" not in os.environ:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def _given_up(error):
    future = concurrent.futures.Future()
    explained = RuntimeError(
        f"Processes died {_DEATHS} times in a row at the same work "
        f"({type(error).__name__}). If they are short of memory, have fewer of "
        "them or smaller batches. A script must ask for workers under `if "
        "__name__ == '__main__':`, since each of them imports it."
    )
    explained.__cause__ = error
    future.set_exception(explained)
    return future
