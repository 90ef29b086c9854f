"""Where cells run: here, in processes of this machine, or on Ray."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal

import tensorflow as tf

from keras_qsn._core.numbers import check_count


@contextlib.contextmanager
def here():
    """One cell after the other, in this process.

    Yields:
        The number of cells to hand over at once, and a function of a function
        and its arguments that returns a `concurrent.futures.Future`.

    Example:

    >>> with here() as (slots, submit):
    ...     submit(abs, -2).result()
    2
    """

    def submit(function, *arguments):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    yield 1, submit


@contextlib.contextmanager
def processes(workers):
    """Cells side by side, in processes of this machine; yields as `here`.

    Args:
        workers: Integer >= 1. They share the cores.

    Example:

    >>> with processes(workers=1) as (slots, submit):
    ...     submit(abs, -2).result()
    2
    """
    check_count("workers", workers)
    threads = max(1, (os.cpu_count() or 1) // workers)
    others = set(multiprocessing.active_children())

    def start():
        # TensorFlow cannot be forked.
        return concurrent.futures.ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            _begin_process,
            (threads,),
        )

    pool = start()

    def submit(*arguments):
        nonlocal pool
        try:
            return pool.submit(*arguments)
        except concurrent.futures.BrokenExecutor:
            # A process was killed: its cells failed, the others go on.
            pool = start()
            return pool.submit(*arguments)

    try:
        yield workers, submit
    except BaseException:
        # What they are at is lost anyway: do not wait for it.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def ray_cluster(address=None):
    """Cells side by side on a Ray cluster, one for each two of its cores.

    The data sets must be where `datasets.load` finds them on each machine;
    everything else travels.

    Args:
        address: Of the cluster, such as `"auto"` or `"ray://host:10001"`;
            `None` starts Ray on this machine.

    Raises:
        ImportError: If Ray is not installed.

    Example:

    >>> executor = ray_cluster(address="auto")  # for `reproduce`
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "Running on Ray needs the package `ray`: pip install "
            "'keras_qsn[ray]'"
        ) from error
    ray.init(
        address,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    try:
        cores = int(ray.cluster_resources().get("CPU", 1))
        share = min(2, cores)
        remote = ray.remote(_apply).options(num_cpus=share, max_retries=0)

        def submit(function, *arguments):
            return remote.remote(function, *arguments).future()

        yield max(1, cores // share), submit
    finally:
        ray.shutdown()


def _apply(function, *arguments):
    return function(*arguments)


def _begin_process(threads):
    """Share the cores; Ctrl-C is for the process that hands out the cells."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
