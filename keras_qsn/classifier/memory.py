"""How many images at once: what a model's gradient keeps of each."""

import numpy as np

from keras_qsn._core.numbers import bytes_in
from keras_qsn._core.numbers import check_count
from keras_qsn.classifier.compiled import compiled_logits

# Of images at once, where nothing else is said, and of bytes for them.
MOST = 128
_DEFAULT = "2GB"


def bytes_of_image(wrapper, shape):
    """Bytes of all that a model computes on the way from an image to logits.

    A gradient keeps no more of it than that, and often half: see
    `tests/benchmarks/memory.py`. What a loop inside the model makes is not
    counted.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.
    """
    operations = compiled_logits(wrapper, shape).graph.get_operations()
    made = [tensor for op in operations for tensor in op.outputs]
    return sum(
        tensor.dtype.size * int(np.prod(tensor.shape[1:]))
        for tensor in made
        # One row an image, in whatever follows.
        if tensor.shape.rank
        and tensor.shape[0] is None
        and tensor.shape[1:].is_fully_defined()
    )


def images_at_once(batch_size, wrapper, shape):
    """A batch size as a user gives it, as a number of images.

    Args:
        batch_size: An integer; or text, the memory that a batch may take,
            such as `"500MB"`; or `None`, for 2 GB. By memory, there are 128
            images in a batch at most, and one at least.
        wrapper: The model's `KerasModelWrapper`.
        shape: Shape of one image.

    Raises:
        TypeError: If it is neither.
        ValueError: If it is no whole number of at least 1, and no amount of
            memory.
    """
    if batch_size is None:
        batch_size = _DEFAULT
    if not isinstance(batch_size, str):
        return check_count("batch_size", batch_size)
    budget = bytes_in(batch_size)
    if budget is None:
        raise ValueError(
            "`batch_size` must be a whole number of images, or the memory "
            "that they may take, such as '500MB' or '2GB'. "
            f"Received: batch_size={batch_size!r}"
        )
    each = bytes_of_image(wrapper, shape)
    return int(np.clip(budget // max(each, 1), 1, MOST))
