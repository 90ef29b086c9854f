"""The paper's experiments: one grid, one runner, one plot for each figure."""

from keras_qsn._core.executors import here
from keras_qsn._core.executors import processes
from keras_qsn._core.on_ray import ray_cluster
from keras_qsn.paper.plots import plot
from keras_qsn.paper.reproduction import reproduce
from keras_qsn.paper.results import load_results
from keras_qsn.paper.tables import failed_checks
from keras_qsn.paper.tables import limitations
from keras_qsn.paper.tables import table

__all__ = [
    "failed_checks",
    "here",
    "limitations",
    "load_results",
    "plot",
    "processes",
    "ray_cluster",
    "reproduce",
    "table",
]
