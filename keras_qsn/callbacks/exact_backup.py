"""Backups from which a killed `fit` goes on bit for bit."""

import pathlib

import keras
import numpy as np

from keras_qsn._core import backups


class ExactBackup(keras.callbacks.Callback):
    """Lets a killed `fit` go on to the weights it would have had.

    `keras.callbacks.BackupAndRestore` keeps the weights, those of the
    optimizer, its running means and the epoch. This keeps with them, before
    each epoch but the first, what else decides the next one:

    - the states of all seed generators, as of `Dropout`;
    - which order of its seed a `ShuffledBatches` has come to;
    - numbers of other callbacks: how long `EarlyStopping` has waited, and the
      best weights so far.

    A backup is written beside the one before, which it then replaces: a kill
    in between leaves that one. When `fit` ends, the folder is removed.

    On one thread, and on data whose order a seed decides, weights are the
    same bit for bit; so are the numbers in the logs.

    Args:
        folder: Path of a folder of its own.
        data: What `fit` is given, such as `ShuffledBatches`: anything whose
            state is a number or an array, told by `get_state()` and set by
            `set_state(state)`. Defaults to `None`: data that are the same in
            each epoch.
        callbacks: Callbacks whose numbers are kept, in the same order each
            time. Defaults to none.

    Raises:
        TypeError: If `data` has no such methods.
        ValueError: If a backup is of other callbacks, or `folder` holds
            something else.

    Example:

    >>> x, y = np.full((8, 28, 28, 1), 0.5, "float32"), np.arange(8)
    >>> model = cleverhans_cnn(seed=0)
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    >>> batches = ShuffledBatches(x, y, 4, seed=0)
    >>> stop = keras.callbacks.EarlyStopping("loss", patience=3)
    >>> callbacks = [stop, ExactBackup("backup", batches, [stop])]
    >>> history = model.fit(
    ...     batches, epochs=2, shuffle=False, callbacks=callbacks, verbose=0
    ... )

    Limitations:
        Put it last: it keeps what callbacks before it have done, and sets
        them back after they have begun. The history starts anew. Global
        random state, as of `fit(shuffle=True)`, is not kept.
    """

    def __init__(self, folder, data=None, callbacks=()):
        super().__init__()
        if data is not None and not (
            hasattr(data, "get_state") and hasattr(data, "set_state")
        ):
            raise TypeError(
                "`data` must have `get_state()` and `set_state(state)`, as "
                f"`keras_qsn.datasets.ShuffledBatches`. Received: {data!r}"
            )
        self.folder = pathlib.Path(folder)
        self.data = data
        self.callbacks = tuple(callbacks)

    def on_train_begin(self, logs=None):
        kept = backups.newest(self.folder)
        if kept is None:
            return
        self._weights(kept).on_train_begin()
        with np.load(kept / "state.npz") as file:
            state = dict(file)
        names = "/".join(state.pop("callbacks").tolist())
        if names != "/".join(self._names()):
            raise ValueError(
                "A backup must be of the same callbacks, in the same order: "
                f"{names or 'none'}. Received: {self._names()}. Give those, or "
                f"remove {self.folder}."
            )
        for i, seed in enumerate(self._seeds()):
            seed.assign(state.pop(f"seed/{i}"))
        if self.data is not None:
            self.data.set_state(state.pop("data")[()])
        for i, callback in enumerate(self.callbacks):
            own = f"{i}/"
            backups.hold(
                callback,
                {
                    name.removeprefix(own): value
                    for name, value in state.items()
                    if name.startswith(own)
                },
            )

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0:
            return
        state = {"callbacks": np.array(self._names(), str)}
        for i, seed in enumerate(self._seeds()):
            state[f"seed/{i}"] = np.asarray(seed)
        if self.data is not None:
            state["data"] = self.data.get_state()
        for i, callback in enumerate(self.callbacks):
            for name, value in backups.held(callback).items():
                state[f"{i}/{name}"] = value
        with backups.replacing(self.folder) as part:
            self._weights(part).on_epoch_end(epoch - 1)
            np.savez(part / "state.npz", **state)

    def on_train_end(self, logs=None):
        backups.remove(self.folder)

    def _weights(self, folder):
        """Keras' own backup of the model and of the epoch, in a folder."""
        stock = keras.callbacks.BackupAndRestore(str(folder))
        stock.set_model(self.model)
        return stock

    def _seeds(self):
        """The states of seed generators: variables that are no weights."""
        weights = {id(weight) for weight in self.model.weights}
        return [v for v in self.model.variables if id(v) not in weights]

    def _names(self):
        return [type(callback).__name__ for callback in self.callbacks]
