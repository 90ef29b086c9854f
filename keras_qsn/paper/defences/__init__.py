"""How each defence of the grid is made: three steps, each by its name.

What is built in place of the plain network (`BUILT`), what that is trained
for (`AIMS`), and what is done to it after training (`AFTER`). A
`cells.Network` names one of each, and says what is set otherwise.
"""

from keras_qsn.paper.defences.after import AFTER
from keras_qsn.paper.defences.aims import AIMS
from keras_qsn.paper.defences.built import BUILT

__all__ = ["AFTER", "AIMS", "BUILT"]
