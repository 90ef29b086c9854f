"""Which layers can be certified, and what each of them computes."""

import keras

from keras_qsn.certification.rules.base import Rule

# Functions of a layer and of the shapes of its inputs, by its class; and of
# nothing, by an activation function.
_RULES = {}


def register_rule(*kinds):
    """Decorator: what it decorates makes the rule of these kinds of layers.

    It is called with the layer and the shape of each of its inputs, without
    the batch, and returns a `Rule`, or a list of rules that are applied one
    after the other: all of the layer, its activation included. So it is a
    function, or a subclass of `Rule`. A `ValueError` of its own refuses the
    layer, with its message as the reason.

    A subclass of the layer has the same rule if it changes only how the layer
    is made: `__init__`, `build`, `get_config`.

    Args:
        *kinds: Classes of Keras layers; or activation functions, such as
            `keras.activations.softsign`, whose rule is made without
            arguments.

    Returns:
        The decorator, which returns what it is given.

    Raises:
        TypeError: If a kind is neither, or what is decorated no rule.

    Example:

    >>> class Double(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         return 2 * inputs
    >>> @register_rule(Double)
    ... def double(layer, shape):
    ...     return Affine(lambda x, absolute=False: 2 * x, terms=1)
    >>> model = keras.Sequential([keras.Input((2,)), Double()])
    >>> certify(model, [[0.1, 0.9]], [1], eps=0.3).margin.round(3)
    array([0.4])

    Limitations:
        What a `folder` of `certify` keeps does not know of a rule that is
        changed: name another folder then.
    """
    for kind in kinds:
        a_class = isinstance(kind, type)
        fits = issubclass(kind, keras.Layer) if a_class else callable(kind)
        # A layer that is made can be called, and is no function either.
        if not fits or isinstance(kind, keras.Layer):
            raise TypeError(
                "A rule is registered for a class of Keras layers or an "
                f"activation function. Received: {kind!r}"
            )

    def register(make):
        a_class = isinstance(make, type)
        if not (issubclass(make, Rule) if a_class else callable(make)):
            raise TypeError(
                "What is registered must be a `Rule`, or a function that "
                f"makes some. Received: {make!r}"
            )
        _RULES.update(dict.fromkeys(kinds, make))
        return make

    return register


def rules_of(layer, *shapes):
    """What a layer computes of inputs of these shapes, as a list of rules.

    Raises:
        ValueError: If there is no sound rule for the layer.
    """
    kinds = (kind for kind in _RULES if computes_as(layer, kind))
    make = _RULES.get(next(kinds, None))
    if make is None:
        raise refusal(layer, "there is no sound rule for this class")
    try:
        check_numbers(layer)
        made = make(layer, *shapes)
    except ValueError as error:
        raise refusal(layer, str(error)) from error
    made = made if isinstance(made, list) else [made]
    if not all(isinstance(rule, Rule) for rule in made):
        raise TypeError(
            f"What is registered for {type(layer).__name__} must return a "
            f"`Rule` or a list of them. Received: {made}"
        )
    return made


def activation_of(layer):
    """The rules of a layer's `activation`: one, or none for the identity."""
    if layer.activation in (None, keras.activations.linear):
        return []
    if layer.activation not in _RULES:
        name = getattr(layer.activation, "__name__", layer.activation)
        raise ValueError(f"its activation is {name}")
    return [_RULES[layer.activation]()]


def computes_as(layer, kind):
    """Whether a layer is of a class, or of a subclass that is only made in
    another way."""
    own = type(layer)
    while own is not kind:
        if len(own.__bases__) != 1 or {*vars(own)} - _MAKING:
            return False
        own = own.__base__
    return True


def check_numbers(layer):
    """Refuse what does not compute in float32, channels last."""
    if layer.compute_dtype != "float32" or layer.variable_dtype != "float32":
        raise ValueError(f"its dtype policy is {layer.dtype_policy.name}")
    if getattr(layer, "quantization_mode", None) is not None:
        raise ValueError("its weights are quantized")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise ValueError(f"its data format is {layer.data_format}")


def refusal(layer, reason):
    """The error that names a layer and why it cannot be certified."""
    known = sorted({k.__name__ for k in _RULES if isinstance(k, type)})
    return ValueError(
        "A certificate needs a sound rule for every layer. Received: layer "
        f"'{layer.name}' ({type(layer).__name__}), which is refused: {reason}. "
        f"Known layers: {', '.join(known)}, and QuantLayer at the input or "
        "behind what rescales it. `register_rule` makes others known."
    )


class _Made(keras.layers.Layer):
    """A subclass that computes nothing of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)


_MAKING = {*vars(_Made), "__annotations__", "build", "get_config"}
