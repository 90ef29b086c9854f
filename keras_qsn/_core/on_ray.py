"""Units of work on a Ray cluster."""

import contextlib
import socket
import urllib.parse

from keras_qsn._core import pickles
from keras_qsn._core.pool import Pool
from keras_qsn._core.pool import share_cores


def ray_cluster(address=None):
    """Units side by side on a Ray cluster, one for each two of its cores.

    The data sets of the paper must be where `datasets.load` finds them on
    each machine; everything else travels.

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
    return _cluster(ray, address)


def check_address(text):
    """Refuse an address where nobody answers; Ray would knock for minutes."""
    if text == "auto":
        return
    try:
        url = urllib.parse.urlsplit(text if "://" in text else f"//{text}")
        if not url.hostname:
            raise ValueError("it names no host")
        socket.create_connection((url.hostname, url.port or 6379), 5).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"There is no Ray cluster at {text} ({error}). Expected: auto, "
            "HOST:6379 or ray://HOST:10001, started there by `ray start "
            "--head`; or ray, for this machine."
        ) from error


@contextlib.contextmanager
def _cluster(ray, address):
    ray.init(
        address,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    try:
        cores = int(ray.cluster_resources().get("CPU", 1))
        each = min(2, cores)
        remote = ray.remote(_call).options(num_cpus=each, max_retries=0)
        died = ray.exceptions
        yield Pool(
            max(1, cores // each),
            lambda *unit: remote.remote(each, *unit).future(),
            lambda value: pickles.Shared(
                ray.put(pickles.pickled(value)), ray.get
            ),
            (
                died.WorkerCrashedError,
                died.LocalRayletDiedError,
                died.NodeDiedError,
                died.ObjectLostError,
                died.OutOfMemoryError,
            ),
        )
    finally:
        ray.shutdown()


def _call(cores, *unit):
    share_cores(cores)
    return pickles.call(*unit)
