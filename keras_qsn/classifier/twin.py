"""The same network in float32, of a model that computes in fewer bits."""

import keras

from keras_qsn.classifier.rebuilt import CannotRebuild
from keras_qsn.classifier.rebuilt import from_config
from keras_qsn.classifier.wrapper import KerasModelWrapper

_FEW_BITS = ("float16", "bfloat16")


def in_few_bits(model):
    """Whether a layer computes in 16 bits."""
    return any(
        layer.compute_dtype in _FEW_BITS for layer in model._flatten_layers()
    )


def float32_twin(wrapper):
    """A `KerasModelWrapper` of the same layers and weights in float32.

    Raises:
        CannotRebuild: If the model's configuration does not make it again.
    """
    model = wrapper.model
    if not getattr(model, "outputs", None):
        raise CannotRebuild(
            f"{type(model).__name__} '{model.name}' is neither Sequential nor "
            "functional"
        )

    def again(layer):
        if not isinstance(layer, keras.Layer):
            # An operation, such as `keras.ops.add`, of any type.
            return layer
        if getattr(layer, "outputs", None):
            return keras.models.clone_model(
                layer, keras.Input(layer.input_shape[1:]), again
            )
        return from_config(layer, dtype="float32")

    try:
        twin = again(model)
        twin.set_weights(model.get_weights())
    # Any: a configuration runs code of the user's.
    except Exception as error:
        raise CannotRebuild(
            f"{type(model).__name__} '{model.name}' cannot be made from its "
            f"configuration ({' '.join(str(error).split())[:200]})"
        ) from error
    if in_few_bits(twin):
        raise CannotRebuild(
            f"'{model.name}' has layers that do not take `dtype='float32'`"
        )
    return KerasModelWrapper(twin, wrapper.from_logits)
