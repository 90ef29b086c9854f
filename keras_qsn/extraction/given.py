"""What an extraction is given: images to ask about, images to measure on."""

import numpy as np

from keras_qsn.classifier.inputs import as_arrays
from keras_qsn.classifier.inputs import check_images
from keras_qsn.classifier.inputs import check_labels


def check_pool(attack, images, copy):
    """Images to ask about, and their classes if there are such.

    Args:
        attack: The `ExtractionAttack`.
        images: As for `ExtractionAttack.run`.
        copy: The copy's `KerasModelWrapper`.

    Returns:
        Float32 images and integer classes, either of which may be `None`.
    """
    kind = type(attack).__name__
    if not attack.needs_images:
        if images is not None:
            raise ValueError(
                f"{kind} makes its own images. Received: `images`. Leave them "
                "out."
            )
        return None, None
    if images is None:
        raise ValueError(
            f"{kind} must be given `images` to ask about. Received: images=None"
        )
    images, labels = as_arrays(
        *(images if isinstance(images, tuple) else (images,))
    )
    images = check_images(images, attack.clip_min, attack.clip_max, copy)
    if labels is not None:
        # Of any classes: the images need not be of the victim's.
        labels = check_labels(labels, len(images), _classes(labels), "images")
    return images, labels


def check_test(attack, x_test, y_test, copy):
    """Images to measure on, and their classes or `None`; as `check_pool`."""
    if x_test is None:
        raise ValueError(
            "`x_test` must hold images to measure agreement on. "
            "Received: x_test=None"
        )
    x_test, y_test = as_arrays(x_test, y_test)
    x_test = check_images(x_test, attack.clip_min, attack.clip_max, copy)
    if y_test is not None:
        y_test = check_labels(y_test, len(x_test), copy.num_classes, "y_test")
    return x_test, y_test


def _classes(labels):
    """How many classes labels tell apart."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "biuf" or not labels.size:
        return 1
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    return labels.shape[1] if one_hot else int(labels.max()) + 1
