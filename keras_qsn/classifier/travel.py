"""A Keras model as bytes, and back."""

import pathlib
import tempfile

import keras


def content_of(model):
    """The bytes of a model's `.keras` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def model_of(content):
    """The model in such bytes: those of a model that has run already, so it
    may hold lambdas. Losses are left behind: they may be anybody's."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        path.write_bytes(content)
        return keras.models.load_model(path, compile=False, safe_mode=False)
