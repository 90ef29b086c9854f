"""A classifier beside the one in training: its teacher, or its original."""


def check_companion(name, wrapper, trained):
    """Refuse a classifier that is the one in training, or of another task.

    Args:
        name: Of the argument that it was given as.
        wrapper: Its `KerasModelWrapper`.
        trained: That of the model in training.
    """
    if wrapper.model is trained.model:
        raise ValueError(
            f"`{name}` must be another model than the one in training. "
            f"Received: '{trained.model.name}' as both. Train a copy of it, "
            "as `keras.models.clone_model` or `quantization_aware` makes one."
        )
    for what in ("num_classes", "input_shape"):
        own, its = getattr(trained, what), getattr(wrapper, what)
        if own != its:
            raise ValueError(
                f"`{name}` must have the `{what}` of the model in training, "
                f"{own}. Received: {name} with {what}={its}"
            )
