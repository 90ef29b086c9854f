"""The paper's figures, each a function of a `Grid` that yields its rows."""

# Each of these registers its figures, in the order of the paper.
from keras_qsn.paper.figures import fgsm as fgsm
from keras_qsn.paper.figures import readings as readings
from keras_qsn.paper.figures import showcase as showcase
from keras_qsn.paper.figures import table1 as table1
from keras_qsn.paper.figures import thieves as thieves
from keras_qsn.paper.figures import without_radius as without_radius
from keras_qsn.paper.figures.figure import FIGURES

__all__ = ["FIGURES"]
