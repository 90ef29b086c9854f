"""What decides the result of an evaluation, as plain values."""

import keras
import numpy as np

from keras_qsn._core.config import plain
from keras_qsn._core.files import fingerprint
from keras_qsn._core.kept import versions
from keras_qsn.attacks.base import Attack
from keras_qsn.attacks.views.base import View
from keras_qsn.classifier.wrapper import KerasModelWrapper


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
    surrogates,
    draws,
    detector=None,
    attack_dtype=None,
):
    """What decides the result of an evaluation, as plain values.

    Models count by what they compute, not by their names. The arguments are
    those of `evaluate_robustness`, checked; a plan of one's own is `Step`s.
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
        else [_with_models(step, shape) for step in plan],
        "checks": checks,
        "sources": {
            name: KerasModelWrapper.of(source).fingerprint(shape)
            for name, source in (sources or {}).items()
        },
        "certified": None if certified is None else fingerprint(certified),
        "train_data": None if train_data is None else fingerprint(*train_data),
        "surrogates": {
            name: _told(surrogate) for name, surrogate in surrogates.items()
        },
        "draws": draws,
        "detector": None if detector is None else detector.fingerprint(shape),
        "attack_dtype": attack_dtype,
        "versions": versions(),
    }


def check_functions(steps):
    """Refuse functions that another one of their name would be taken for."""
    for step in steps:
        for part in _parts_of(step.attack):
            for function in part.functions():
                if "<" in getattr(function, "__qualname__", ""):
                    raise ValueError(
                        "Where results are kept in a `folder`, an attack may "
                        "hold only functions defined at the top of a module: "
                        "others cannot be told from one another by name. "
                        f"Received: {function.__qualname__} in {step.name}"
                    )


def _with_models(step, shape):
    """A step as plain values, with the models its attack holds."""
    # What an attack and its view both hold is one.
    held = {
        id(value): value
        for part in _parts_of(step.attack)
        for value in vars(part).values()
        if isinstance(value, (keras.Model, KerasModelWrapper))
    }
    models = [
        KerasModelWrapper.of(model).fingerprint(shape)
        for model in held.values()
    ]
    return {**step.get_config(), "models": models}


def _parts_of(attack):
    """An attack, and the attacks and views inside it."""
    yield attack
    for value in vars(attack).values():
        if isinstance(value, (Attack, View)):
            yield from _parts_of(value)


def _told(surrogate):
    """A surrogate as plain values; of a Keras layer, with its weights."""
    told = [plain(surrogate)]
    if isinstance(surrogate, keras.Layer):
        told = [type(surrogate).__name__, plain(surrogate.get_config())]
        told.append(fingerprint(*(v.numpy() for v in surrogate.weights)))
    return told
