"""The main job: train the paper's defences, attack them, show what is left.

Six networks: undefended, CQ, CQ with hard levels, TQ, and Fig. 5's pair, the
undefended network and TQ trained adversarially. Each is measured on clean
images, under white-box FGSM and PGD, on examples crafted on the undefended
network, and, behind a quantizer, under attacks that know of it; the figure
that counts is the worst case per image. What of the hard network can be
proved stands beside it. The cells are those of the figures `demo` and
`demo-eps` of `paper`.
"""

from keras_qsn.demo.running import grid_for
from keras_qsn.demo.running import run
from keras_qsn.demo.written import PAGE
from keras_qsn.demo.written import caption
from keras_qsn.demo.written import table

__all__ = ["PAGE", "caption", "grid_for", "run", "table"]
