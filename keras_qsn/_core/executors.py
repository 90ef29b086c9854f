"""Where units of work run: here, in processes of this machine, or on Ray.

An executor is a context manager that yields a `Pool`.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading

import tensorflow as tf

from keras_qsn._core import on_ray
from keras_qsn._core import pickles
from keras_qsn._core.numbers import check_count
from keras_qsn._core.pool import Pool
from keras_qsn._core.pool import share_cores


def executor_of(workers):
    """The executor that an argument `workers` asks for.

    Args:
        workers: Number of processes; `"ray"`, for Ray on this machine; or the
            address of a Ray cluster.
    """
    if isinstance(workers, str):
        if workers == "ray":
            return on_ray.ray_cluster()
        cluster = on_ray.ray_cluster(workers)
        on_ray.check_address(workers)
        return cluster
    try:
        workers = check_count("workers", workers)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{error}. Expected: a number of processes, 1 for this one alone; "
            "'ray'; or the address of a Ray cluster, such as 'auto'."
        ) from error
    return here() if workers == 1 else processes(workers)


@contextlib.contextmanager
def here():
    """One unit after the other, in this process.

    Yields:
        A `Pool`: `slots`, the number of units to hand over at once, and
        `submit`, a function of a function and its arguments that returns a
        `concurrent.futures.Future`.

    Example:

    >>> with here() as pool:
    ...     pool.submit(abs, -2).result()
    2
    """

    def submit(function, *arguments):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    yield Pool(1, submit, lambda value: value)


@contextlib.contextmanager
def processes(workers):
    """Units side by side, in processes of this machine; yields as `here`.

    Args:
        workers: Integer >= 1. They share the cores, but for the number of
            threads that TensorFlow was told here or in the environment.

    Example:

    >>> with processes(workers=1) as pool:
    ...     pool.submit(abs, -2).result()
    2
    """
    check_count("workers", workers)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    others = set(multiprocessing.active_children())

    def start():
        # TensorFlow cannot be forked.
        return concurrent.futures.ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            _begin_process,
            (threads,),
        )

    executor = start()

    def submit(*unit):
        nonlocal executor
        try:
            return executor.submit(pickles.call, *unit)
        except concurrent.futures.BrokenExecutor:
            # A process was killed: what ran is lost, the others go on.
            executor = start()
            return executor.submit(pickles.call, *unit)

    try:
        yield Pool(
            workers,
            submit,
            lambda value: pickles.Shared(pickles.pickled(value)),
            (concurrent.futures.BrokenExecutor,),
        )
    finally:
        # All is done, or what they are at is lost anyway: do not wait for it.
        started = set(multiprocessing.active_children()) - others
        for process in started:
            process.terminate()
        executor.shutdown(cancel_futures=True)
        for process in started:
            process.join()


def _begin_process(threads):
    share_cores(threads)
    # Ctrl-C is for the process that hands out the units; when that one dies,
    # nobody asks for them any more.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent):
    parent.join()
    os._exit(1)
