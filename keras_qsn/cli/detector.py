"""The detector beside a model, as `evaluate` is told of it."""

import pathlib

from keras_qsn import datasets
from keras_qsn import defenses
from keras_qsn.cli.inputs import load_file
from keras_qsn.cli.parser import SQUEEZING

# Training images that set the threshold, at most.
_IMAGES = 1000
# The paper's squeezers, by the name of the data.
_SQUEEZERS = {"digits": "mnist", "mnist": "mnist", "cifar10": "cifar10"}


def load_detector(options, wrapper, images):
    """The `Detector` that is asked for, fitted on training images; or `None`.

    Args:
        options: Of the command line.
        wrapper: `KerasModelWrapper` of the model it stands beside.
        images: The `Images`.
    """
    if options.detector is None:
        return None
    if options.detector == SQUEEZING:
        detector = _squeezing(options.data, wrapper)
    else:
        detector = _of_file(pathlib.Path(options.detector))
    if images.train is None:
        raise ValueError(
            "A detector's threshold is set by training images. Received: "
            f"{options.data} without any. Expected: x_train and y_train "
            "in an .npz file beside x_test and y_test."
        )
    given = *images.train, _IMAGES, options.seed
    return detector.fit(datasets.stratified_subset(*given)[0])


def _squeezing(data, wrapper):
    if data not in _SQUEEZERS:
        raise ValueError(
            f"--detector {SQUEEZING} has the paper's squeezers of "
            f"{', '.join(_SQUEEZERS)}. Received: --data {data}. For other data "
            "evaluate in Python, with squeezers of your own: "
            "`evaluate_robustness(..., detector=...)`."
        )
    squeezers = defenses.recommended_squeezers(_SQUEEZERS[data])
    return defenses.FeatureSqueezingDetector(wrapper, squeezers)


def _of_file(path):
    try:
        return defenses.ModelDetector(load_file(path, "detector"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no detector file {path}. Expected: a Keras model of "
            f"one score an image, kept by `model.save`, or {SQUEEZING}."
        ) from error
