"""What several commands are given: a model and data."""

import keras

from keras_qsn import datasets


def add_model_and_data(command):
    command.add_argument("model", help="a saved Keras classifier, .keras")
    command.add_argument(
        "--data",
        required=True,
        help=f"{', '.join(datasets.NAMES)}, or an .npz file with x_test and "
        "y_test, and perhaps x_train and y_train",
    )
    command.add_argument(
        "--data-dir", help="folder with mnist.npz or cifar10.npz"
    )


def load_model(path):
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}.")
    # In Keras' safe mode: a model file may not run code.
    return keras.models.load_model(path)
