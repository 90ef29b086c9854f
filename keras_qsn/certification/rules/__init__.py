"""What each layer computes, bounded: one file for each kind of rule."""

from keras_qsn.certification.rules import convolutional
from keras_qsn.certification.rules import linear
from keras_qsn.certification.rules import pooling
from keras_qsn.certification.rules import scaling
from keras_qsn.certification.rules import smooth

# Those of Keras' layers, registered by being imported.
_MODULES = (convolutional, linear, pooling, scaling, smooth)
