"""`quantization_aware`: a model's twin that computes as the int8 network."""

import keras

from keras_qsn._core.numbers import check_share
from keras_qsn.classifier.accepted import as_classifier
from keras_qsn.deployment.calibration import calibrate
from keras_qsn.deployment.layers import check_bits
from keras_qsn.deployment.rewriting import Rewriting


def quantization_aware(
    model, x, bits=8, weight_bits=None, activation_bits=None, momentum=0.99
):
    """A twin of a model whose weights and activations are rounded.

    The twin is an ordinary Keras model, not compiled: `fit`, `evaluate`,
    `save`, `QuSecNet` and attacks take it. As it is returned it is the
    network after training (post-training quantization), its ranges those of
    `x`; `fit` makes the training aware of the quantization: rounded forward,
    straight through backward, ranges by moving averages.

    Each convolution and dense layer becomes a `FakeQuantWeights`, with the
    batch normalization behind it inside; the image, and what each of these,
    sums and means return behind their ReLU, go through a
    `FakeQuantActivations`. Quantization layers and scalings that the image
    goes through first stay as they are, and so do a softmax or a sigmoid at
    the end.

    Args:
        model: Sequential or functional Keras model in float32 of `Conv2D`,
            `DepthwiseConv2D`, `Dense`, `BatchNormalization` right behind one
            of these, ReLU, pooling, `Flatten`, `Reshape`, `ZeroPadding2D`,
            `Dropout`, `Add`; models of these inside it.
        x: Images, as the model takes them, that the ranges start from: some
            hundreds of the training set, never test images.
        bits: Integer from 2 to 8, of weights and activations. Defaults to
            `8`. Below 8 the image and the output keep 8 bits, as usual.
        weight_bits: Integer from 2 to 8. Defaults to `None`: `bits`.
        activation_bits: Integer from 2 to 8. Defaults to `None`: `bits`.
        momentum: Float from 0 to 1, of the moving ranges. Defaults to `0.99`
            (ours).

    Returns:
        A functional `keras.Model` with weights of its own.

    Raises:
        TypeError: If `model` is not a Keras model, or has a layer of another
            kind.
        ValueError: If a number is out of range, a layer with weights is used
            twice, batch normalization stands alone or shares what it is
            folded into, images have no fixed size, or a layer is not in
            float32.

    Example:

    >>> x = np.random.default_rng(0).random((8, 28, 28, 1), "float32")
    >>> twin = quantization_aware(cleverhans_cnn(seed=0), x)
    >>> twin.output_shape
    (None, 10)

    Limitations:
        Few bits are no defence: they hide gradients at best. What the file
        runs on may round otherwise in the last step: attack the file, too.

    Reference:
        - Jacob et al., 2018: https://arxiv.org/abs/1712.05877
        - Krishnamoorthi, 2018: https://arxiv.org/abs/1806.08342
    """
    model = as_classifier(model)
    weight_bits = check_bits(weight_bits or bits, "weight_bits")
    activation_bits = check_bits(activation_bits or bits, "activation_bits")
    momentum = check_share("momentum", momentum)
    if not getattr(model, "outputs", None):
        raise TypeError(
            "`model` must be Sequential or functional: its layers are "
            f"rewritten. Received: {type(model).__name__} '{model.name}'"
        )
    few = [
        layer.name
        for layer in model._flatten_layers()
        if layer.compute_dtype != "float32"
        and not isinstance(layer, keras.layers.InputLayer)
    ]
    if few:
        raise ValueError(
            "`model` must compute in float32, which is rounded from. Received: "
            f"layers of another type: {', '.join(few[:5])}"
        )
    if None in model.input_shape[1:]:
        raise ValueError(
            "`model` must take images of one size, for which its file is made. "
            f"Received: '{model.name}' of {model.input_shape[1:]}. Build it "
            "on a `keras.Input` of that size, and give it the weights."
        )
    twin = Rewriting(weight_bits, activation_bits, momentum).twin(model)
    calibrate(twin, x)
    return twin
