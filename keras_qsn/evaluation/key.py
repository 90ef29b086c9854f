"""What decides the result of an evaluation, as plain values."""

import keras
import numpy as np

from keras_qsn._core.config import plain
from keras_qsn._core.files import fingerprint
from keras_qsn._core.kept import versions
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.views.base import View
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import plans


def key(
    wrapper,
    x,
    y,
    threat,
    batch_size,
    plan,
    checks,
    sources,
    train_data,
    certified,
):
    """What decides the result of an evaluation, as plain values.

    Models count by what they compute, not by their names.

    Args:
        wrapper: `KerasModelWrapper` of the model attacked.
        x: The images.
        y: Their classes.
        threat: The `ThreatModel`.
        batch_size: Images attacked at once.
        plan: Name of a plan, or list of `Step`.
        checks: `"all"`, `"light"` or `None`.
        sources: `{name: model}` to transfer from, or `None`.
        train_data: Images and classes to train such models on, or `None`.
        certified: Booleans, one for each image, or `None`.
    """
    shape = x.shape[1:]
    return {
        "fingerprint": wrapper.fingerprint(shape),
        "data": fingerprint(x, y),
        "images": len(x),
        "norm": "inf" if threat.norm == np.inf else threat.norm,
        "eps": float(threat.eps),
        "value_range": [plain(threat.clip_min), plain(threat.clip_max)],
        "seed": int(threat.seed),
        "batch_size": int(batch_size),
        "plan": plan
        if isinstance(plan, str)
        else [_describe(step, shape) for step in plan],
        "checks": checks,
        "sources": {
            name: KerasModelWrapper.of(source).fingerprint(shape)
            for name, source in (sources or {}).items()
        },
        "certified": None if certified is None else fingerprint(certified),
        "train_data": None if train_data is None else fingerprint(*train_data),
        "versions": versions(),
    }


def _describe(step, shape):
    """A step as plain values, with the models its attack holds."""
    # What an attack and its view both hold is one.
    held = {id(model): model for model in _models_of(step.attack)}
    models = [
        KerasModelWrapper.of(model).fingerprint(shape)
        for model in held.values()
    ]
    return {**plans.describe(step), "models": models}


def _models_of(attack):
    """The models an attack holds, and the attacks and views inside it."""
    for value in vars(attack).values():
        if isinstance(value, (keras.Model, KerasModelWrapper)):
            yield value
        elif isinstance(value, (Attack, View)):
            yield from _models_of(value)
