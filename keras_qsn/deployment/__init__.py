"""Networks as they are deployed: quantized, in a file, behind a service."""

from keras_qsn.deployment.calibration import calibrate
from keras_qsn.deployment.exporting import export_litert
from keras_qsn.deployment.layers import FakeQuantActivations
from keras_qsn.deployment.layers import FakeQuantWeights
from keras_qsn.deployment.litert import load_litert
from keras_qsn.deployment.quantization_aware import quantization_aware

__all__ = [
    "FakeQuantActivations",
    "FakeQuantWeights",
    "calibrate",
    "export_litert",
    "load_litert",
    "quantization_aware",
]
