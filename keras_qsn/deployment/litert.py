"""A `.tflite` file as a function, run by LiteRT."""

import pathlib
import threading

import numpy as np

from keras_qsn._core.numbers import check_count


def load_litert(filepath, batch_size=128):
    """The function in a `.tflite` file, from images to its outputs.

    Run by LiteRT (`pip install 'keras_qsn[deploy]'`), on its own kernels.
    Int8 ends are turned into floats and back.

    Args:
        filepath: Path of the file, of one input and one output.
        batch_size: Integer >= 1. Images at once. Defaults to `128`.

    Returns:
        A function from float32 images `(images, ...)` to a float32 array,
        with the attributes `input_shape` and `output_shape`, both without the
        batch.

    Raises:
        ImportError: If LiteRT is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If it is none, or has several inputs or outputs.

    Example:

    >>> load_litert("nowhere.tflite")
    Traceback (most recent call last):
    FileNotFoundError: There is no file nowhere.tflite.

    Limitations:
        One call after the other: an interpreter has one memory.
    """
    return LiteRTFunction(filepath, batch_size)


class LiteRTFunction:
    """What `load_litert` returns; it can be sent to another process."""

    def __init__(self, filepath, batch_size=128):
        path = pathlib.Path(filepath)
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        self.name = path.stem
        self._load(path.read_bytes(), check_count("batch_size", batch_size))

    def __getstate__(self):
        return self.name, self._content, self._batch_size

    def __setstate__(self, state):
        self.name, *others = state
        self._load(*others)

    def __call__(self, x):
        x = np.asarray(x, "float32")
        if x.shape[1:] != self.input_shape or not len(x):
            raise ValueError(
                f"The network takes images of shape {self.input_shape}. "
                f"Received: x.shape={x.shape}"
            )
        starts = range(0, len(x), self._batch_size)
        with self._lock:
            found = [self._run(x[i : i + self._batch_size]) for i in starts]
        return np.concatenate(found)

    def _load(self, content, batch_size):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(
                "A `.tflite` file is run by LiteRT, which is not installed: "
                "`pip install 'keras_qsn[deploy]'`"
            ) from error
        self._content = content
        self._lock = threading.Lock()
        try:
            self._interpreter = Interpreter(model_content=content)
        except ValueError as error:
            raise ValueError(
                f"The file of '{self.name}' must be a LiteRT network. "
                f"Received: what LiteRT does not read ({error})"
            ) from error
        ends = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        if {*map(len, ends)} != {1}:
            raise ValueError(
                f"The network '{self.name}' must have one input and one "
                f"output. Received: {len(ends[0])} and {len(ends[1])}"
            )
        (self._input,), (self._output,) = ends
        self.input_shape, self.output_shape = (
            tuple(int(n) for n in end["shape"][1:])
            for end in (self._input, self._output)
        )
        # Of a file for a fixed number of images, that number.
        fixed = int(self._input["shape_signature"][0])
        self._fixed = fixed > 0
        self._batch_size = fixed if self._fixed else batch_size
        self._allocated = None

    def _run(self, x):
        count = len(x)
        if self._fixed and count < self._batch_size:
            missing = self._batch_size - count
            x = np.concatenate([x, np.repeat(x[-1:], missing, 0)])
        interpreter = self._interpreter
        if self._allocated != len(x):
            if not self._fixed:
                interpreter.resize_tensor_input(self._input["index"], x.shape)
            interpreter.allocate_tensors()
            self._allocated = len(x)
        interpreter.set_tensor(self._input["index"], _rounded(x, self._input))
        interpreter.invoke()
        y = interpreter.get_tensor(self._output["index"])
        return _values(y, self._output)[:count]


def _rounded(x, end):
    """Floats as an end of the network takes them."""
    if not np.issubdtype(end["dtype"], np.integer):
        return x.astype(end["dtype"])
    scale, zero = end["quantization"]
    limits = np.iinfo(end["dtype"])
    whole = np.round(x / np.float32(scale or 1)) + zero
    return np.clip(whole, limits.min, limits.max).astype(end["dtype"])


def _values(y, end):
    """What an end of the network says, as floats."""
    scale, zero = end["quantization"]
    if not (np.issubdtype(end["dtype"], np.integer) and scale):
        return y.astype("float32")
    return (y.astype("float32") - zero) * np.float32(scale)
