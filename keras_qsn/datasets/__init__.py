"""MNIST, CIFAR-10, the embedded digits, users' own files; samples of them."""

from keras_qsn.datasets.loading import NAMES as NAMES
from keras_qsn.datasets.loading import Dataset
from keras_qsn.datasets.loading import load
from keras_qsn.datasets.sampling import ShuffledBatches
from keras_qsn.datasets.sampling import seeded_subset
from keras_qsn.datasets.sampling import stratified_subset

__all__ = [
    "Dataset",
    "ShuffledBatches",
    "load",
    "seeded_subset",
    "stratified_subset",
]
